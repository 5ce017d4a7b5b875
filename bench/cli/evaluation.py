"""The options of what is evaluated, and where: the same for `run` and `check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import (
    BatchSize,
    DataDir,
    Device,
    Download,
    ModelDataset,
    Program,
    Registry,
    SuitePath,
    parse_batch_size,
    seed_option,
)

if TYPE_CHECKING:
    from bench.cli.own_model import OwnModel
    from bench.executors.base import Executor
    from bench.runs.plan import RunRequest


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and where."""

    dataset: ModelDataset = None
    examples: Annotated[int | None, typer.Option("--examples", help="How many images. [default: the suite's]")] = None
    seed: Annotated[int, seed_option("Keys all random starts, together with the example ids.")] = 0
    device: Device = "auto"
    batch_size: BatchSize = "auto"
    data_dir: DataDir = None
    download: Download = False
    registry: Registry = None
    program: Program = None
    suite_path: SuitePath = None

    def request(
        self, models: list[str], suites: list[str], leaderboard: Path, *, own: OwnModel, executor: Executor, **more: Any
    ) -> RunRequest:
        """The same as a request; raises BenchError for a value that is none."""
        from bench.runs.plan import RunRequest

        return RunRequest(
            models=models, suites=suites, leaderboard=leaderboard, dataset=self.dataset, examples=self.examples,
            seed=self.seed, device=executor.planning_device(self.device), batch_size=parse_batch_size(self.batch_size),
            data_dir=self.data_dir, download=self.download, registry=self.registry, program=self.program,
            source=own.source_options(download=self.download, data_dir=self.data_dir), suite_path=self.suite_path,
            **more,
        )  # fmt: skip
