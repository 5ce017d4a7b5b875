"""Attacking images in memory: for a look, where a suite would be too much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from bench.api.arguments import whole
from bench.api.in_memory import judged, take_examples, take_net
from bench.attacks.losses import LOSSES, LossName, answers
from bench.attacks.pgd import pgd
from bench.attacks.verification import pull_inside, verify
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform
from bench.core.names import unknown_name
from bench.core.threat import NORM_LABELS, NORMS, Norm, as_number
from bench.core.torch_state import undisturbed
from bench.nets.logit_scale import at_usual_scale


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, verified by the plain model.

    Attributes:
        images: (N, C, H, W) in [0, 1]; the adversarial example where `broken`, the clean image elsewhere.
        broken: (N,) bool; also where the clean image is misclassified.
        predictions: (N,) what the model says of `images`.
        distances: (N,) float64, how far `images` lie from the clean ones in the attack's norm.
    """

    images: Tensor
    broken: Tensor
    predictions: Tensor
    distances: Tensor

    @property
    def robust_accuracy(self) -> float:
        """The share of images that withstood."""
        return 1.0 - float(self.broken.float().mean())


@undisturbed()
def attack(
    model: nn.Module,
    images: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    *,
    norm: Norm,
    eps: float,
    steps: int = 40,
    losses: Sequence[LossName] = ("cross_entropy", "margin"),
    seed: int = 0,
    batch_size: int = 256,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> AttackResult:
    """Untargeted PGD at one radius, one keyed random start for each loss, worst case per image.

    For a look at images; the suites attack harder, see `evaluate`.

    Args:
        model: images in [0, 1] in, logits out; a copy of it, in eval mode and float32, is attacked on its device.
        images: (N, C, H, W) in [0, 1], a tensor or an array.
        labels: (N,) whole numbers, classes of the net.
        eps: radius of the ball, in pixels of [0, 1].
        mean, std: of pixels in [0, 1], per channel, for a net that does not normalise by itself.

    Raises:
        BenchError: a net, images, labels, a norm, a radius or a number that cannot be.
    """
    if norm not in NORMS:
        raise unknown_name(str(norm), NORMS, "norm")
    seed, steps, batch_size = whole(seed, "seed", 0), whole(steps, "steps"), whole(batch_size, "batch_size")
    if not isinstance(losses, list | tuple) or not losses:
        raise BenchError(f"losses are {losses!r}; name one or more of {', '.join(LOSSES)} in a list.")
    for loss in losses:
        if loss not in LOSSES:
            raise unknown_name(str(loss), LOSSES, "loss")
    net = take_net(model, {"mean": mean, "std": std})
    pixels, classes = take_examples(net, images, labels, batch_size)
    eps = _radius(eps, norm, pixels[0].numel())
    parts = []
    with judged(net, pixels[:batch_size]):
        net = at_usual_scale(net, pixels[:batch_size], batch_size)
        for begin in range(0, len(pixels), batch_size):
            chosen = slice(begin, begin + batch_size)
            ids = torch.arange(begin, begin + len(pixels[chosen]), device=pixels.device)
            part = _attack_batch(
                net, pixels[chosen], classes[chosen], ids, norm=norm, eps=eps, steps=steps, losses=losses, seed=seed
            )
            parts.append(part)
    return AttackResult(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _radius(eps: object, norm: Norm, pixels: int) -> float:
    """The radius; raises BenchError for none, or one that reaches beyond all images."""
    try:
        radius = float(as_number(eps))
    except (TypeError, ValueError) as error:
        raise BenchError(f"eps {eps!r} is not a number; pass one such as 8 / 255.") from error
    if not (radius > 0 and math.isfinite(radius)):
        raise BenchError(f"eps {radius} must be positive.")
    most = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]
    if radius > most:
        raise BenchError(
            f"eps {radius:g} in {NORM_LABELS[norm]} is larger than {most:g}, which reaches every image: pixels are in "
            f"[0, 1], so pass {radius:g} / 255 if that is what is meant."
        )
    return radius


def _attack_batch(
    model: nn.Module, clean: Tensor, labels: Tensor, ids: Tensor, norm: Norm, eps: float, steps: int,
    losses: Sequence[LossName], seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    with torch.no_grad():
        predictions = answers(model(clean))
    found, broken = clean.clone(), predictions != labels
    distances = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    for number, loss in enumerate(losses):
        standing = (~broken).nonzero().squeeze(1)
        if len(standing) == 0:
            break
        part, target = clean[standing], labels[standing]
        start = keyed_uniform(seed, f"api/{norm}/{number}", ids[standing], part.shape[1:])
        tried = pgd(
            model, part, target, norm=norm, eps=eps, steps=steps, step_size=2.5 * eps / steps, loss=loss, start=start
        )
        radius = tried.new_full((len(tried),), eps)
        verified, measured, said = verify(model, tried, part, target, eps=radius, norm=norm)
        won = standing[verified]
        found[won] = pull_inside(tried, part, radius, norm)[verified]
        predictions[won] = said[verified]
        distances[won] = measured[norm][verified]
        broken[won] = True
    return found, broken, predictions, distances
