"""The further model that a suite compares with."""

from __future__ import annotations

from pathlib import Path

from bench.catalog.models import ModelEntry, find_model, resolve_models
from bench.core.errors import BenchError, bench_command


def reference_entry(name: str, dataset: str, registry: Path | None) -> ModelEntry:
    """The suite's reference model of a data set; raises BenchError that says how to get it where there is none."""
    full = name if "/" in name else f"{dataset}/{name}"
    if find_model(full, registry) is None and not (Path(name) / "card.toml").is_file():
        raise BenchError(
            f"there is no model {full}, the suite's reference_model; train it with `"
            + bench_command("train", recipe="RECIPE", id=name, dataset=dataset, output="DIR")
            + "` and set BENCH_REGISTRY=DIR."
        )
    (reference,) = resolve_models([name], dataset, registry=registry)
    return reference
