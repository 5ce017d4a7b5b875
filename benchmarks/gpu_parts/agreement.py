"""(a) Does the device say what the CPU beside it says? Verdicts, maps, and tests/attacks/test_gpu.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

import bench
from bench.attributions.registry import our_methods
from bench.data import load_split
from benchmarks.gpu_parts.ledger import Ledger, Row, Sizes
from benchmarks.numerics import SAME, verdicts

ROOT = Path(__file__).parents[2]


def agreement(ledger: Ledger, sizes: Sizes) -> None:
    for suite in sizes.suites:
        for model in sizes.models:
            ledger.measure(
                f"{model}, {suite}", lambda model=model, suite=suite: _verdicts(model, suite, sizes), needs=20
            )
    for model in sizes.models:
        ledger.measure(f"{model}, maps", lambda model=model: _maps(model, sizes), needs=10)
    if sizes.tests:
        ledger.measure("tests/attacks/test_gpu.py", lambda: _tests(ledger.time_left()), needs=30)


def _verdicts(model: str, suite: str, sizes: Sizes) -> Row:
    found, seconds = {}, {}
    for where in ("cpu", str(sizes.device)):
        began = time.perf_counter()
        found[where] = verdicts(bench.evaluate(model, suite, examples=sizes.agreeing, device=where).records)
        seconds[where] = time.perf_counter() - began
    wanted, other = found["cpu"], found[str(sizes.device)].reindex(found["cpu"].index)
    differ = ~(other.eq(wanted) | ((other / wanted - 1.0).abs() < SAME))
    return {
        "of": len(wanted),
        "differ": int(differ.sum()),
        "CPU s": seconds["cpu"],
        "device s": seconds[str(sizes.device)],
    }


def _maps(model: str, sizes: Sizes) -> Row:
    """The smallest cosine between the two maps of an image, over all our methods."""
    data = load_split("fashion_mnist", "test")
    images, labels = data.pixels(slice(0, sizes.maps)), data.labels[: sizes.maps]
    lowest: dict[str, float] = {}
    for method in our_methods():
        first, second = (
            bench.attribute(bench.load_model(model, device=where), images.to(where), labels.to(where), method=method)
            .cpu().double().flatten(1)
            for where in (torch.device("cpu"), sizes.device)
        )  # fmt: skip
        both = (first != 0).any(1) | (second != 0).any(1)  # Grad-CAM's may be zero on either
        lowest[method] = float(torch.cosine_similarity(first, second)[both].min())
    worst = min(lowest, key=lambda method: lowest[method])
    return {"of": len(lowest), "lowest cosine": lowest[worst], "where": worst}


def _tests(seconds: float) -> Row:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/attacks/test_gpu.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was said"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"where": lines[-1].strip("= "), "differ": len(failed)} | (
        {"why": "; ".join(failed)[:300]} if failed else {}
    )
