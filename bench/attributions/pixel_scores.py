"""One score per pixel, from a net's gradients or without any net, and the ranks that ROAR and KAR mask by.

The maps carry the names of bench.attributions.methods but are not computed there, since only `gradient` with the scalar
`logit` would come out the same. ROAR's published maps explain the predicted label, of each noisy or shifted copy anew;
they take the cross-entropy, whose vanishing factor must be left out; and their zero is mid-grey, not black, so that a
black pixel of `input_x_gradient` and `integrated_gradients` has a score. SmoothGrad clips its noisy copies.
Source: Bridging, section 3 (scalar, maps, channel sums); pitfalls 1, 3 and 5 of its code are dealt with here.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_normal, keyed_uniform

Scalar = Literal["cross_entropy", "logit", "margin"]
MapName = Literal["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad"]
FreeMap = Literal["random", "random_blocks", "sobel"]
"""Maps that need no net: they say what a score is worth."""
MAPS: tuple[str, ...] = get_args(MapName)
FREE_MAPS: tuple[str, ...] = get_args(FreeMap)

_BASELINE = 0.5
"""Mid-grey: the zero of the paper's pixels in [-1, 1]."""
_POINTS = 16
_SIGMA = 0.15
_BLOCK = 4


def predicted_gradient(model: nn.Module, images: Tensor, scalar: Scalar) -> tuple[Tensor, Tensor]:
    """Gradient of a scalar of the predicted label, up to a positive factor per image; and what was left out.

    `cross_entropy` has the gradient (1 - p) * (sum over the other labels j of q_j grad z_j - grad z_predicted), with q
    the softmax over the others. The factor 1 - p, which vanishes for confident nets and would leave the order of the
    pixels to rounding, is left out: ranks do not need it.

    Args:
        model: parameters without gradient, eval mode.
        images: (N, C, H, W) in [0, 1].

    Returns:
        gradients (N, C, H, W), and the factors (N,): 1 - p for the cross-entropy, else 1.
    """
    inputs = images.detach().requires_grad_(True)
    logits = model(inputs)
    predicted = logits.argmax(1, keepdim=True)
    with torch.no_grad():
        others = logits.detach().scatter(1, predicted, -torch.inf)
        factors = torch.ones(len(images), device=images.device)
        if scalar == "cross_entropy":
            weights = others.softmax(1).scatter(1, predicted, -1.0)
            factors = torch.exp(others.logsumexp(1) - logits.detach().logsumexp(1))  # 1 - p without cancellation
        elif scalar == "margin":
            weights = torch.zeros_like(logits).scatter(1, others.argmax(1, keepdim=True), -1.0)
            weights = weights.scatter(1, predicted, 1.0)
        else:
            weights = torch.zeros_like(logits).scatter(1, predicted, 1.0)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), inputs)
    return gradient, factors


def pixel_scores(
    model: nn.Module, images: Tensor, example_ids: Tensor, name: str, scalar: Scalar = "cross_entropy"
) -> tuple[Tensor, Tensor]:
    """Scores of all pixels, high where the net looks; (N, H, W), not negative. And the factors left out, (N,).

    Maps that average gradients weigh each by its factor, so that theirs is 1.

    `gradient` is sum_c |g_c|, `input_x_gradient` sum_c |(x_c - 0.5) g_c|, `integrated_gradients` the same with g the
    mean over 16 points between mid-grey and the image, `smoothgrad` sum_c |mean of g_c over 16 noisy images|, noise
    keyed by example. All at the label that the net predicts at each point.

    Raises:
        BenchError: no such map.
    """
    if name not in MAPS:
        raise BenchError(f"unknown attribution {name!r} for ROAR and KAR; use {', '.join(MAPS)}.")
    if gradients_a_map(name) == 1:
        gradient, factors = predicted_gradient(model, images, scalar)
    else:
        gradient, factors = torch.zeros_like(images), torch.ones(len(images), device=images.device)
        for point in range(_POINTS):
            if name == "smoothgrad":
                keys = torch.full_like(example_ids, point)
                noise = keyed_normal(0, "pixel_scores", example_ids, images.shape[1:], extra=keys).to(images.device)
                moved = (images + _SIGMA * noise).clamp_(0.0, 1.0)
            else:
                moved = _BASELINE + (point + 0.5) / _POINTS * (images - _BASELINE)
            slope, factor = predicted_gradient(model, moved, scalar)
            gradient += slope * factor.clamp_min(1e-30).view(-1, 1, 1, 1)
        gradient /= _POINTS
    if name in ("input_x_gradient", "integrated_gradients"):
        gradient = gradient * (images - _BASELINE)
    return gradient.abs().sum(1), factors


def gradients_a_map(name: str) -> int:
    """How many gradients of the net a map takes."""
    return 1 if name in ("gradient", "input_x_gradient") else _POINTS


def free_scores(images: Tensor, example_ids: Tensor, name: str) -> Tensor:
    """Scores that no net made: random pixels, random 4 x 4 blocks, or the image's edges (Sobel); (N, H, W)."""
    height, width = images.shape[2:]
    if name == "random":
        return keyed_uniform(0, "roar/random", example_ids, (height, width))
    if name == "random_blocks":
        shape = (1, -(-height // _BLOCK), -(-width // _BLOCK))
        blocks = keyed_uniform(0, "roar/blocks", example_ids, shape)
        return F.interpolate(blocks, scale_factor=float(_BLOCK))[:, 0, :height, :width]
    if name != "sobel":
        raise BenchError(f"unknown control {name!r} for ROAR and KAR; use {', '.join(FREE_MAPS)}.")
    kernel = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]])
    kernels = torch.stack([kernel, kernel.t()])[:, None].to(images)
    padded = F.pad(images.mean(1, keepdim=True), [1] * 4, mode="replicate")
    edges: Tensor = torch.linalg.vector_norm(F.conv2d(padded, kernels), dim=1)
    return edges


def blurred(scores: Tensor, sigma: float) -> Tensor:
    """Scores under a Gaussian of standard deviation `sigma` pixels, edges reflected; (N, H, W)."""
    radius = min(max(1, round(3 * sigma)), min(scores.shape[1:]) - 1)  # what can be reflected
    offsets = torch.arange(-radius, radius + 1, dtype=scores.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).to(scores)
    padded = F.pad(scores[:, None], [radius] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]


def pixel_ranks(scores: Tensor, example_ids: Tensor) -> Tensor:
    """Rank of every pixel of its image, 0 for the highest score; ties in a random order keyed by the example.

    In the order of their places a map without any information would take whole rows; in ROAD it did better than a
    random one.

    Args:
        scores: (N, H, W).

    Returns:
        (N, H, W) integers, a permutation of 0..H*W-1 in each image, so that a share removes an exact count.
    """
    flat = scores.detach().float().flatten(1)
    shuffle = keyed_uniform(0, "roar/ties", example_ids, (flat.shape[1],)).to(flat.device).argsort(1)
    order = shuffle.gather(1, flat.gather(1, shuffle).argsort(dim=1, descending=True, stable=True))
    places = torch.arange(flat.shape[1], device=flat.device, dtype=rank_type(flat.shape[1])).expand_as(flat)
    return torch.empty_like(flat, dtype=places.dtype).scatter_(1, order, places).view(scores.shape)


def rank_type(pixels: int) -> torch.dtype:
    """The smallest type that holds the ranks of so many pixels."""
    return torch.int16 if pixels <= 1 << 15 else torch.int32


def constant_maps(scores: Tensor) -> Tensor:
    """Which images have one and the same score at every pixel, so that their ranks are chance; (N,) bool."""
    flat = scores.flatten(1)
    return flat.amax(1) <= flat.amin(1)
