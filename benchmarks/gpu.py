"""Fifteen minutes on a GPU, used whole: does it agree with the CPU, how fast is it beside the peers, and nets to keep.

    python benchmarks/gpu.py run OUT --data-dir DIR [--earlier FOLDER]
    python benchmarks/gpu.py run OUT --miniature       # tries all of it on a CPU, without data, in a minute or two
    python benchmarks/gpu.py pack FOLDER WHEELS DATA         # what has to travel there, 64 MiB at most
    python benchmarks/gpu.py unpack OUT FOLDER               # trained models and their rows, from what came back

Four parts: agreement with the CPU; CIFAR-10 ResNet-18 trained as standard, by PGD, IR and LGA; AutoAttack by this project,
pyautoattack and torchattacks on a ResNet-18 and a WRN-28-10; seconds by images, batch and precision. Each has its share of
`--seconds`, and what it leaves over goes to the next. OUT gets gpu.json and gpu.md, written after every figure, a file for
each model and the rows' leaderboard; a run that is given an earlier OUT goes on where that one stopped. It reads CIFAR-10
from DIR, in any layout of docs/data.md, and asks no network.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.core.devices import resolve_device
from bench.core.memory import keep_freed_memory
from bench.data import load_split
from benchmarks.gpu_parts.agreement import agreement
from benchmarks.gpu_parts.ledger import Ledger, Sizes
from benchmarks.gpu_parts.rivals import rivals
from benchmarks.gpu_parts.scaling import scaling
from benchmarks.gpu_parts.training import Studio, training
from benchmarks.gpu_parts.travel import as_archive, pack_tree, synthetic, unpack_board, unpack_model

SECONDS = 800.0
"""Of the fifteen minutes; the rest is the machine's start."""
PARTS = ("agreement", "training", "rivals", "scaling")
UNTIL = (0.15, 0.6, 0.78, 1.0)
"""The share of all the time by which each part ends."""
_BFLOAT16 = {"batch_size": 256, "precision": "bfloat16"}
_WRN = {"depth": 28, "widen": 10}
app = typer.Typer(add_completion=False)


def whole(device: torch.device) -> Sizes:
    return Sizes(
        device, nets={"resnet18": ("resnet18", {}), "wrn_28_10": ("wide_resnet", _WRN)},
        recipes={
            "at_linf": (0.45, _BFLOAT16), "standard": (0.15, _BFLOAT16), "ir_smoothgrad": (0.2, {"batch_size": 256}),
            "lga": (0.2, {"batch_size": 256}),
        },
    )  # fmt: skip


def miniature() -> Sizes:
    """The same calls on a small net, few images and one epoch."""
    small: dict[str, Any] = {"epochs": 1, "batch_size": 32}
    return Sizes(
        torch.device("cpu"), nets={name: ("wide_resnet", {"widen": 1}) for name in ("resnet18", "wrn_28_10")},
        recipes={
            "at_linf": (0.3, {**small, "steps": 1}), "standard": (0.3, small),
            "ir_smoothgrad": (0.2, {**small, "samples": 1}), "lga": (0.2, small),
        },
        models=("standard",), suites=("cross_norm_quick",), agreeing=4, maps=2, tests=False, bare_batch=8, most_images=12,
        fewest_images=2, batches=(4,), some_images=8, rated=4, most_epochs=1,
        eps=0.5, curve="cross_norm_quick",
    )  # fmt: skip


@app.command()
def run(
    out: Path,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    earlier: Annotated[Path | None, typer.Option(help="What an earlier run has left.")] = None,
    device: str = "cuda",
    seconds: float = SECONDS,
    part: Annotated[list[str], typer.Option(help="Only these parts.")] = list(PARTS),  # noqa: B006
    small: Annotated[bool, typer.Option("--miniature", help="All of it on a CPU, in little.")] = False,
) -> None:
    """Measure what has not been measured yet."""
    sizes = miniature() if small else whole(resolve_device(device))
    ledger = Ledger(out, seconds, sizes.device)
    ledger.take_over(earlier or out)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        studio = _studio(Path(temporary), data_dir, ledger, small=small)
        for name, until in zip(PARTS, UNTIL, strict=True):
            if name in part:
                with ledger.during(name, until):
                    _part(name, ledger, sizes, studio)
    ledger.write()
    print(f"\n{ledger.markdown()}")


def _part(name: str, ledger: Ledger, sizes: Sizes, studio: Studio) -> None:
    if name == "agreement":
        agreement(ledger, sizes)
    elif name == "training":
        training(ledger, sizes, studio)
    elif name == "rivals":
        rivals(ledger, sizes, studio.test, studio.models)
    else:
        scaling(ledger, sizes, studio.data_dir, studio.models)


def _studio(folder: Path, data_dir: Path | None, ledger: Ledger, *, small: bool) -> Studio:
    """CIFAR-10 in one file, and folders for models and rows, with those of an earlier run."""
    began = time.perf_counter()
    counts = {"train": 192, "test": 24}
    splits: dict[str, Any] = {
        split: synthetic(count, split) if small else load_split("cifar10", split, data_dir=data_dir)  # type: ignore[arg-type]
        for split, count in counts.items()
    }
    as_archive(splits, folder / "cifar10.npz")
    kept = ledger.out / "board.tar.gz"
    if kept.is_file():
        unpack_board(kept, folder)
    print(f"data: {time.perf_counter() - began:.1f} s", flush=True)
    return Studio(folder, splits["train"], splits["test"], models=folder / "models", board=folder / "board")


@app.command()
def pack(folder: Path, further: Annotated[list[Path] | None, typer.Argument()] = None) -> None:
    """Copy the program, and data and wheels of one's own, into a folder."""
    size = pack_tree(folder, further or [])
    print(f"{folder}: {size / 2**20:.1f} MiB")


@app.command()
def unpack(out: Path, folder: Path) -> None:
    """Models into FOLDER/models, rows and evidence into FOLDER/board."""
    for path in sorted(out.glob("*.model")):
        unpack_model(path, folder / "models" / "cifar10" / path.stem)
        print(folder / "models" / "cifar10" / path.stem)
    if (out / "board.tar.gz").is_file():
        unpack_board(out / "board.tar.gz", folder)
        print(folder / "board")


if __name__ == "__main__":
    app()
