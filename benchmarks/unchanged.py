"""Whether a change of the code leaves verdicts and metrics as they were, suite by suite and bit by bit.

    python benchmarks/unchanged.py run BEFORE            judge four models under every suite, into the leaderboard BEFORE:
                                                         from a checkout of the older commit
    python benchmarks/unchanged.py run AFTER             the same from the newer one
    python benchmarks/unchanged.py compare BEFORE AFTER  say what differs, to the last digit, and which image each attack
                                                         broke at each radius

Digits depend on the processor and on torch, so both boards are made on one machine. `run` takes about half an hour on two
cores; it goes on where it was stopped.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.leaderboard.evidence.manifest import read_evidence
from bench.leaderboard.labels import full_label

MODELS = ("standard", "at_linf", "ir_smoothgrad", "lga")
IMAGES = {
    100: "cross_norm cross_norm_quick autoattack_fast union minimum_norm corruptions manifold_distance "
    "attribution_stability_quick",
    50: "autoattack blackbox attribution_attack attribution_attack_quick attribution_agreement "
    "attribution_agreement_quick attribution_stability insertion insertion_quick",
    20: "autoattack_plus autoattack_rand",
    500: "roar_quick kar_quick",
}
TRAINED = ("roar_quick", "kar_quick")
"""These train a net for each share of pixels: one model, and `--data-dir` for the training split."""


def make(board: Path, further: Sequence[str]) -> None:
    """Run every suite on its number of images, with one thread."""
    for count, suites in IMAGES.items():
        for suite in suites.split():
            for model in MODELS[:1] if suite in TRAINED else MODELS:
                command = ["bench", "run", "--model", model, "--suite", suite, "--examples", str(count)]
                if not list((board / "runs").glob(f"*-{model}-{suite}-*")):
                    subprocess.run([*command, "--leaderboard", str(board), *further], check=True)


def content(board: Path) -> dict[str, Any]:
    """What is compared, by model and suite."""
    found = {}
    for folder in sorted((board / "runs").iterdir()):
        manifest, records = read_evidence(folder)
        config = manifest.config
        one: dict[str, Any] = {"images": config.examples, "suite_sha256": config.suite_sha256}
        one["metrics"] = {
            full_label(metric.key): [repr(metric.value), repr(metric.ci_low), repr(metric.ci_high), metric.n_examples]
            for metric in manifest.result.metrics
        }
        if {"broken", "norm", "eps"} <= set(records):
            one["broken"] = {
                " ".join(map(str, key)): np.packbits(group.sort_values("example_id")["broken"]).tobytes().hex()
                for key, group in records.groupby(["attack", "norm", "eps"], observed=True, dropna=False)
            }
        found[f"{config.model} {config.suite}"] = one
    return found


def compare(before: Path, after: Path) -> int:
    """Print a line for each run that both boards have; returns how many are not as they were."""
    kept, different = content(before), 0
    for name, one in content(after).items():
        if name in kept:
            parts = [part for part in one if one[part] != kept[name].get(part)]
            different += bool(parts)
            print(f"{name}: {', '.join(parts) + ' differ' if parts else 'the same'}")
    return different


if __name__ == "__main__":
    verb, board, *further = sys.argv[1:]
    if verb == "run":
        make(Path(board), further)
    else:
        sys.exit(compare(Path(board), Path(*further)))
