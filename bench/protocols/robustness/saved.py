"""The adversarial images of a work unit that a run keeps: the smallest found per example and norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.attacks.losses import answers
from bench.attacks.norms import distance
from bench.attacks.running import Examples
from bench.attacks.verification import RELATIVE_TOLERANCE, AttackResults, round_inside
from bench.core.devices import exact, exact_device
from bench.core.precision import float32_products
from bench.core.threat import Norm
from bench.leaderboard.evidence.adversarial import AdversarialImages


def smallest_images(
    examples: Examples, results: AttackResults, radii: Mapping[Norm, Sequence[float]], fewest: Tensor | None
) -> tuple[AdversarialImages, dict[str, int]]:
    """Images in the ball of each norm's largest radius; and how many, and how many still fool in whole 255ths.

    Args:
        results: with their images.
        fewest: (N,) float64, how many values the L0 images change; None where there are none.
    """
    chosen: dict[str, Tensor] = {
        norm: (results.broken(norm, max(own)) & (results.found_in[norm] >= 0)).nonzero().squeeze(1)
        for norm, own in radii.items()
    }
    rounded = sum(_still_fool(examples, chosen[norm], results, norm=norm, radii=sorted(radii[norm])) for norm in radii)
    if fewest is not None:
        chosen["l0"] = (fewest.isfinite() & (fewest > 0)).nonzero().squeeze(1)
        for part in torch.split(chosen["l0"], examples.batch_size):
            own, found = examples.take(part), results.images["l0"][part].to(examples.images.device)
            rounded += int(changes_fool_in_255ths(examples.model, found, own.images, own.labels).sum())
    counters = {"saved_images": sum(map(len, chosen.values())), "saved_images_rounded": rounded}
    images = torch.cat([results.images[norm][rows] for norm, rows in chosen.items()])
    with torch.no_grad(), float32_products():
        parts = torch.split(images, examples.batch_size)
        said = torch.cat([answers(examples.model(part.to(examples.images.device))).cpu() for part in parts])
    rows = torch.cat(list(chosen.values()))
    return AdversarialImages(
        ids=examples.ids.cpu()[rows].numpy(), norms=np.repeat(list(chosen), list(map(len, chosen.values()))),
        images=images.numpy(), predictions=said.numpy(),
    ), counters  # fmt: skip


def _still_fool(examples: Examples, rows: Tensor, results: AttackResults, *, norm: Norm, radii: Sequence[float]) -> int:
    """How many, in whole 255ths, fool the model inside the smallest of the radii that holds them as they are."""
    count = 0
    for part in torch.split(rows, examples.batch_size):
        own = examples.take(part)
        images = results.images[norm][part].to(own.images.device)
        distances = results.distances[norm][part]
        eps = torch.tensor(
            [next(eps for eps in radii if one <= eps * (1.0 + RELATIVE_TOLERANCE)) for one in distances.tolist()],
            dtype=torch.float64, device=exact_device(images.device),
        )  # fmt: skip
        count += int(fooling_in_255ths(examples.model, images, own.images, own.labels, eps=eps, norm=norm).sum())
    return count


def fooling_in_255ths(
    model: torch.nn.Module, images: Tensor, clean: Tensor, labels: Tensor, *, eps: Tensor, norm: Norm
) -> Tensor:
    """(N,) bool: whether the images fool the model in whole 255ths, inside their balls."""
    rounded = round_inside(images, clean, eps, norm)
    inside = distance(exact(rounded) - exact(clean), norm) <= exact(eps) * (1.0 + RELATIVE_TOLERANCE)
    with torch.no_grad(), float32_products():
        return inside.to(labels.device) & (answers(model(rounded)) != labels)


def changes_fool_in_255ths(model: torch.nn.Module, images: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool: whether the images fool the model with what they change in whole 255ths, as it counts in L0."""
    rounded = torch.where(images == clean, clean, images.mul(255.0).round_().div_(255.0))
    with torch.no_grad(), float32_products():
        return answers(model(rounded)) != labels
