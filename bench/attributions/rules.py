"""Backward passes by rule: an operation's own output, and a rule in the place of its derivative.

A map made so can be differentiated in turn only if its activations have their true derivatives, which the rules have
taken the place of. So there are two passes then: one records each operation's inputs with their true graph, the other
goes by the rules, which take what the first recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.attributions.operations import OperationMode, tensors_in
from bench.core.torch_state import twice_differentiable

Rule = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
"""(an operation's inputs, what its output is given) -> what each input is given."""


class _Recorder(OperationMode):
    """Keeps what each operation takes of tensors with a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[list[Tensor]] = []

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG002
        self.inputs.append([one for one in tensors_in((args, kwargs)) if one.requires_grad])
        return func(*args, **kwargs)


class RuleMode(OperationMode):
    """A mode whose operations go by rules; `by_rule` is for `operation` of a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self._recorded: Iterator[list[Tensor]] | None = None
        self.true_inputs: list[Tensor] | None = None
        """Of the operation at hand, with their true graph, where maps are to be differentiated."""

    def operation(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `intercept` is to other modes."""
        raise NotImplementedError

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.true_inputs = None if self._recorded is None else next(self._recorded)
        return self.operation(name, func, args, kwargs)

    def passes(
        self, model: nn.Module, images: Tensor, purpose: str, *, keep_graph: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What to differentiate by, logits (N, K) that go by the rules, and the same logits with their true graph.

        Args:
            images: (N, C, H, W) that require gradients.
            keep_graph: the map is to be differentiated with respect to `images`. What is neither linear nor goes by a
                rule then counts as constant.

        Raises:
            BenchError: the net does something that the mode has no rule for; `purpose` begins the message.
        """
        if not keep_graph:
            logits = self.logits(model, images, purpose)
            return images, logits, logits.detach()
        recorder = _Recorder()
        with twice_differentiable(wanted=True):
            true = recorder.logits(model, images, purpose)
            self._recorded = iter(recorder.inputs)
            leaf = images.detach().requires_grad_(True)
            return leaf, self.logits(model, leaf, purpose), true

    def by_rule(self, inputs: Sequence[Tensor], output: Tensor, rule: Rule) -> Tensor:
        """`output` forward; backward what it is given goes to `inputs` as the rule shares it out."""
        result: Tensor = _ByRule.apply(output, rule, self.true_inputs, *inputs)
        return result


def passed_back(inputs: Tensor, output: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """`output` forward; backward what it is given goes to `inputs` as the rule makes it."""
    result: Tensor = _PassedBack.apply(inputs, output, rule)
    return result


class _PassedBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, output: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:  # noqa: ARG004
        ctx.rule = rule
        ctx.mark_dirty(output)  # a view could not be changed in place further on
        return output

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rule(given[0]), None, None


class _ByRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, rule: Rule, true: list[Tensor] | None, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.true = rule, true
        ctx.save_for_backward(*inputs)
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.true is None:
            inputs = [value.detach().requires_grad_(True) for value in ctx.saved_tensors]
        else:
            inputs = [value.view_as(value) for value in ctx.true]  # one tensor may stand in two places
        return None, None, None, *ctx.rule(inputs, given[0])
