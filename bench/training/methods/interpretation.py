"""Interpretation regularisation (IR): input gradients that point as target maps do, and are small."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.gradients import gradient_maps, smoothgrad_maps, true_logit_gradient
from bench.training.methods.base import Batch, GradientMethod
from bench.training.target_maps import Wanted

_SMALLEST_NORM = 1e-6
"""Added to norms, so that a vanishing gradient bounds the step instead of making it explode (IR, pitfall 6)."""


class InterpretationRegularization(GradientMethod):
    """CE + cosine_weight * (1 - cos(target, gradient)) + magnitude_weight * |gradient| (IR, section 1).

    The gradient is that of the true class's logit. `per_example` takes the root mean square of the gradients' norms
    over the minibatch, so that the weight does not depend on the batch size; `minibatch` is the paper's code, one
    Frobenius norm over the whole minibatch, sqrt(N) times as large. Without a direction term (`cosine_weight` 0) there
    are no targets: small gradients alone. Weights, threshold, samples and sigma are by default those of the paper's
    code on MNIST: 3, and 0.15 on `minibatch` of 50, which is 1.06 on `per_example`.
    """

    target: Literal["gradient", "smoothgrad"] = Field(default="smoothgrad", description="kind of target map")
    source_model: str = Field(default="standard", description="model whose maps are the targets")
    cosine_weight: float = Field(default=3.0, ge=0, description="weight of the direction term")
    magnitude_weight: float = Field(default=1.06, ge=0, description="weight of the magnitude term")
    magnitude_norm: Literal["per_example", "minibatch"] = Field(default="per_example", description="see above")
    threshold: float = Field(default=1.0, ge=0, description="keep |t - mean| > threshold * std; 0: keep all")
    permuted_share: float = Field(default=0.0, ge=0, le=1, description="share of each map's values that is shuffled")
    samples: int = Field(default=50, gt=0, le=100_000, description="SmoothGrad: noisy images besides the clean one")
    sigma: float = Field(
        default=0.15, gt=0, le=1, description="SmoothGrad: standard deviation of the noise, pixels in [0, 1]"
    )

    @model_validator(mode="after")
    def _regularises(self) -> InterpretationRegularization:
        if self.cosine_weight == 0 and self.magnitude_weight == 0:
            raise ValueError("both weights are 0; use the recipe standard for plain cross-entropy")
        if self.permuted_share > 0 and self.cosine_weight == 0:
            raise ValueError("permuted_share shuffles the target maps, which cosine_weight 0 leaves unused")
        return self

    @property
    def source(self) -> str | None:
        return self.source_model if self.cosine_weight > 0 else None

    def target_maps(self, wanted: Wanted) -> Tensor:
        """Maps of the source, permuted (IR, section 2.2, step 1)."""
        key = f"{self.target} "
        maps_of: Callable[[nn.Module, Tensor, Tensor], Tensor] = gradient_maps
        if self.target == "smoothgrad":
            key += f"{self.samples} {self.sigma} {wanted.seed}"
            generator = torch.Generator().manual_seed(wanted.seed)
            maps_of = partial(smoothgrad_maps, samples=self.samples, sigma=self.sigma, generator=generator)
        raw = wanted.maps(maps_of, key)
        return permute_share(raw, self.permuted_share, torch.Generator().manual_seed(wanted.seed))

    def compared_maps(self, maps: Tensor) -> Tensor:
        """Thresholded, and after any crop: padding would lower a map's standard deviation (IR, section 2.2, step 3)."""
        return threshold_maps(maps, self.threshold)

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        inputs, logits, penalised = self.logits_twice(model, batch)
        gradient = true_logit_gradient(penalised, inputs, batch.labels, differentiable=True)
        terms = {"cross_entropy": F.cross_entropy(logits, batch.labels)}
        if self.cosine_weight > 0:
            if batch.target_maps is None:
                raise ValueError("interpretation regularisation needs target maps")
            similarity = cosine(self.compared_maps(batch.target_maps), gradient).mean()
            terms["cosine"] = self.cosine_weight * (1.0 - similarity)
        if self.magnitude_weight > 0:
            squares = gradient.flatten(1).square().sum(1)
            total = squares.mean() if self.magnitude_norm == "per_example" else squares.sum()
            terms["magnitude"] = self.magnitude_weight * torch.sqrt(total + _SMALLEST_NORM**2)
        return terms


def permute_share(maps: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shuffle a `share` of the values inside each map among themselves (IR, section 2.2, step 1)."""
    flat = maps.flatten(1).clone()
    count = int(share * flat.shape[1])
    if count < 2:
        return maps
    for begin in range(0, len(flat), 4096):
        rows = flat[begin : begin + 4096]
        order = torch.rand(rows.shape, generator=generator).argsort(1)[:, :count]
        shuffled = order.gather(1, torch.rand(order.shape, generator=generator).argsort(1))
        flat[begin : begin + 4096] = rows.scatter(1, order, rows.gather(1, shuffled))
    return flat.view_as(maps)


def threshold_maps(maps: Tensor, threshold: float) -> Tensor:
    """Zero the values within `threshold` standard deviations of each map's mean (IR, section 2.2, step 3)."""
    if threshold == 0:
        return maps
    flat = maps.flatten(1)
    spread = threshold * flat.std(dim=1, keepdim=True)
    kept = (flat - flat.mean(dim=1, keepdim=True)).abs() > spread
    return (flat * kept).view_as(maps)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity per example, 0 where either is all zero; (N, ...) -> (N,).

    Its derivative by `second` is at most 1 / |second|, and never above 1e6. That by `first`, a target elsewhere, which
    LGA differentiates with `detach_reference` off, is at most 1 / |first|, and has no other bound than 1e12 |second|.
    """
    first, second = first.flatten(1), second.flatten(1)
    product = torch.linalg.vector_norm(first, dim=1) * torch.sqrt(second.square().sum(1) + _SMALLEST_NORM**2)
    similarity: Tensor = (first * second).sum(1) / (product + _SMALLEST_NORM**2)
    return similarity
