"""One work unit: from a plan and its loaded model to records and facts, in whatever process it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.catalog.models import load_model
from bench.core.devices import device_label
from bench.core.memory import keep_freed_memory
from bench.orchestration.plan import RunPlan, WorkUnit
from bench.protocols import EvaluationContext

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class FinishedUnit:
    """What a unit leaves for the run's folder: its records, and facts (JSON values) for the manifest."""

    index: int
    records: pd.DataFrame
    facts: dict[str, Any]


def ready_model(plan: RunPlan) -> nn.Module:
    """The plan's model on its device, in the layout that units want; raises BenchError."""
    keep_freed_memory()
    return load_model(plan.entry, plan.device).to(memory_format=torch.channels_last)


def compute_unit(plan: RunPlan, unit: WorkUnit, model: nn.Module, on_progress: Callable[[int], None]) -> FinishedUnit:
    """Evaluate one unit.

    Args:
        model: of `ready_model`.
        on_progress: called with the amount of work newly done, in the measure of `RunPlan.work`.

    Raises:
        BenchError: the model fails on an image.
    """
    began, began_cpu = time.perf_counter(), time.process_time()
    context = EvaluationContext(
        model=model,
        model_name=plan.entry.card.name,
        dataset=plan.dataset,
        start=unit.start,
        stop=unit.stop,
        seed=plan.seed,
        device=plan.device,
        batch_size=plan.batch_size,
        on_progress=on_progress,
        examples=plan.examples,
        training=plan.training,
    )
    result = plan.protocol.evaluate(context)
    facts = {
        "start": unit.start,
        "stop": unit.stop,
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time() - began_cpu, 3),
        "device": device_label(plan.device),
        "counters": result.counters,
        "findings": [finding.as_dict() for finding in result.findings],
    }
    return FinishedUnit(unit.index, result.records, facts)
