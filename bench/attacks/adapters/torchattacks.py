"""The one place that knows torchattacks: its attacks by class name, verified like our own.

torchattacks is imported when an attack of it runs and not before (its wheel carries a second top-level package and
pins an old requests).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.losses import answers
from bench.attacks.norms import distance
from bench.attacks.verification import AttackResults, verify
from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key
from bench.core.memory import is_out_of_memory
from bench.core.names import unknown_name
from bench.core.threat import Norm

CHUNK = 250
"""Examples attacked in one call: fixed, since torchattacks draws its noise for the batch as a whole."""

_SLACK = 1e-4
"""How far, over the radius, an attack may overstep the ball by its own rounding."""

REFUSED = {
    "AutoAttack": "it runs its parts with 10 steps in place of 100; use pyautoattack",
    "FAB": "its L1 crashes and its comparisons are faulty",
    "AFAB": "its L1 crashes and its comparisons are faulty",
    "MultiAttack": "name its attacks one by one instead, the worst case is taken anyway",
    "LGV": "it trains a surrogate model",
}


@dataclass(frozen=True, slots=True)
class TorchattacksSettings:
    """One attack of torchattacks.

    Attributes:
        class_name: e.g. `PGD`, `PGDL2`, `CW`.
        norm: the norm in which its perturbations are bounded.
        parameters: keyword arguments of its constructor.
        relative_parameters: keyword arguments given as multiples of eps, e.g. the step size `alpha`.
        seed: keys its noise, together with the example ids of each chunk.
    """

    name: str
    class_name: str
    norm: Norm
    parameters: dict[str, Any] = field(default_factory=dict)
    relative_parameters: dict[str, float] = field(default_factory=dict)
    seed: int = 0


def import_torchattacks() -> ModuleType:
    """Import torchattacks, quietly; raises BenchError if it cannot be imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchattacks
        except ImportError as error:
            raise BenchError(
                f"torchattacks cannot be imported ({error}); install it with: pip install torchattacks"
            ) from error
    module: ModuleType = torchattacks
    return module


def check_settings(settings: TorchattacksSettings) -> bool:
    """Check class and parameters against torchattacks; returns whether the attack takes a radius.

    Raises:
        BenchError: unknown or refused class, or parameters that it does not take.
    """
    if settings.class_name in REFUSED:
        raise BenchError(f"torchattacks' {settings.class_name} is not accepted: {REFUSED[settings.class_name]}.")
    module = import_torchattacks()
    known = {name for name, value in vars(module).items() if inspect.isclass(value)} - set(REFUSED)
    if settings.class_name not in known:
        raise unknown_name(settings.class_name, known, "torchattacks attack")
    signature = inspect.signature(getattr(module, settings.class_name).__init__).parameters
    accepted = set(signature) - {"self", "model"}
    for name in (*settings.parameters, *settings.relative_parameters):
        if name not in accepted or name == "eps":
            raise unknown_name(name, accepted - {"eps"}, f"parameter of torchattacks' {settings.class_name}")
    for name, value in settings.parameters.items():
        default = signature[name].default
        number = isinstance(default, int | float) and not isinstance(default, bool)
        fitting = (float, int) if isinstance(default, float) else type(default)
        if isinstance(default, bool | int | float | str) and (
            not isinstance(value, fitting) or (number and isinstance(value, bool))
        ):
            raise BenchError(
                f"torchattacks' {settings.class_name} takes no {value!r} as {name}; give one like its {default!r}."
            )
    if settings.relative_parameters and "eps" not in accepted:
        raise BenchError(f"torchattacks' {settings.class_name} has no radius, so it takes no relative_parameters.")
    return "eps" in accepted


def run_torchattacks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    radii: Sequence[float],
    settings: TorchattacksSettings,
    results: AttackResults,
    *,
    batch_size: int = CHUNK,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Attack all images at every radius; what verifies goes into the results.

    Each chunk of CHUNK examples is attacked whole, with noise keyed by (seed, attack, radius, first example id), so
    that verdicts do not depend on `batch_size`, which bounds the memory alone. An attack without a radius runs once.
    """
    takes_eps = check_settings(settings)
    model = PreparedModel(model, 0, batch_size).eval()
    attack_class = getattr(import_torchattacks(), settings.class_name)
    for begin in range(0, len(images), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        for eps in radii if takes_eps else (max(radii),):
            broken = results.broken(settings.norm, eps)[chunk]
            if not bool(broken.all()):
                attack = attack_class(model, **_arguments(settings, eps if takes_eps else None))
                key = stream_key(settings.seed, settings.name, eps, int(example_ids[begin]))
                adversarial = _call(attack, images[chunk], labels[chunk], key, settings)
                _judge(model, adversarial, images[chunk], labels[chunk], eps, settings.norm, results, begin)
        on_progress(len(labels[chunk]))


def _arguments(settings: TorchattacksSettings, eps: float | None) -> dict[str, Any]:
    if eps is None:
        return dict(settings.parameters)
    relative = {name: factor * eps for name, factor in settings.relative_parameters.items()}
    return {"eps": eps, **settings.parameters, **relative}


def _call(attack: Any, images: Tensor, labels: Tensor, key: int, settings: TorchattacksSettings) -> Tensor:
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key & ((1 << 63) - 1))
        try:
            adversarial: Tensor = attack(images.contiguous(), labels)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:160]
            raise BenchError(f"torchattacks' {settings.class_name} failed: {reason}.") from error
    return adversarial.detach().float()


def _judge(
    model: nn.Module,
    adversarial: Tensor,
    clean: Tensor,
    labels: Tensor,
    eps: float,
    norm: Norm,
    results: AttackResults,
    begin: int,
) -> None:
    with torch.no_grad():
        claimed = (answers(model(adversarial)) != labels).nonzero().squeeze(1)
    radius = torch.full((len(claimed),), eps, device=clean.device)
    verified, distances, predictions = verify(
        model, adversarial[claimed], clean[claimed], labels[claimed], radius, norm
    )
    # an attack without a radius claims nothing about images outside of this one
    inside = distance(adversarial[claimed] - clean[claimed], norm) <= eps * (1.0 + _SLACK)
    results.claims += int((inside | verified).sum())
    results.rejected += int((inside & ~verified).sum())
    results.record(
        (claimed[verified] + begin).cpu(),
        norm,
        {key: value[verified] for key, value in distances.items()},
        predictions[verified],
    )
