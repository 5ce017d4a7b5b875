"""One process with every core's thread against one process a core: same model, suite and images, in turns.

    python benchmarks/processes.py [--model ir_smoothgrad] [--suite cross_norm] [--rounds 2]

Prints seconds by the clock (start of the helpers included) and of the processor, for an idle machine. Exits with 1 if the
digests of the records differ.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
import typer

from bench.executors.local_pool import LocalPool
from bench.leaderboard.evidence.manifest import read_manifest
from bench.runs.execute import execute
from bench.runs.plan import RunRequest, plan_runs


def main(model: str = "ir_smoothgrad", suite: str = "cross_norm", rounds: int = 2) -> None:
    say, digests = sys.stdout.write, set()
    cores = torch.get_num_threads()
    found: dict[str, list[float]] = {"one": [], "several": []}
    with tempfile.TemporaryDirectory() as temporary:
        board = Path(temporary)
        (plan,) = plan_runs(RunRequest([model], [suite], board, device="cpu"))
        say(f"{model} under {suite}, {plan.examples} images, {len(plan.units)} units, {os.cpu_count()} CPUs, ")
        say(f"load {os.getloadavg()[0]:.1f}\n\nround  processes  threads  seconds  CPU s\n")
        for number in range(rounds):
            for name, workers in (("one", 1), ("several", None)):
                with LocalPool(workers) as executor:
                    outcome = execute(plan, board, fresh=True, executor=executor)
                manifest = read_manifest(outcome.folder)
                processor = sum(unit.cpu_seconds for unit in manifest.units.values())
                found[name].append(outcome.elapsed)
                digests.add(manifest.result.examples_sha256)
                computed = manifest.environment.executor
                say(f"{number + 1:5}{computed.workers:11}{computed.threads:9}{outcome.elapsed:9.1f}{processor:7.1f}\n")
                sys.stdout.flush()
    ratio = statistics.median(one / several for one, several in zip(found["one"], found["several"], strict=True))
    say(f"side by side is {ratio:.2f} times as fast by the clock as one process with {cores} threads\n")
    say(f"load {os.getloadavg()[0]:.1f}; digests of the records: {', '.join(sorted(one[:12] for one in digests))}\n")
    raise SystemExit(0 if len(digests) == 1 else 1)


if __name__ == "__main__":
    typer.run(main)
