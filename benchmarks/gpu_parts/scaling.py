"""(d) What a run costs by images, batch and precision, the whole of `bench run` included."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

import bench
from bench.catalog.locations import shipped
from benchmarks.gpu_parts.ledger import Ledger, Row, Sizes, clock
from benchmarks.gpu_parts.rivals import trained_or_new, utilisation


def scaling(ledger: Ledger, sizes: Sizes, data_dir: Path, models: Path) -> None:
    """The aims first: all images at AutoAttack's strength in L-inf, and the whole curve; then what they depend on."""
    net, trained = trained_or_new("resnet18", sizes, models)
    linf = linf_alone(models.parent / "autoattack_fast_linf.toml")

    def run(suite: str | Path, images: int, **options: Any) -> Row:
        began = clock(sizes.device)
        with utilisation(sizes.device) as used:
            result = bench.evaluate(
                net, suite, dataset="cifar10", examples=images, device=sizes.device, data_dir=data_dir,
                model_id="resnet18", **options,
            )  # fmt: skip
        seconds = clock(sizes.device) - began
        robust = result.frame[result.frame["metric"].isin(["robust_accuracy", "union_accuracy"])]["value"]
        return {
            "trained": trained, "images": images, "s": seconds, "images/s": images / seconds,
            "gradients/s": result.counters["gradient_evaluations"] / seconds, "lowest robust": float(robust.min()), **used,
        }  # fmt: skip

    few, some, most = sizes.fewest_images, sizes.some_images, sizes.most_images
    suites: dict[str, str | Path] = {"L-inf": linf, sizes.curve: sizes.curve}
    known = {name: ledger.measure(f"{name}, {few} images", lambda name=name: run(suites[name], few)) for name in suites}

    def seconds(name: str, images: int) -> float:
        """About: fewer images fill no batch, so that they took longer each."""
        row = known[name]
        return 5.0 if row is None else 0.5 * images / float(row["images/s"])

    less = ["bfloat16", *(["tf32"] if sizes.device.type == "cuda" else [])]
    wanted: list[tuple[str, int, dict[str, Any]]] = [
        ("L-inf", most, {}), ("L-inf", some, {}), (sizes.curve, some, {}),
        *(("L-inf", some, {"batch_size": size}) for size in sizes.batches),
        *(("L-inf", some, {"precision": one}) for one in less), (sizes.curve, most, {}),
    ]  # fmt: skip
    for name, images, options in wanted:
        label = ", ".join([name, f"{images} images", *(f"{key} {value}" for key, value in options.items())])
        row = ledger.measure(
            label, lambda name=name, images=images, options=options: run(suites[name], images, **options),
            needs=seconds(name, images),
        )  # fmt: skip
        before = known[name]
        if row is not None and not options and (before is None or images > before["images"]):
            known[name] = row


def linf_alone(path: Path) -> Path:
    """The suite autoattack_fast at CIFAR-10's radius in L-inf."""
    suite = tomllib.loads((shipped("suites") / "autoattack_fast.toml").read_text())
    suite |= {"name": "autoattack_fast_linf", "version": 1}
    suite["parameters"]["datasets"] = {"cifar10": {"reference": {"linf": "8/255"}}}
    path.write_text(tomli_w.dumps(suite))
    return path
