"""Small nets and batches, and one of each method that penalises derivatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.nets import build_net
from bench.training.methods import (
    Batch,
    HessianRegularization,
    InputGradientRegularization,
    InterpretationRegularization,
    JacobianRegularization,
    LocalGradientAlignment,
    Method,
    Standard,
)


def net(activation: str = "softplus", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(
        "small_cnn",
        {"in_channels": 1, "image_size": 8, "num_classes": 4, "mean": [0.3], "std": [0.4], "widths": [4, 6], "hidden": 8,
         "activation": activation},
    )  # fmt: skip


def batch(seed: int = 1, maps: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 1, 8, 8, generator=generator).to(dtype)
    labels = torch.randint(4, (6,), generator=generator)
    return Batch(
        images, labels, maps, torch.full((1, 1, 1, 1), 0.4, dtype=dtype), generator=torch.Generator().manual_seed(seed)
    )


def parameter_gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


METHODS: list[Method] = [
    Standard(),
    InterpretationRegularization(target="gradient", cosine_weight=1.0, magnitude_weight=0.5),
    LocalGradientAlignment(l2_weight=0.1, cosine_weight=1.0),
    JacobianRegularization(weight=0.1, projections=2),
    InputGradientRegularization(weight=0.5),
    HessianRegularization(weight=0.1),
]


def batch_norm_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 4)]
    model = nn.Sequential(*layers)
    for _ in range(3):  # running statistics that differ from a batch's
        model(2.0 * torch.rand(6, 1, 8, 8))
    return model
