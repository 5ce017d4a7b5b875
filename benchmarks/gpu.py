"""A GPU against the CPU beside it: do they agree, and how fast is it? Prints one Markdown table for each question.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --quick     # tries the script itself, where there is no GPU

Agreement: verdicts (rows of a run's records) that differ, and the smallest cosine between maps of the same image. Speed:
gradients a second of the whole run, probe and verification included, in each precision of the search, and the memory
that the device held. The net is small, so that these are figures of the harness; `--model` names others.
"""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer

import bench
from bench.attributions.registry import our_methods
from bench.core.devices import device_label, resolve_device
from bench.data import load_split
from benchmarks.numerics import SAME, verdicts

SUITES = ("cross_norm_quick", "autoattack_fast", "autoattack", "minimum_norm")
PRECISIONS = ("float32", "tf32", "bfloat16")


def say(line: str) -> None:
    print(line, flush=True)


def agreement(models: list[str], device: str, examples: int) -> None:
    say(f"\n| model | suite | verdicts that differ | CPU, s | {device}, s |\n|---|---|---|---|---|")
    for model in models:
        for suite in SUITES:
            found, seconds = {}, {}
            for where in ("cpu", device):
                began = time.perf_counter()
                found[where] = verdicts(bench.evaluate(model, suite, examples=examples, device=where).records)
                seconds[where] = time.perf_counter() - began
            other, wanted = found[device].reindex(found["cpu"].index), found["cpu"]
            differ = ~(other.eq(wanted) | ((other / wanted - 1.0).abs() < SAME))
            say(
                f"| {model} | {suite} | {int(differ.sum())} of {len(wanted):,} | {seconds['cpu']:.1f} | "
                f"{seconds[device]:.1f} |"
            )


def maps(models: list[str], device: str, examples: int) -> None:
    data = load_split("fashion_mnist", "test")
    images, labels = data.pixels(slice(0, examples)), data.labels[:examples]
    say(f"\n| smallest cosine of a map, CPU and {device} | {' | '.join(models)} |\n|---|{'---|' * len(models)}")
    for method in our_methods():
        cells = []
        for model in models:
            pair = [
                bench.attribute(bench.load_model(model).to(where), images.to(where), labels.to(where), method=method)
                for where in ("cpu", device)
            ]
            first, second = (one.cpu().double().flatten(1) for one in pair)
            both = (first != 0).any(1) | (second != 0).any(1)  # Grad-CAM's may be zero on either
            cells.append(f"{float(torch.cosine_similarity(first, second)[both].min()):.6f}")
        say(f"| {method} | {' | '.join(cells)} |")


def speed(models: list[str], device: str, examples: int) -> None:
    say("\n| model | images | precision | s | gradients/s | memory, MB |\n|---|---|---|---|---|---|")
    for model in models:
        for count, where, precision in [
            (min(200, examples), "cpu", "float32"),
            *((examples, device, precision) for precision in PRECISIONS if device != "cpu" or precision != "tf32"),
        ]:
            if where != "cpu":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            result = bench.evaluate(model, "cross_norm", examples=count, device=where, precision=precision)
            seconds = time.perf_counter() - began
            memory = "-" if where == "cpu" else f"{torch.cuda.max_memory_allocated() / 1e6:.0f}"
            rate = result.counters["gradient_evaluations"] / seconds
            say(f"| {model} | {count:,} | {where} {precision} | {seconds:.1f} | {rate:,.0f} | {memory} |")


def main(
    device: str = "cuda",
    model: Annotated[list[str], typer.Option()] = ["standard", "ir_smoothgrad", "at_linf"],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="Few images, to try the script.")] = False,
) -> None:
    names = {where: device_label(resolve_device(where)) for where in ("cpu", device)}
    say(f"{', '.join(names.values())}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    few = model[:1] if quick else model
    maps(few, device, 4 if quick else 64)
    agreement(few, device, 4 if quick else 100)
    speed(few, device, 8 if quick else 10_000)


if __name__ == "__main__":
    typer.run(main)
