"""Where to begin in L1: few pixels that fool at an end of [0, 1], chosen by gradients far from the image.

Near the image of a net trained in L-inf the pixel that does most may have no gradient at all: what moves little is
taken for noise there. The gradient at a random point far off tells it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.losses import answers, targeted_margin, wrong_classes
from bench.attacks.norms import distance, per_example
from bench.core.devices import exact
from bench.core.keyed_random import keyed_uniform

FAR = (0.5, 1.0)
"""How far off uniform noise leads, in turns."""
FAR_POINTS = 6
"""So many points for each start that the suite asks for."""
KEPT = 8
"""So many starts at most, the shortest."""
CLASSES = 3
"""The points aim at the classes with the largest logits at the clean image, in turns."""


@dataclass(frozen=True, slots=True)
class FarGradients:
    """What points far off say of each image's values.

    Attributes:
        classes: (N, T) the wrong classes that the points aim at.
        sums: (N, T, C, H, W) the gradients of the margin towards each, summed over its points.
    """

    classes: Tensor
    sums: Tensor

    def towards(self, aimed: Tensor) -> Tensor:
        """(N, C, H, W) the sums of the class (N,), of all classes where no point aims at it."""
        chosen = (self.classes == aimed[:, None]).to(self.sums.dtype)
        weights = torch.where(chosen.any(1, keepdim=True), chosen, 1.0)
        return torch.einsum("nt,ntchw->nchw", weights, self.sums)

    def take(self, rows: Tensor) -> FarGradients:
        """Those of some images, (M,) of the N."""
        return FarGradients(self.classes[rows], self.sums[rows])


def few_pixels(
    model: nn.Module, images: Tensor, labels: Tensor, uniform: list[Tensor], at_once: int
) -> tuple[list[Tensor], FarGradients]:
    """The shortest in L1 of misclassified points that differ from the images in 1, 2, 4, ... values; (N, C, H, W) each.

    Which values those are, and to which end of [0, 1] they move, says the gradient at a point far off. The second
    entry is the gradients at all of them.
    """
    with torch.no_grad():
        ranked = wrong_classes(model(images), labels, CLASSES)
    columns = torch.arange(len(labels), device=labels.device)
    kept, lengths = images.new_zeros((0, *images.shape)), images.new_zeros((0, len(images)))
    sums = images.new_zeros((ranked.shape[1], *images.shape))
    for begin in range(0, len(uniform), at_once):
        noise = torch.stack(uniform[begin : begin + at_once])
        numbers = torch.arange(begin, begin + len(noise), device=images.device)
        size = torch.tensor(FAR, device=images.device)[numbers % len(FAR)].view(-1, 1, 1, 1, 1)
        aimed = ranked[:, numbers // len(FAR) % ranked.shape[1]].T.flatten()
        clean, truth = images.repeat(len(noise), 1, 1, 1), labels.repeat(len(noise))
        far = (images + size * (2 * noise - 1)).clamp_(0.0, 1.0).flatten(0, 1).requires_grad_(True)
        (gradient,) = torch.autograd.grad(targeted_margin(model(far), truth, aimed).sum(), far)
        with torch.no_grad():
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            for number, found in enumerate(gradient.view(len(noise), *images.shape), start=begin):
                sums[number // len(FAR) % len(sums)] += found
            points, length = _fewest_at_ends(model, clean, truth, gradient)
            kept = torch.cat([kept, points.view(len(noise), *images.shape)])
            lengths = torch.cat([lengths, length.view(len(noise), -1)])
            shortest = lengths.argsort(dim=0, stable=True)[:KEPT]
            kept, lengths = kept[shortest, columns], lengths.gather(0, shortest)
    return list(kept), FarGradients(ranked, sums.transpose(0, 1))


def shortest_few_pixels(
    model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, *, seed: int
) -> tuple[Tensor, Tensor]:
    """The shortest of one start's few pixels (N, C, H, W), as keyed by the ids, and its length in L1 (N,)."""
    uniform = [
        keyed_uniform(seed, "few_pixels", ids, images.shape[1:], extra=torch.full_like(ids, one))
        for one in range(FAR_POINTS)
    ]
    found = few_pixels(model, images, labels, uniform, at_once=1)[0][0]
    return found, distance(exact(found) - exact(images), "l1")


def _fewest_at_ends(model: nn.Module, clean: Tensor, labels: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Points with the values at an end of [0, 1] that gain most, as few of them as fool; their length, or infinity."""
    ends = (gradient > 0).to(clean.dtype)
    gain = (gradient * (ends - clean)).flatten(1)
    rank = gain.argsort(dim=1, descending=True, stable=True).argsort(1).view_as(clean)
    powers = clean[0].numel().bit_length()
    low, high = torch.zeros_like(labels), torch.full_like(labels, powers)
    for _ in range(powers.bit_length()):
        middle = (low + high) // 2
        wrong = answers(model(torch.where(rank < per_example(2**middle, clean), ends, clean))) != labels
        low, high = torch.where(wrong, low, middle + 1), torch.where(wrong, middle, high)
    points = torch.where(rank < per_example(2**high, clean), ends, clean)
    return points, torch.where(high < powers, distance(points - clean, "l1"), torch.inf)
