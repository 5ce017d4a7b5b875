"""Projected gradient descent at one radius: the plain attack that adversarial training and quick checks use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.attacks.losses import LOSS_FUNCTIONS, LossName
from bench.attacks.projections import project
from bench.attacks.steps import random_start, steepest_step
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
    eps: float,
    steps: int,
    step_size: float,
    loss: LossName = "cross_entropy",
    start: Tensor | None = None,
    train_mode: bool = False,
) -> Tensor:
    """Untargeted PGD, last iterate (Madry et al. 2018).

    Args:
        images: (N, C, H, W) in [0, 1].
        start: (N, C, H, W) uniform numbers for a random start, or None to start at the images.
        train_mode: attack the model as it is while it trains (batch statistics, dropout) in place of eval mode.

    Returns:
        (N, C, H, W) float32 in [0, 1] within `eps` of `images`, detached.
    """
    radius = images.new_full((len(images),), eps)
    size = images.new_full((len(images),), step_size)
    sparsity = images.new_full((len(images),), 0.05)
    loss_function = LOSS_FUNCTIONS[loss]
    adversarial = images
    if start is not None:
        adversarial = project(images + random_start(images, radius, norm, start), images, radius, norm)
    with attacked_model(model, train_mode=train_mode):
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss_function(model(adversarial), labels).sum(), adversarial)
            with torch.no_grad():
                gradient = gradient.nan_to_num(0.0, 0.0, 0.0)  # there it is blind, but the image stays one
                moved = adversarial + steepest_step(gradient, adversarial, size, norm, sparsity)
                adversarial = project(moved, images, radius, norm)
    return adversarial.detach()
