"""Do verdicts depend on how they are computed? One table: what is done otherwise, and how many verdicts differ.

    python benchmarks/numerics.py --examples 100 --model standard --model at_linf --suite cross_norm_quick
    python benchmarks/numerics.py --examples 40 --suite minimum_norm

A verdict is a row of a run's records: whether an image is broken at a radius, or, of `minimum_norm`, at what distance.
Everything is compared with one process, one thread and batches of 64. `resume` stops a run after its first work unit
and finishes it; `ray` is left out where Ray is not installed; `bfloat16` is the search's precision.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer

import bench
from bench.executors import local_pool
from bench.protocols import base

BATCH, SHARD, SAME = 64, 10, 0.01
"""Distances within a hundredth are the same: a tenth of a step between the radii of `minimum_norm`."""


@contextmanager
def replaced(holder: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


def run(model: str, suite: str, examples: int, **options: Any) -> pd.DataFrame:
    options = {"batch_size": BATCH, "executor": "local", "workers": 1, **options}
    return bench.evaluate(model, suite, examples=examples, **options).records


def with_threads(model: str, suite: str, examples: int) -> pd.DataFrame:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return run(model, suite, examples)
    finally:
        torch.set_num_threads(before)


def in_shards(model: str, suite: str, examples: int, **options: Any) -> pd.DataFrame:
    with replaced(base, "UNIT_EXAMPLES", SHARD):
        return run(model, suite, examples, **options)


def resumed(model: str, suite: str, examples: int) -> pd.DataFrame:
    compute, done = local_pool.compute_unit, []

    def once(*arguments: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(True)
        return compute(*arguments)

    with tempfile.TemporaryDirectory() as board:
        try:
            with replaced(local_pool, "compute_unit", once):
                in_shards(model, suite, examples, leaderboard=Path(board))
        except KeyboardInterrupt:
            pass
        return in_shards(model, suite, examples, leaderboard=Path(board))


WAYS: dict[str, Callable[[str, str, int], pd.DataFrame]] = {
    "again": run,
    "batches of 1": lambda *what: run(*what, batch_size=1),
    "batches of 7": lambda *what: run(*what, batch_size=7),
    "batches of 256": lambda *what: run(*what, batch_size=256),
    "two threads": with_threads,
    f"shards of {SHARD}": in_shards,
    "resume": resumed,
    "two workers": lambda *what: in_shards(*what, workers=2),
    "ray": lambda *what: in_shards(*what, executor="ray", workers=2),
    "bfloat16": lambda *what: run(*what, precision="bfloat16"),
}


def verdicts(records: pd.DataFrame) -> pd.Series[Any]:
    keys = [key for key in ("example_id", "attack", "norm", "eps", "severity") if key in records]
    values = records.set_index(keys)
    return values["broken" if "broken" in values else "distance"].astype(float)


def main(
    model: Annotated[list[str], typer.Option()] = ["standard", "at_linf"],  # noqa: B006
    suite: Annotated[list[str], typer.Option()] = ["cross_norm_quick", "minimum_norm"],  # noqa: B006
    examples: int = 40,
) -> None:
    torch.set_num_threads(1)
    print(f"| done otherwise | {' | '.join(suite)} |\n|---|{'---|' * len(suite)}")
    expected = {(name, of): verdicts(run(name, of, examples)) for name in model for of in suite}
    for way, compute in WAYS.items():
        if way == "ray" and importlib.util.find_spec("ray") is None:
            continue
        cells = []
        for of in suite:
            if way == "bfloat16" and of in ("autoattack", "blackbox", "corruptions"):
                cells.append("-")
                continue
            differ = total = 0
            for name in model:
                found, wanted = verdicts(compute(name, of, examples)), expected[name, of]
                found = found.reindex(wanted.index)
                same = found.eq(wanted) | ((found / wanted - 1.0).abs() < SAME)  # infinite ones are equal, too
                differ, total = differ + int((~same).sum()), total + len(wanted)
            cells.append(f"{differ} of {total:,}")
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
