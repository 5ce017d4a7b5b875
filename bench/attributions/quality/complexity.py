"""How few pixels a map names: Gini coefficient, entropy, effective complexity; and the entropy of its histogram.

All take absolute values, scale changes nothing, and a map that is zero everywhere has none of them: NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attributions.similarity import ascending
from bench.core.devices import exact


def sparseness(maps: Tensor) -> Tensor:
    """Gini coefficient, 0 for a constant map, 1 - 1/P for a single pixel of P; (N, H, W) >= 0 -> (N,).

    sum_k (2 k - P - 1) v_k / (P sum_k v_k), v ascending (Hurley and Rickard 2009; Chalasani et al. 2020).
    """
    values = ascending(_shares(maps))
    count = values.shape[1]
    weights = torch.arange(1 - count, count, 2, device=values.device, dtype=values.dtype)
    return (values * weights).sum(1) / count


def entropy(maps: Tensor) -> Tensor:
    """-sum p ln p of the pixels' shares p, in nats: ln P for a constant map, 0 for a single pixel (Bhatt et al. 2020).

    (N, H, W) >= 0 -> (N,).
    """
    found: Tensor = torch.special.entr(_shares(maps)).sum(1)
    return found


def effective_complexity(maps: Tensor, above: float) -> Tensor:
    """The share of the pixels with more than `above` of the largest value; (N, H, W) >= 0 -> (N,).

    As Quantus counts it, over the number of pixels. The published definition (Nguyen and Martinez 2020) is another one:
    the fewest features that keep the expected loss within a bound.
    """
    flat = maps.flatten(1)
    top = flat.amax(1, keepdim=True)
    shares = (flat > above * top).to(maps.dtype).mean(1)
    return torch.where(top.squeeze(1) > 0, shares, torch.nan)


def histogram_entropy(attributions: Tensor, bins: int) -> Tensor:
    """Entropy in nats of the histogram of a map's values, over `bins` equal bins from its least to its largest value.

    Signed values, all channels (Hedström et al. 2023, efficient MPRT). A constant map has 0.

    Args:
        attributions: (N, C, H, W).

    Returns:
        (N,).
    """
    values = exact(attributions).flatten(1)
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    places = ((values - low) / (high - low).clamp_min(1e-300) * bins).long().clamp_(0, bins - 1)
    counts = torch.zeros(len(values), bins, dtype=values.dtype, device=values.device)
    counts.scatter_add_(1, places, torch.ones_like(values))
    found: Tensor = torch.special.entr(counts / values.shape[1]).sum(1).float()
    return found.to(attributions.device)


def _shares(maps: Tensor) -> Tensor:
    """(N, P) float64, each map over its sum: NaN for a map that is zero everywhere."""
    flat = exact(maps).flatten(1)
    flat = flat / flat.amax(1, keepdim=True)
    return flat / flat.sum(1, keepdim=True)
