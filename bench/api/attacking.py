"""Attacking images in memory: for a look, where a suite would be too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from bench.api.arguments import whole
from bench.api.in_memory import judged, take_examples, take_net
from bench.attacks.losses import LOSSES, LossName, answers
from bench.attacks.pgd import pgd
from bench.attacks.registry import NamedAttack, attack_of, named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.user_files import UserFile, named_function
from bench.attacks.verification import AttackResults, pull_inside, verify
from bench.catalog.programs import parse_program
from bench.core.devices import exact_device
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform
from bench.core.keywords import checked_keywords
from bench.core.names import require_known
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


Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images, broken, predictions and distances, as `AttackResult` has them."""


@undisturbed()
def attack(
    model: nn.Module,
    images: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    *,
    norm: Norm,
    eps: float,
    attack: str | Callable[..., Any] | None = None,
    steps: int | None = None,
    losses: Sequence[LossName] | None = None,
    seed: int = 0,
    batch_size: int | str | None = 256,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    classes: Sequence[int] | None = None,
    **parameters: Any,
) -> AttackResult:
    """One attack at one radius; what it finds is verified. By default untargeted PGD, worst case of two losses.

    For a look at images; the suites attack harder, see `evaluate`.

    Args:
        model: images in [0, 1] in, logits out; a copy of it, in eval mode and float32, is attacked on its device.
        images: (N, C, H, W) in [0, 1], a tensor or an array.
        labels: (N,) whole numbers, classes of the net.
        eps: radius of the ball, in pixels of [0, 1].
        attack: an attack's name as suites have it (docs/reference/attacks.md), e.g. `apgd-t`, `torchattacks:CW` or
            `FILE.py:FUNCTION`, or a callable; see bench.attacks.registry for what it takes and returns.
        steps: of the attack, where it has any; 40 by default.
        losses: of PGD, with one keyed random start for each; cross-entropy and margin by default.
        batch_size: images attacked at once; `auto` or None chooses by device and memory.
        mean, std: of pixels in [0, 1], per channel, for a net that does not normalise by itself.
        input_size: side that images are resized to for the net.
        classes: the net's outputs that stand for the classes, in their order.
        parameters: of the attack that is named.

    Raises:
        BenchError: a net, images, labels, a norm, a radius, an attack, a parameter or a number that cannot be.
    """
    require_known([norm], NORMS, "norm")
    named = parameters | {name: one for name, one in (("steps", steps), ("losses", losses)) if one is not None}
    run = _named(attack, named, norm)
    seed = whole(seed, "seed", 0)
    net = take_net(model, {"mean": mean, "std": std, "input_size": input_size, "classes": classes})
    given = take_examples(net, images, labels, batch_size)
    radius = _radius(eps, norm, given.pixels[0].numel())
    parts = []
    with judged(net, given.pixels[: given.batch_size]):
        net = at_usual_scale(net, given.pixels[: given.batch_size], given.batch_size)
        for begin in range(0, len(given.pixels), given.batch_size):
            pixels, truth = (values[begin : begin + given.batch_size] for values in given[:2])
            ids = torch.arange(begin, begin + len(pixels), device=pixels.device)  # positions among all
            part = Examples(net, pixels, truth, ids, num_classes=given.outputs, seed=seed, batch_size=given.batch_size)
            parts.append(_pgd(part, norm, eps=radius, **named) if run is None else _run(run, part, norm, eps=radius))
    return AttackResult(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _named(attack: object, parameters: dict[str, Any], norm: Norm) -> NamedAttack | None:
    """The attack with its parameters; None for PGD as it is by default, whose parameters are looked at too."""
    if attack is None:
        _require_pgd(**parameters)
        return None
    if isinstance(attack, str):
        program = parse_program(attack) if named_function(attack) else None
        run = named_attack(attack, parameters, file=UserFile.read(program.path) if program else None)
    else:
        found = attack_of(attack, str(getattr(attack, "__name__", type(attack).__name__)))
        run = NamedAttack(found, found.name, checked_keywords(f"attack {found.name}", found.parameters, parameters))
    if run.attack.norms and norm not in run.attack.norms:
        names = ", ".join(run.attack.norms)
        raise BenchError(f"attack {run.name} does not work in {NORM_LABELS[norm]}, but in {names}.")
    return run


def _require_pgd(steps: object = 40, losses: object = LOSSES, **others: object) -> None:
    require_known(others, ("steps", "losses"), "parameter of PGD")
    whole(steps, "steps")
    if not isinstance(losses, list | tuple) or not losses:
        raise BenchError(f"losses are {losses!r}; name one or more of {', '.join(LOSSES)} in a list.")
    require_known(losses, LOSSES, "loss")


def _run(run: NamedAttack, part: Examples, norm: Norm, eps: float) -> Found:
    with torch.no_grad():
        clean = answers(part.model(part.images))
    results = AttackResults.start(clean.cpu(), part.labels.cpu(), keep=part.images)
    run_attack(run, part, norm, [eps], results=results)
    broken = results.broken(norm, eps)
    predictions = torch.where(broken, results.predictions[norm], clean.cpu())
    distances = torch.where(broken, results.distances[norm], 0.0)
    device, found = part.images.device, (results.found_in[norm] >= 0) & broken
    images = torch.where(found.to(device)[:, None, None, None], results.images[norm].to(device), part.images)
    return images, broken.to(device), predictions.to(device), distances.to(device)


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


def _pgd(part: Examples, norm: Norm, eps: float, steps: int = 40, losses: Sequence[LossName] = ()) -> Found:
    model, clean, labels = part.model, part.images, part.labels
    with torch.no_grad():
        predictions = answers(model(clean))
    found, broken = clean.clone(), predictions != labels
    distances = torch.zeros(len(clean), dtype=torch.float64, device=exact_device(clean.device))
    for number, loss in enumerate(losses or ("cross_entropy", "margin")):
        standing = (~broken).nonzero().squeeze(1)
        if len(standing) == 0:
            break
        pixels, target = clean[standing], labels[standing]
        start = keyed_uniform(part.seed, f"api/{norm}/{number}", part.ids[standing], pixels.shape[1:])
        tried = pgd(
            model, pixels, target, norm=norm, eps=eps, steps=steps, step_size=2.5 * eps / steps, loss=loss, start=start
        )
        radius = tried.new_full((len(tried),), eps)
        verified, measured, said = verify(model, tried, pixels, target, eps=radius, norm=norm)
        distances[standing.to(verified.device)[verified]] = measured[norm][verified]
        verified, said = verified.to(clean.device), said.to(clean.device)
        won = standing[verified]
        found[won] = pull_inside(tried, pixels, radius, norm)[verified]
        predictions[won] = said[verified]
        broken[won] = True
    return found, broken, predictions, distances
