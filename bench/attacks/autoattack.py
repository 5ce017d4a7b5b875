"""AutoAttack's components, ours where we have one, fed with what still stands.

Which components a version has and their settings are read from the distribution. APGD, FAB-T and Square are
bench.attacks.apgd, .fab and .square, the same attacks with less work; untargeted FAB, and APGD on gradients averaged
over passes, are the distribution's. Around them: which examples they get, the prepared model, verification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.adapters.pyautoattack import AutoAttackSettings, Component, component_of
from bench.attacks.apgd import ApgdLoss, apgd
from bench.attacks.fab.attack import fab_targeted
from bench.attacks.losses import answers
from bench.attacks.pgd import attacked_model
from bench.attacks.square.attack import square
from bench.attacks.verification import AttackResults, verify
from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key
from bench.core.memory import is_out_of_memory

_SEEDS = 1 << 31


@dataclass(frozen=True, slots=True)
class _Task:
    """What one component gets: the standing examples of a work unit."""

    component: Component
    model: PreparedModel
    clean: Tensor
    labels: Tensor
    example_ids: Tensor
    settings: AutoAttackSettings

    def configured(self) -> Any:
        """The distribution's component."""
        return component_of(self.component, self.model, self.model.num_classes, self.settings, self.clean.device)

    def seed(self, *further: int) -> int:
        """Seed of the component's noise."""
        return stream_key(self.settings.seed, self.component, self.settings.norm, self.settings.eps, *further) % _SEEDS


def run_component(
    component: Component,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    settings: AutoAttackSettings,
    all_results: Sequence[AttackResults],
    *,
    num_classes: int,
    batch_size: int,
) -> Tensor:
    """Attack what the first results show standing with one component; what verifies goes into all of the results.

    Args:
        images: (N, C, H, W) float32 in [0, 1] on the model's device.

    Returns:
        (N,) bool on the CPU: the examples that were attacked.

    Raises:
        BenchError: the component fails on this model.
    """
    given = ~all_results[0].broken(settings.norm, settings.eps)
    chosen = given.nonzero().squeeze(1)
    if not len(chosen):
        return given
    clean, truth = images[chosen.to(images.device)].contiguous(), labels[chosen.to(labels.device)].to(images.device)
    with attacked_model(model) as frozen:
        prepared = PreparedModel(frozen, num_classes, batch_size)
        task = _Task(component, prepared, clean, truth, example_ids[chosen.to(example_ids.device)], settings)
        adversarial = _attack(task)
    radius = torch.full((len(chosen),), settings.eps, device=clean.device)
    with torch.no_grad():
        claimed = answers(prepared(adversarial)) != truth
        verified, distances, predictions = verify(prepared, adversarial, clean, truth, radius, settings.norm)
    verified &= claimed
    for results in all_results:
        results.record(
            chosen[verified.cpu()],
            settings.norm,
            {norm: value[verified] for norm, value in distances.items()},
            predictions[verified],
        )
    all_results[0].claims += int(claimed.sum())
    all_results[0].rejected += int((claimed & ~verified).sum())
    all_results[0].gradient_evaluations += prepared.gradients
    return given


def _attack(task: _Task) -> Tensor:
    """(N, C, H, W) what the component found, adversarial or not."""
    try:
        ours = _ours(task)
        found = _theirs(task) if ours is None else ours
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BenchError(
            f"AutoAttack's {task.component} ({task.settings.norm}) failed on this model: {reason}; "
            "a model that is not differentiable can be judged by the suite blackbox."
        ) from error
    return found.detach().float().contiguous()


def _ours(task: _Task) -> Tensor | None:
    """Our own component with the distribution's settings, or None where we have none."""
    component, settings, theirs = task.component, task.settings, task.configured()
    ball: dict[str, Any] = {"norm": settings.norm, "eps": settings.eps, "batch_size": task.model.batch_size}
    examples = task.model, task.clean, task.labels
    ids = task.example_ids.to(task.clean.device)
    patient = settings.patient or settings.version == "plus"
    if component == "square":
        return square(*examples, ids, **ball, queries=theirs.n_queries, seed=task.seed(), patient=patient)
    if component == "fab-t":
        return fab_targeted(
            *examples, **ball, iterations=theirs.n_iter, targets=theirs.n_target_classes, patient=patient
        )
    if component == "fab" or theirs.eot_iter > 1:
        return None
    losses: dict[Component, ApgdLoss] = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}
    restarts = theirs.n_target_classes if component == "apgd-t" else theirs.n_restarts
    return apgd(
        *examples, ids, **ball, loss=losses[component], iterations=theirs.n_iter, restarts=restarts, seed=task.seed()
    )


def _theirs(task: _Task) -> Tensor:
    """The distribution's component on all standing examples together: it draws its noise for the batch as a whole."""
    attack = task.configured()
    attack.seed = task.seed(int(task.example_ids[0]))
    devices = [task.clean.device] if task.clean.device.type == "cuda" else []
    unanswered: list[Tensor] = []
    watching = task.model.register_forward_hook(
        lambda _, images, logits: unanswered.append(images[0].detach()[~logits.isfinite().all(1)])
    )
    with torch.random.fork_rng(devices=devices):
        found: Tensor = attack.perturb(task.clean, task.labels)
    watching.remove()
    # it takes NaN for class 0, and so goes past such points of images of that class
    for point in torch.cat([found[:0], *unanswered]):
        found[(task.clean - point).flatten(1).norm(dim=1).argmin()] = point
    return found
