"""AutoAttack's components, ours where we have one, fed with what still stands; the one place that knows pyautoattack.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; L1: Croce and Hein, "Mind the box", ICML 2021. Which components a version has and their settings
are read from the distribution. APGD, FAB-T and Square are bench.attacks.apgd, .fab and .square, the same attacks with
less work; untargeted FAB, and APGD on gradients averaged over passes, are the distribution's. Around them: which
examples they get, the prepared model, losses where there are too few classes for theirs, verification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.attacks.apgd import ApgdLoss, apgd
from bench.attacks.fab import fab_targeted
from bench.attacks.losses import dlr, targeted_dlr
from bench.attacks.pgd import attacked_model
from bench.attacks.square import square
from bench.attacks.verification import Ledger, verify
from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key
from bench.core.memory import is_out_of_memory
from bench.core.threat import Norm

Component = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
Version = Literal["standard", "plus", "rand"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
_NORM_NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_SEEDS = 1 << 31


@dataclass(frozen=True, slots=True)
class AutoAttackSettings:
    """AutoAttack at one radius.

    Attributes:
        version: `standard`, `plus` or `rand`, which decide components and their settings.
        iterations: steps of APGD and FAB; None for the version's 100.
        queries: queries of Square; None for the version's 5000.
        patient: spend all steps and queries on what stands, also where FAB-T and Square would give up; so does `plus`.
        seed: keys the components' noise, together with component, norm, radius and example id.
    """

    norm: Norm
    eps: float
    version: Version = "standard"
    iterations: int | None = None
    queries: int | None = None
    seed: int = 0
    patient: bool = False


def import_pyautoattack() -> ModuleType:
    """Import pyautoattack; raises BenchError if it cannot be imported."""
    try:
        import pyautoattack
    except ImportError as error:
        raise BenchError(
            f"pyautoattack cannot be imported ({error}); install it with: pip install pyautoattack"
        ) from error
    module: ModuleType = pyautoattack
    return module


def components_of(version: Version, norm: Norm) -> tuple[Component, ...]:
    """The components that a version runs, in their order."""
    attack = import_pyautoattack().AutoAttack(nn.Identity(), norm=_NORM_NAMES[norm], eps=1.0, version=version)
    return tuple(attack.attacks_to_run)


class _ContiguousGradient(torch.autograd.Function):
    """The identity, with a contiguous gradient: the attacks use `view`, which channels_last gradients refuse."""

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:  # noqa: ARG004
        return images.view_as(images)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.contiguous()


class PreparedModel(nn.Module):
    """The model as the components call it: empty batches, bounded memory, counted work.

    Attributes:
        batch_size: more images than this go through the net in parts, with gradients recomputed part by part, so
            that a component may hold all its images at once whatever the device's memory.
        forwards: images that went through the net without a gradient being asked for.
        gradients: images that went through the net for a gradient.
    """

    def __init__(self, model: nn.Module, num_classes: int, batch_size: int) -> None:
        super().__init__()
        self.model, self.num_classes, self.batch_size = model, num_classes, batch_size
        self.forwards = self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        if not len(images):
            return images.new_zeros(0, self.num_classes)
        if not (torch.is_grad_enabled() and images.requires_grad):
            self.forwards += len(images)
            return torch.cat([self.model(part) for part in torch.split(images, self.batch_size)])
        self.gradients += len(images)
        images = _ContiguousGradient.apply(images)
        if len(images) <= self.batch_size:
            logits: Tensor = self.model(images)
            return logits
        return torch.cat(
            [checkpoint(self.model, part, use_reentrant=False) for part in torch.split(images, self.batch_size)]
        )


def run_component(
    component: Component,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    settings: AutoAttackSettings,
    ledgers: Sequence[Ledger],
    *,
    num_classes: int,
    batch_size: int,
) -> Tensor:
    """Attack what the first ledger shows standing with one component; what verifies goes into all ledgers.

    Args:
        images: (N, C, H, W) float32 in [0, 1] on the model's device.

    Returns:
        (N,) bool on the CPU: the examples that were attacked.

    Raises:
        BenchError: the component fails on this model.
    """
    given = ~ledgers[0].broken(settings.norm, settings.eps)
    chosen = given.nonzero().squeeze(1)
    if not len(chosen):
        return given
    clean, truth = images[chosen.to(images.device)].contiguous(), labels[chosen.to(labels.device)].to(images.device)
    with attacked_model(model) as frozen:
        prepared = PreparedModel(frozen, num_classes, batch_size)
        adversarial = _call(component, prepared, clean, truth, example_ids[chosen.to(example_ids.device)], settings)
    radius = torch.full((len(chosen),), settings.eps, device=clean.device)
    with torch.no_grad():
        claimed = prepared(adversarial).argmax(1) != truth
        verified, distances, predictions = verify(prepared, adversarial, clean, truth, radius, settings.norm)
    verified &= claimed
    for ledger in ledgers:
        ledger.record(
            chosen[verified.cpu()],
            settings.norm,
            {norm: value[verified] for norm, value in distances.items()},
            predictions[verified],
        )
    ledgers[0].claims += int(claimed.sum())
    ledgers[0].rejected += int((claimed & ~verified).sum())
    ledgers[0].gradient_evaluations += prepared.gradients
    return given


def _call(
    component: Component,
    model: PreparedModel,
    clean: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    settings: AutoAttackSettings,
) -> Tensor:
    try:
        ours = _ours(component, model, clean, labels, example_ids.to(clean.device), settings)
        found = _theirs(component, model, clean, labels, example_ids, settings) if ours is None else ours
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BenchError(
            f"AutoAttack's {component} ({settings.norm}) failed on this model: {reason}; "
            "a model that is not differentiable can be judged by the suite blackbox."
        ) from error
    return found.detach().float().contiguous()


def _ours(
    component: Component,
    model: PreparedModel,
    clean: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    settings: AutoAttackSettings,
) -> Tensor | None:
    """Our own component with the distribution's settings, or None where we have none."""
    norm, eps, batch_size = settings.norm, settings.eps, model.batch_size
    seed = stream_key(settings.seed, component, norm, eps) % _SEEDS
    theirs = _component(component, model, model.num_classes, settings, clean.device)
    patient = settings.patient or settings.version == "plus"
    if component == "square":
        return square(
            model, clean, labels, example_ids, norm=norm, eps=eps, queries=theirs.n_queries, seed=seed,
            batch_size=batch_size, patient=patient,
        )  # fmt: skip
    if component == "fab-t":
        return fab_targeted(
            model, clean, labels, norm=norm, eps=eps, iterations=theirs.n_iter, targets=theirs.n_target_classes,
            batch_size=batch_size, patient=patient,
        )  # fmt: skip
    if component == "fab" or theirs.eot_iter > 1:
        return None
    losses: dict[Component, ApgdLoss] = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}
    attempts = theirs.n_target_classes if component == "apgd-t" else theirs.n_restarts
    return apgd(
        model, clean, labels, example_ids, norm=norm, eps=eps, loss=losses[component], iterations=theirs.n_iter,
        attempts=attempts, seed=seed, batch_size=batch_size,
    )  # fmt: skip


def _theirs(
    component: Component,
    model: PreparedModel,
    clean: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    settings: AutoAttackSettings,
) -> Tensor:
    """The distribution's component on all standing examples together: it draws its noise for the batch as a whole."""
    attack = _component(component, model, model.num_classes, settings, clean.device)
    attack.seed = stream_key(settings.seed, component, settings.norm, settings.eps, int(example_ids[0])) % _SEEDS
    devices = [clean.device] if clean.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        found: Tensor = attack.perturb(clean, labels)
    return found


def _component(
    component: Component, model: nn.Module, num_classes: int, settings: AutoAttackSettings, device: torch.device
) -> Any:
    """The component object as AutoAttack configures it for the version, with as many targets as there are classes."""
    attack = import_pyautoattack().AutoAttack(
        model, norm=_NORM_NAMES[settings.norm], eps=settings.eps, version=settings.version, device=device
    )
    _set_effort(attack, settings)
    _suit_classes(attack, num_classes)
    if component == "apgd-t":
        return attack.apgd_targeted
    if component == "square":
        return attack.square
    if component in ("apgd-ce", "apgd-dlr"):
        attack.apgd.loss = component.removeprefix("apgd-")
        return attack.apgd
    attack.fab.targeted = component == "fab-t"
    if attack.fab.targeted:
        attack.fab.n_restarts = 1
    return attack.fab


def _set_effort(attack: Any, settings: AutoAttackSettings) -> None:
    if settings.iterations is not None:
        attack.fab.n_iter = settings.iterations
        for apgd in (attack.apgd, attack.apgd_targeted):
            _set_iterations(apgd, settings.iterations)
    if settings.queries is not None:
        attack.square.n_queries = settings.queries


def _suit_classes(attack: Any, num_classes: int) -> None:
    """No more targets than there are classes, and losses for two and three classes."""
    for targeted in (attack.apgd_targeted, attack.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
    if num_classes < 3:
        attack.apgd.dlr_loss = dlr
    if num_classes < 4:
        apgd = attack.apgd_targeted
        apgd.dlr_loss_targeted = lambda logits, labels: targeted_dlr(logits, labels, apgd.y_target)


def _set_iterations(apgd: Any, iterations: int) -> None:
    apgd.n_iter = apgd.n_iter_orig = iterations
    apgd.n_iter_2 = max(int(0.22 * iterations), 1)
    apgd.n_iter_min = max(int(0.06 * iterations), 1)
    apgd.size_decr = max(int(0.03 * iterations), 1)
