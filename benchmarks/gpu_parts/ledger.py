"""What was measured, once each: a JSON that is written after every figure, its Markdown table, and the time that is left."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.core.devices import device_label
from bench.core.errors import in_one_line
from bench.core.version import code_version, commit

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done of everything: whole, or in a miniature that a CPU does in a minute.

    Attributes:
        nets: name -> architecture and its parameters.
        recipes: name -> its share of the training's time, and what it departs in.
        most_epochs: however little time an epoch takes.
        eps: the radius at which the rivals attack.
        curve: the suite of the whole curve.
    """

    device: torch.device
    nets: dict[str, tuple[str, dict[str, Any]]]
    recipes: dict[str, tuple[float, dict[str, Any]]]
    models: tuple[str, ...] = ("at_linf", "standard")
    suites: tuple[str, ...] = ("cross_norm_quick", "autoattack_fast", "minimum_norm")
    agreeing: int = 100
    maps: int = 64
    tests: bool = True
    bare_batch: int = 1024
    most_images: int = 10_000
    fewest_images: int = 64
    batches: tuple[int, ...] = (256, 1024, 4096)
    some_images: int = 2000
    rated: int = 1000
    most_epochs: int = 60
    eps: float = 8 / 255
    curve: str = "cross_norm"


@dataclass
class Ledger:
    """The figures of this run and of earlier ones, under `out`.

    Attributes:
        rows: part -> what was measured -> its figures.
        left: what there was no time for.
    """

    out: Path
    seconds: float
    device: torch.device
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = time.perf_counter()
        self.part, self.end = "", self.began + self.seconds
        self.out.mkdir(parents=True, exist_ok=True)

    def take_over(self, earlier: Path) -> None:
        """The figures, models and rows of an earlier run's folder; what failed there is tried again."""
        found = json.loads((earlier / "gpu.json").read_text())["rows"] if (earlier / "gpu.json").is_file() else {}
        self.rows = {
            part: {key: row for key, row in rows.items() if "failed" not in row} for part, rows in found.items()
        }
        for path in earlier.iterdir() if found and earlier != self.out else ():
            if path.is_file() and not (self.out / path.name).exists():
                shutil.copy2(path, self.out)

    def time_left(self) -> float:
        """Seconds of this part."""
        return self.end - time.perf_counter()

    @contextmanager
    def during(self, part: str, until: float) -> Iterator[None]:
        """A part that ends when `until` of all the time has passed; what an earlier one has left over is its own."""
        self.part, self.end = part, self.began + until * self.seconds
        self.rows.setdefault(part, {})
        print(f"\n{part}: {self.time_left():.0f} s", flush=True)
        yield

    def measure(self, key: str, figures: Callable[[], Row], *, needs: float = 5.0) -> Row | None:
        """The figures of that name, measured unless they are there; None where they cannot be had in `needs` seconds."""
        rows = self.rows[self.part]
        if key in rows and "failed" not in rows[key]:
            return rows[key]
        if needs > self.time_left():
            self.left.append(f"{self.part}: {key}")
            return None
        began = time.perf_counter()
        try:
            rows[key] = figures()
        except Exception as error:  # noqa: BLE001  (one figure that fails must not cost the others)
            rows[key] = {"failed": in_one_line(error, 200)}
        took = time.perf_counter() - began
        print(f"  {key}: {rows[key]} ({took:.1f} s)", flush=True)
        self.write()
        return None if "failed" in rows[key] else rows[key]

    def write(self) -> None:
        """gpu.json and gpu.md."""
        whole = {"machine": machine(self.device), "seconds": round(time.perf_counter() - self.began, 1)}
        whole |= {"rows": self.rows, "left": self.left}
        (self.out / "gpu.json").write_text(json.dumps(whole, indent=1))
        (self.out / "gpu.md").write_text(self.markdown())

    def markdown(self) -> str:
        lines = [", ".join(f"{key} {value}" for key, value in machine(self.device).items())]
        for part, rows in self.rows.items():
            columns = list(dict.fromkeys(name for row in rows.values() for name in row))
            lines += ["", f"## {part}", "", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
            lines += [
                f"| {key} | {' | '.join(_shown(row.get(name, '')) for name in columns)} |" for key, row in rows.items()
            ]
        return "\n".join([*lines, "", *(f"- no time for {one}" for one in self.left), ""])


def _shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def machine(device: torch.device) -> dict[str, str]:
    return {
        "device": device_label(device), "torch": str(torch.__version__), "python": platform.python_version(),
        "cores": str(os.cpu_count()), "bench": code_version(), "commit": commit() or "unknown",
    }  # fmt: skip


def clock(device: torch.device) -> float:
    """Seconds: by the clock on a GPU, of the processor on a CPU that others use too."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
