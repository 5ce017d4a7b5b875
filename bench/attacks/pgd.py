"""Projected gradient descent at one radius: the plain attack that adversarial training and quick checks use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks import steps as step_rules
from bench.attacks.losses import LOSS_FUNCTIONS, LossName, answers
from bench.attacks.projections import project
from bench.attacks.registry import AttackResult, register_attack
from bench.core.bounds import Steps
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import Norm


@contextmanager
def attacked_model(model: nn.Module, *, train_mode: bool = False) -> Iterator[nn.Module]:
    """The model with its parameters' gradients off, in eval mode unless asked; all is put back, module by module."""
    modes = [(module, module.training) for module in model.modules()]
    needed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train(train_mode)
    for parameter in needed:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter in needed:
            parameter.requires_grad_(True)
        model.train(modes[0][1])
        for module, training in modes:
            module.training = training


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: Tensor | float,
    steps: int,
    step_size: Tensor | float,
    loss: LossName = "cross_entropy",
    start: Tensor | None = None,
    train_mode: bool = False,
) -> Tensor:
    """Untargeted PGD, last iterate (Madry et al. 2018).

    Args:
        images: (N, C, H, W) in [0, 1].
        eps: and `step_size`: one for all, or (N,).
        start: (N, C, H, W) uniform numbers for a random start, or None to start at the images.
        train_mode: attack the model as it is while it trains (batch statistics, dropout) in place of eval mode.

    Returns:
        (N, C, H, W) float32 in [0, 1] within `eps` of `images`, detached.
    """
    radius, size = (
        one.to(images.dtype) if isinstance(one, Tensor) else images.new_full((len(images),), one)
        for one in (eps, step_size)
    )
    sparsity = images.new_full((len(images),), 0.05)
    loss_function = LOSS_FUNCTIONS[loss]
    adversarial = images
    if start is not None:
        adversarial = project(images + step_rules.random_start(images, radius, norm, start), images, radius, norm)
    with attacked_model(model, train_mode=train_mode):
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss_function(model(adversarial), labels).sum(), adversarial)
            with torch.no_grad():
                gradient = gradient.nan_to_num(0.0, 0.0, 0.0)  # there it is blind, but the image stays one
                moved = adversarial + step_rules.steepest_step(gradient, adversarial, size, norm, sparsity=sparsity)
                adversarial = project(moved, images, radius, norm)
    return adversarial.detach()


@register_attack("pgd", needs_gradients=True)
def pgd_with_restarts(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, eps: Tensor, ids: Tensor, seed: int = 0,
    batch_size: int = 256, steps: Steps = 40,
    relative_step_size: Annotated[float, Field(gt=0, le=100)] | None = None, loss: LossName = "cross_entropy",
    restarts: Steps = 1, random_start: bool = True,
) -> AttackResult:  # fmt: skip
    """PGD from several starts; the last iterate of the first that fools the model, or else of the last.

    Args:
        relative_step_size: over eps; None for 2.5 / steps, with which it can cross the ball.
        random_start: start anywhere in the ball, not at the image.
    """
    found, standing = images.clone(), torch.ones_like(labels, dtype=torch.bool)
    size = eps * (relative_step_size or 2.5 / steps)
    for restart in range(restarts):
        for part in torch.split(standing.nonzero().squeeze(1), batch_size):
            clean, truth, start = images[part], labels[part], None
            if random_start:
                number = torch.full_like(part, restart)
                start = keyed_uniform(seed, f"pgd/{norm}", ids[part], clean.shape[1:], extra=number)
            found[part] = pgd(
                model, clean, truth, norm=norm, eps=eps[part], steps=steps, step_size=size[part], loss=loss, start=start
            )
            with torch.no_grad():
                standing[part] = answers(model(found[part])) == truth
    return AttackResult(found)
