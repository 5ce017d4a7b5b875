"""Options that belong together, declared once: a command takes the whole group as one parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from bench.cli.options import (
    BatchSize,
    DataDir,
    Device,
    Download,
    ModelDataset,
    Programs,
    Registry,
    SuitePath,
    parse_batch_size,
    seed_option,
)
from bench.cli.output.rendering import messages
from bench.core.errors import BenchError

if TYPE_CHECKING:
    from bench.catalog.sources import SourceOptions
    from bench.executors.base import Executor
    from bench.runs.plan import RunRequest

_own = functools.partial(typer.Option, rich_help_panel="A model of your own (docs/howto/bring-your-own-model.md)")
_place = functools.partial(typer.Option, rich_help_panel="Side by side, or on a cluster (docs/scale.md)")


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: a parameter that is a dataclass becomes an option for each of its fields.

    The command itself gets the dataclass, made of what was given.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    shown: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            own = get_type_hints(groups[name], include_extras=True)
            shown += [
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=own[field.name])
                for field in fields(groups[name])
            ]
        else:
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    call.__signature__ = Signature(shown)  # type: ignore[attr-defined]  # what inspect, and so Typer, asks first
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return call


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
    program: Programs = None
    suite_path: SuitePath = None

    def request(
        self, models: list[str], suites: list[str], leaderboard: Path, *, own: OwnModel, executor: Executor, **more: Any
    ) -> RunRequest:
        """The same as a request; raises BenchError for a value that is none."""
        from bench.runs.plan import RunRequest

        return RunRequest(
            models=models, suites=suites, leaderboard=leaderboard, dataset=self.dataset, examples=self.examples,
            seed=self.seed, device=executor.planning_device(self.device), batch_size=parse_batch_size(self.batch_size),
            data_dir=self.data_dir, download=self.download, registry=self.registry, programs=self.program or (),
            source=own.source_options(download=self.download, data_dir=self.data_dir), suite_path=self.suite_path,
            **more,
        )  # fmt: skip


@dataclass(frozen=True)
class OwnModel:
    """How a model that is named by its source is to be taken."""

    weights: Annotated[
        Path | None,
        _own("--weights", help="State dict of a model named by its source: .safetensors, or torch.save's."),
    ] = None
    trust_weights: Annotated[
        bool,
        _own("--trust-weights", help="Unpickle whole objects in --weights too; that runs any code the file names."),
    ] = False
    mean: Annotated[
        str | None, _own("--mean", help="Of pixels in [0, 1], per channel: 0.5,0.5,0.5; `none` where inside.")
    ] = None
    std: Annotated[str | None, _own("--std", help="Of pixels in [0, 1], per channel: 0.5,0.5,0.5.")] = None
    input_size: Annotated[
        int | None, _own("--input-size", min=1, max=65_536, help="Side that images are resized to for the net.")
    ] = None
    classes: Annotated[
        str | None, _own("--classes", help="The net's outputs for the data set's classes, in order: 0,217,482.")
    ] = None
    label_map: Annotated[
        Path | None,
        _own(
            "--label-map",
            help='JSON file {"class of the data set": output of the net}; for imagenet100 also the name `imagenet`.',
        ),
    ] = None
    num_classes: Annotated[
        int | None, _own("--num-classes", min=1, max=1 << 31, help="How many outputs the net has.")
    ] = None
    model_id: Annotated[str | None, _own("--model-id", help="What the model is called in the leaderboard.")] = None

    def source_options(self, *, download: bool, data_dir: Path | None) -> SourceOptions:
        """The same for the catalog; raises BenchError for a list that is none."""
        from bench.catalog.sources import SourceOptions

        lists = {
            "mean": _parse_numbers(self.mean, "--mean"),
            "std": _parse_numbers(self.std, "--std"),
            "classes": _parse_classes(self.classes),
        }
        return SourceOptions(**vars(self) | lists, download=download, data_dir=data_dir)


def _parse_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.5,0.5` as numbers; None stays, `none` is no numbers at all."""
    if text is None:
        return None
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"{option} {text!r} is not a list of numbers; write them as 0.5,0.5,0.5.") from error


def _parse_classes(text: str | None) -> tuple[int, ...] | None:
    """`3,1,4` as whole numbers from 0."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise BenchError(f"--classes {text!r} is not a list of outputs; write them as 0,217,482.")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True)
class ExecutorOptions:
    """Where runs are computed."""

    executor: Annotated[str, _place("--executor", help="local (this machine) or ray (pip install 'ribench[ray]').")] = (
        "local"
    )
    ray_address: Annotated[
        str | None,
        _place("--ray-address", help="HOST:PORT of a Ray cluster, or auto. [default: RAY_ADDRESS, else this machine]"),
    ] = None
    workers: Annotated[
        int | None, _place("--workers", help="Processes that compute side by side. [default: as many as fit]")
    ] = None
    cpus_per_worker: Annotated[
        int | None, _place("--cpus-per-worker", help="CPUs of a worker, and its threads of torch. [default: 1]")
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        _place("--gpus-per-worker", help="GPUs of a worker; 0.5: two share one. [default: 1 if any]"),
    ] = None

    def choose(self, device: str) -> Executor:
        """The executor, not open yet; raises BenchError for what does not go together, or where Ray is missing."""
        from bench.executors.choose import choose_executor

        options = asdict(self)
        return choose_executor(options.pop("executor"), device, **options)


@contextmanager
def at_work(executor: Executor) -> Iterator[None]:
    """Open while its runs are computed; joining a cluster takes seconds, so it is said."""
    with ExitStack() as stack:
        with messages().status(f"Starting the {executor.stats().name} executor"):
            stack.enter_context(executor)
        yield
