"""Layer-wise relevance propagation (LRP), for any net made of the operations below; others are refused by name.

Own, since captum's refuses softplus and flatten, lets residual additions escape (relevance is doubled there by every
rule; here by alpha 2, beta 1 alone, where no summand is negative, see `_alpha_beta_rule`), and has no alpha-beta rule
but alpha 1, beta 0 for inputs that are not negative. Relevance flows through autograd: each operation is replaced by
one with the same output whose backward pass takes and gives relevance.
Source: Bach et al. 2015; Montavon et al. 2019; rules per layer as in LGA, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

from bench.attributions.operations import ACTIVATION_NAMES, tensors_in
from bench.attributions.registry import register_attribution
from bench.attributions.rules import RuleMode, passed_back
from bench.core.errors import BenchError

Stabiliser = Annotated[float, Field(gt=0, description="stabiliser of the denominators, in units of activations")]
Linear = Callable[[Sequence[Tensor]], Tensor]
Split = Callable[[Sequence[Tensor], bool], Tensor]
"""Of inputs the contributions that raise an output, or those that lower it."""
_LINEAR = frozenset({"avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "interpolate"})
_BY_GRADIENT = frozenset(
    {"flatten", "unflatten", "view", "view_as", "reshape", "contiguous", "to", "float", "clone", "permute", "transpose",
     "t", "__get__", "movedim", "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "__getitem__", "__setitem__",
     "index_select", "select", "narrow", "split", "chunk", "unbind", "cat", "concat", "stack", "roll", "flip", "pad",
     "masked_fill", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "max_pool2d", "adaptive_max_pool2d",
     "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
)  # fmt: skip
"""Values put somewhere else, or chosen: the gradient is 1 or 0. Dropout does nothing to a net in eval mode."""
_AFFINE = frozenset({"sub", "add", "div", "mul", "true_divide"})


class RelevanceMode(RuleMode):
    """Inside this context, gradients of a logit are relevances of that logit.

    Activations, dropout and constant shifts and scales of the input pass relevance on unchanged; max-pooling gives it
    to the winner. A batch norm right after a convolution is merged into it, any other passes relevance on unchanged.

    Attributes:
        alpha: weight of the positive contributions in convolutions and residual sums; None takes the epsilon rule
            there too. Negative contributions get `alpha - 1`. Biases take no part.
        epsilon: stabiliser of the epsilon rule, which linear layers and averages have; the bias takes its share.

    Raises:
        BenchError: the net computes something that no rule is known for.
    """

    def __init__(self, alpha: float | None, epsilon: float) -> None:
        super().__init__()
        self.alpha, self.epsilon = alpha, epsilon
        self._mergeable: dict[Node | None, Callable[[Tensor, Tensor], Tensor]] = {}
        """By the node of a layer's output, which changes with the output: the layer with a batch norm behind it."""

    def operation(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = [value for value in tensors_in((args, kwargs)) if value.requires_grad]
        if not inputs:
            return func(*args, **kwargs)
        if len(inputs) == 1 and args and (inputs[0] is args[0] or name in ("add", "mul")):
            if name in ("conv2d", "linear"):
                return self._layer(name, func, args, kwargs)
            if name == "batch_norm":
                return self._batch_norm(func, args, kwargs)
            if name in _LINEAR and kwargs.get("mode") not in ("nearest", "nearest-exact"):
                return self._linear(lambda parts: func(parts[0], *args[1:], **kwargs), inputs)
            if name in ACTIVATION_NAMES or name in _AFFINE:
                with torch.no_grad():
                    output = func(*args, **kwargs)
                return _pass_on(inputs[0], output, name)
        if name == "add" and len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
            return self._sum(inputs, kwargs.get("alpha", 1))
        result = func(*args, **kwargs)
        if name not in {*_BY_GRADIENT, "interpolate"} and any(value.requires_grad for value in tensors_in((result,))):
            raise BenchError(f"LRP has no rule for the operation {name!r} of this net; use another attribution.")
        return result

    def _layer(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        named = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False))
        named |= kwargs
        inputs, weight, bias = named.pop("input"), named.pop("weight"), named.pop("bias", None)
        true = self.true_inputs

        def layer(weight: Tensor, bias: Tensor | None) -> Tensor:
            def apply(values: Tensor, weight: Tensor) -> Tensor:
                result: Tensor = func(values, weight, None, **named)
                return result

            self.true_inputs = true  # also when a batch norm further on asks for the layer once more
            offset = None if bias is None else (bias if name == "linear" else bias.view(-1, 1, 1))
            split = self._split(apply, inputs, weight) if name == "conv2d" and self.alpha is not None else None
            output = self._linear(lambda parts: apply(parts[0], weight), [inputs], offset, split)
            self._mergeable[output.grad_fn] = lambda scale, shift: layer(
                weight * scale.view(-1, *([1] * (weight.dim() - 1))), shift if bias is None else bias * scale + shift
            )
            return output

        return layer(weight, bias)

    def _batch_norm(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        statistics, weights = ("running_mean", "running_var"), ("weight", "bias")
        order = (*statistics, *weights) if func is F.batch_norm else (*weights, *statistics)
        named = dict(zip(("input", *order, "training", "momentum", "eps"), args, strict=False)) | kwargs
        merge = self._mergeable.get(named["input"].grad_fn)
        mean, variance = named["running_mean"], named["running_var"]
        if merge is None or named.get("training") or mean is None:
            with torch.no_grad():
                output: Tensor = func(*args, **kwargs)
            return _pass_on(named["input"], output, "batch_norm")
        scale = torch.rsqrt(variance + named.get("eps", 1e-5))
        if named.get("weight") is not None:
            scale = scale * named["weight"]
        shift = -mean * scale if named.get("bias") is None else named["bias"] - mean * scale
        return merge(scale, shift)

    def _split(self, apply: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, weight: Tensor) -> Split:
        """The contributions of a convolution, split by the signs of input and weight."""
        signed = weight.clamp_max(0.0), weight.clamp_min(0.0)
        # behind a ReLU half of the products are 0; where a map is differentiated, their derivatives at 0 are not
        one_sign = self.true_inputs is None and bool(inputs.amin() >= 0.0)

        def split(values: Sequence[Tensor], raising: bool) -> Tensor:
            if one_sign:
                return apply(values[0], signed[raising])
            above, below = values[0].clamp_min(0.0), values[0].clamp_max(0.0)
            return apply(above, signed[raising]) + apply(below, signed[not raising])

        return split

    def _sum(self, inputs: Sequence[Tensor], factor: float) -> Tensor:
        def added(parts: Sequence[Tensor]) -> Tensor:
            return parts[0] + factor * parts[1]

        def split(values: Sequence[Tensor], raising: bool) -> Tensor:
            return added([value.clamp_min(0.0) if raising else value.clamp_max(0.0) for value in values])

        return self._linear(added, inputs, split=split)

    def _linear(
        self, linear: Linear, inputs: Sequence[Tensor], offset: Tensor | None = None, split: Split | None = None
    ) -> Tensor:
        """An operation linear in all its inputs, by the alpha-beta rule where its contributions can be split."""
        with torch.no_grad():
            output = linear(inputs)
            output = output if offset is None else output + offset
        if split is None or self.alpha is None:
            epsilon_rule = partial(_epsilon_rule, linear=linear, offset=offset, epsilon=self.epsilon)
            return self.by_rule(inputs, output, epsilon_rule)
        rule = partial(_alpha_beta_rule, split=split, alpha=self.alpha, epsilon=self.epsilon)
        return self.by_rule(inputs, output, rule)


def _pass_on(inputs: Tensor, output: Tensor, name: str) -> Tensor:
    if output.shape != inputs.shape:
        raise BenchError(f"LRP has no rule for the broadcasting {name!r} of this net; use another attribution.")
    return passed_back(inputs, output, lambda relevance: relevance)


def _stabilised(values: Tensor, epsilon: float) -> Tensor:
    return values + torch.where(values >= 0, epsilon, -epsilon)


def _shares(contributions: Tensor, inputs: Sequence[Tensor], ratio: Tensor) -> tuple[Tensor, ...]:
    """input * d(contributions)/d(input) . ratio, for each input; with a graph only where the rules' pass has one."""
    gradients = torch.autograd.grad(contributions, inputs, ratio, create_graph=torch.is_grad_enabled())
    return tuple(value * gradient for value, gradient in zip(inputs, gradients, strict=True))


def _epsilon_rule(
    inputs: Sequence[Tensor], relevance: Tensor, linear: Linear, offset: Tensor | None, epsilon: float
) -> Sequence[Tensor]:
    """R_i = x_i w_ij R_j / (z_j + epsilon sign z_j)."""
    with torch.enable_grad():
        contributions = linear(inputs)
    total = contributions if offset is None else contributions + offset
    return _shares(contributions, inputs, relevance / _stabilised(total, epsilon))


def _alpha_beta_rule(
    inputs: Sequence[Tensor], relevance: Tensor, split: Callable[..., Tensor], alpha: float, epsilon: float
) -> Sequence[Tensor]:
    """R_i = (alpha z_ij+ / z_j+ - (alpha - 1) z_ij- / z_j-) R_j; an output without z+ or z- gives that part to none.

    That is the literal rule: an output without z- hands on alpha R_j in all, one without z+ (1 - alpha) R_j, and only
    one with both R_j.
    """
    totals = [torch.zeros_like(value) for value in inputs]
    for raising, weight in ((True, alpha), (False, 1.0 - alpha)):
        if weight == 0.0:
            continue
        with torch.enable_grad():
            contributions = split(inputs, raising)
        ratio = weight * relevance / _stabilised(contributions, epsilon)
        totals = [old + new for old, new in zip(totals, _shares(contributions, inputs, ratio), strict=True)]
    return totals


def _lrp(name: str, alpha: float | None, says: str) -> Callable[..., Tensor]:
    def lrp(
        model: nn.Module, images: Tensor, targets: Tensor, *, keep_graph: bool = False, epsilon: Stabiliser = 1e-6
    ) -> Tensor:
        mode = RelevanceMode(alpha, epsilon)
        source, logits, true = mode.passes(model, images, name, keep_graph=keep_graph)
        chosen = torch.zeros_like(true).scatter(1, targets[:, None], 1.0)
        with torch.set_grad_enabled(keep_graph):
            (relevance,) = torch.autograd.grad(logits, source, chosen * true, create_graph=keep_graph)
        return relevance

    lrp.__doc__ = says
    return register_attribution(name, differentiable=True)(lrp)


lrp_epsilon = _lrp("lrp_epsilon", None, "LRP, the epsilon rule in all layers (Bach et al. 2015); see `RelevanceMode`.")
lrp_epsilon_plus = _lrp(
    "lrp_epsilon_plus", 1.0,
    "LRP, alpha 1 beta 0 in convolutions and residual sums, epsilon in linear layers.\n\n"
    "Of the former, an output without positive contributions hands on no relevance, the others all of theirs.",
)  # fmt: skip
lrp_alpha2_beta1 = _lrp(
    "lrp_alpha2_beta1", 2.0,
    "LRP, alpha 2 beta 1 in convolutions and residual sums, epsilon in linear layers.\n\n"
    "In the former, only outputs with contributions of both signs conserve relevance. As the rule is written, one\n"
    "without negative contributions hands on twice its relevance, one without positive ones the opposite of it.",
)  # fmt: skip
