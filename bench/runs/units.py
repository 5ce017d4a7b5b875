"""One work unit: from a plan and its loaded model to records, in whatever process it happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pandas as pd
from torch import nn

from bench.core.devices import current_device, device_label
from bench.core.errors import BenchError, StoppedError, in_one_line, others_code
from bench.core.memory import keep_freed_memory
from bench.core.precision import float32_products, uncompiled
from bench.core.torch_state import random_numbers_of
from bench.leaderboard.evidence.adversarial import AdversarialImages
from bench.leaderboard.evidence.answers import same_answers
from bench.leaderboard.evidence.manifest import UnitStats
from bench.leaderboard.findings import Finding
from bench.nets.compiled import compile_net
from bench.nets.state import changes, state_of
from bench.protocols import EvaluationContext
from bench.runs.batch_size import evaluate_within_memory
from bench.runs.fixed_answers import fixed_answers
from bench.runs.pieces import SlowUnit, UnitWatch
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.ready import prepared_net, scaled_net

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FinishedUnit:
    """What a unit leaves for the run's folder: its records, and what else the manifest says of it.

    Attributes:
        smallest: images that a piece of another unit should have at least.
    """

    index: int
    records: pd.DataFrame
    stats: UnitStats
    adversarial: AdversarialImages | None = None
    smallest: int = 1

    @property
    def pace(self) -> float:
        """Seconds an image."""
        return self.stats.seconds / (self.stats.stop - self.stats.start)


def ready_model(plan: RunPlan) -> nn.Module:
    """The plan's model on its device, made ready for many gradients.

    Raises:
        BenchError: it cannot be loaded, or it, or what else the run depends on, is not what was planned with: a file
            has changed since, or this is another machine with other files or code.
    """
    keep_freed_memory()
    plan.require_same_dependencies()
    net = plan.net
    if net is None:
        net = prepared_net(plan.entry, plan.dataset, plan.device)
        if plan.answers is not None and not same_answers(plan.answers, fixed_answers(net, plan.dataset, plan.device)):
            raise BenchError(
                f"model {plan.entry.card.name} answers otherwise than when the run was planned; its code has changed "
                "or is another on this machine, or it remembers what it has seen."
            )
    net = scaled_net(net, plan.dataset, plan.device)
    if plan.precision != uncompiled(plan.precision):  # compiled beside itself
        compile_net(net, plan.precision, plan.dataset.pixels(slice(0, 2)).to(plan.device))
    return net


def compute_unit(
    plan: RunPlan, unit: WorkUnit, model: nn.Module, batch_size: int, *, on_progress: Callable[[int], None],
    stopped: Callable[[], bool] = lambda: False,
) -> FinishedUnit | SlowUnit:  # fmt: skip
    """Evaluate one unit, or give it up where it would take so long that it has to be cut.

    Args:
        model: of `ready_model`.
        batch_size: images that go through the net at once; halved for as long as memory runs out.
        on_progress: called with the amount of work newly done, in the measure of `RunPlan.work`; negative where it has
            to be done again.
        stopped: whether the unit is not wanted any more; asked before each call of the net.

    Raises:
        BenchError: the model fails on an image.
        StoppedError: the unit is not wanted any more.
    """
    began, began_cpu = time.perf_counter(), time.process_time()
    watch = UnitWatch(plan, unit, stopped)

    def reported(amount: int) -> None:
        on_progress(amount)
        watch.reported(amount)

    context = EvaluationContext(
        model=model,
        model_name=plan.entry.card.name,
        dataset=plan.dataset,
        start=unit.start,
        stop=unit.stop,
        seed=plan.seed,
        device=plan.device,
        batch_size=batch_size,
        on_progress=reported,
        examples=plan.examples,
        training=plan.training,
        precision=plan.precision,
        registry=plan.registry,
        save_adversarial=plan.request.save_adversarial,
        identity=f"{plan.config.key} {plan.answers}",
    )
    before = state_of(model)
    own_numbers = random_numbers_of(plan.device, plan.seed, "unit", unit.index)
    try:
        with current_device(plan.device), float32_products(), own_numbers, _own_code(plan), watch.over(model):
            result, fitting = evaluate_within_memory(plan.protocol, context)
    except StoppedError:
        if watch.slow is None:
            raise
        return watch.slow
    smallest = watch.smallest
    result.findings += _stateful(changes(before, state_of(model)))
    stats = UnitStats(
        start=unit.start,
        stop=unit.stop,
        seconds=round(time.perf_counter() - began, 3),
        cpu_seconds=round(time.process_time() - began_cpu, 3),
        device=device_label(plan.device),
        batch_size=fitting,
        counters=result.counters,
        findings=result.findings,
    )
    return FinishedUnit(unit.index, result.records, stats, result.adversarial, smallest=smallest)


def _stateful(changed: list[str]) -> list[Finding]:
    if not changed:
        return []
    names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    evidence = f"calls change what the net keeps: {names}"
    advice = "its answers may depend on what it has seen before; let its forward pass change nothing"
    return [Finding("stateful", "warning", evidence, advice)]


def _own_code(plan: RunPlan) -> AbstractContextManager[None]:
    """One line for an error of a net of the user's own; for any other net it would hide a bug of ours."""

    def line(error: BaseException) -> str:
        logger.info("%s failed", plan.entry.card.name, exc_info=error)
        why = f"model {plan.entry.card.name} failed on perturbed images ({in_one_line(error)})"
        return f"{why}; what was done is kept, `bench -v` shows where it failed."

    return nullcontext() if plan.entry.build is None and plan.entry.card.program is None else others_code(line)
