"""A model as attacks that others wrote call it: empty batches, bounded memory, counted work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.attacks.adapters.under_way import Answers
from bench.core.torch_state import put_back_random_states, random_states


class _ContiguousGradient(torch.autograd.Function):
    """The identity, with a contiguous gradient of numbers.

    The attacks use `view`, which channels_last gradients refuse, and a NaN would end up in their images.
    """

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:  # noqa: ARG004
        return images.view_as(images)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.contiguous().nan_to_num(0.0, 0.0, 0.0)


class PreparedModel(nn.Module):
    """The model as the components call it: empty batches, bounded memory, counted work.

    Attributes:
        batch_size: more images than this go through the net in parts, with gradients recomputed part by part, so
            that a component may hold all its images at once, independent of the device's memory.
        forwards: images that went through the net without a gradient being asked for.
        gradients: images that went through the net for a gradient.
        answers: keeps what the net says, where a stop is to lose little of it.
    """

    def __init__(self, model: nn.Module, num_classes: int, batch_size: int) -> None:
        super().__init__()
        self.model, self.num_classes, self.batch_size = model, num_classes, batch_size
        self.forwards = self.gradients = 0
        self.answers: Answers | None = None

    def forward(self, images: Tensor) -> Tensor:
        if not len(images):
            return images.new_zeros(0, self.num_classes)
        if not (torch.is_grad_enabled() and images.requires_grad):
            self.forwards += len(images)
            return torch.cat([self._logits(part) for part in torch.split(images, self.batch_size)])
        self.gradients += len(images)
        images = _ContiguousGradient.apply(images)
        if len(images) <= self.batch_size:
            return self._with_gradient(self.model, images)
        in_parts = partial(checkpoint, self.model, use_reentrant=False)
        return torch.cat([self._with_gradient(in_parts, part) for part in torch.split(images, self.batch_size)])

    def _logits(self, images: Tensor) -> Tensor:
        if self.answers is not None:
            return self.answers.ask(images, partial(self.model, images))
        logits: Tensor = self.model(images)
        return logits

    def _with_gradient(self, net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return net(images) if self.answers is None else _Kept.apply(images, net, self.answers)


class _Kept(torch.autograd.Function):
    """A pass through the net whose logits and gradients are kept, or come from what was kept."""

    @staticmethod
    def forward(context: Any, images: Tensor, net: Callable[[Tensor], Tensor], answers: Answers) -> Tensor:
        context.net, context.answers, context.logits = net, answers, None
        context.states = random_states(images.device)
        context.save_for_backward(images)
        context.given = images.detach().requires_grad_(True)

        def compute() -> Tensor:
            with torch.enable_grad():
                context.logits = net(context.given)
            return torch.Tensor(context.logits.detach())

        return answers.ask(images, compute)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # it is to be differentiated once more
            context.answers.stop()
            (images,) = context.saved_tensors
            (gradient,) = torch.autograd.grad(context.net(images), images, slope, create_graph=True)
            return gradient, None, None

        def compute() -> Tensor:
            if context.logits is None:  # the pass was kept, its gradient was not
                now = random_states(slope.device)
                put_back_random_states(context.states)
                with torch.enable_grad():
                    context.logits = context.net(context.given)
                put_back_random_states(now)
            found: Tensor = torch.autograd.grad(context.logits, context.given, slope, retain_graph=True)[0]
            return found

        return context.answers.ask(slope, compute), None, None
