"""Two Ray workers against one, one thread each: same model, suite and images, in turns, with the same evidence.

    python benchmarks/ray_scaling.py [--examples 2000] [--rounds 3] [--suite cross_norm_quick] [--workers 2]

Prints seconds by the clock, images a second, and the CPU seconds of the busiest worker, which other programs on the
machine hardly disturb. Workers are started and warm before the clock runs. Exits with 1 if digests differ.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
import typer

from bench.executors.base import Executor
from bench.executors.ray_cluster import RayOptions, import_ray
from bench.executors.ray_executor import RayExecutor
from bench.leaderboard.evidence.manifest import read_manifest
from bench.runs.execute import execute
from bench.runs.plan import RunPlan, RunRequest, plan_runs

GOAL = 1.7


def timed(plan: RunPlan, board: Path, executor: Executor) -> tuple[float, float, str]:
    """Seconds by the clock, CPU seconds of the busiest worker, digest of the records."""
    began = time.perf_counter()
    outcome = execute(plan, board, fresh=True, executor=executor)
    seconds = time.perf_counter() - began
    manifest = read_manifest(outcome.folder)
    busy: dict[int, float] = {}
    for unit in manifest.units.values():
        busy[unit.worker or 0] = busy.get(unit.worker or 0, 0.0) + unit.cpu_seconds
    return seconds, max(busy.values()), manifest.result.examples_sha256


def main(
    model: str = "standard", suite: str = "cross_norm_quick", examples: int = 2000, rounds: int = 3, workers: int = 2
) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    torch.set_num_threads(1)
    say, digests = sys.stdout.write, set()
    found: dict[int, list[tuple[float, float]]] = {1: [], workers: []}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        board = Path(temporary)
        ray = import_ray()
        # declared CPUs only say where workers may be; those of the two executors never work at the same time
        ray.init(
            address="local",
            num_cpus=1 + workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        stack.callback(ray.shutdown)
        executors = {count: stack.enter_context(RayExecutor(RayOptions(workers=count))) for count in found}
        plans = [
            plan_runs(RunRequest([model], [suite], board, examples=count, device="cpu"))[0]
            for count in (250 * workers, examples)
        ]
        for executor in executors.values():
            timed(plans[0], board, executor)
        say(f"{model} under {suite}, {examples} images, {len(plans[1].units)} units, {os.cpu_count()} CPUs, ")
        say(f"load {os.getloadavg()[0]:.1f}\n\nround  workers  seconds  images/s  CPU s, busiest\n")
        for number in range(rounds):
            for count, executor in executors.items():
                seconds, busiest, digest = timed(plans[1], board, executor)
                found[count].append((seconds, busiest))
                digests.add(digest)
                say(f"{number + 1:5}{count:9}{seconds:9.1f}{examples / seconds:10.1f}{busiest:16.1f}\n")
                sys.stdout.flush()
    for name, column in (("by the clock", 0), ("by CPU time of the busiest worker", 1)):
        ratio = statistics.median(
            one[column] / several[column] for one, several in zip(found[1], found[workers], strict=True)
        )
        say(
            f"{workers} workers are {ratio:.2f} times as fast as one {name} (median of {rounds}; goal for two: {GOAL})\n"
        )
    say(f"load {os.getloadavg()[0]:.1f}; digests of the records: {', '.join(sorted(one[:12] for one in digests))}\n")
    raise SystemExit(0 if len(digests) == 1 else 1)


if __name__ == "__main__":
    typer.run(main)
