"""Options that several commands share."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.output.rendering import warn
from bench.core.errors import BenchError
from bench.core.threat import as_number

if TYPE_CHECKING:
    from bench.runs.plan import RunPlan

DEFAULT_LEADERBOARD = Path("leaderboard")
_BARE_POINT = re.compile(r"^([-+]?)\.(?=\d)")

Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Model: name, wildcard, `all`, folder with a card, FILE.py:FACTORY, timm:NAME, torchvision:NAME, "
        "hf-hub:ORG/NAME, robustbench:DATASET/THREAT/NAME, or a TorchScript, export or ONNX file. Repeatable.",
    ),
]
OnlyDataset = Annotated[str | None, typer.Option("--dataset", help="Only this data set.")]
OnlySuite = Annotated[str | None, typer.Option("--suite", help="Only this suite, as NAME or NAME@VERSION; wildcards.")]
ModelDataset = Annotated[str | None, typer.Option("--dataset", help="Data set of the models. [default: fashion_mnist]")]
LeaderboardDir = Annotated[
    Path, typer.Option("--leaderboard", help="Folder of leaderboard.csv and runs/.", envvar="BENCH_LEADERBOARD")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder to look for data sets in first; BENCH_DATA_DIR does the same.")
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch a data set, or weights of a model, that are not here.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch-size",
        help="Images attacked at once: a number, or auto, by device and free memory. Halved where memory runs out; "
        "verdicts do not depend on it.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Of the search for adversarial examples: float32, tf32 or bfloat16. Verification is always in float32.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Search through torch.compile: pays in attacks of minutes on large nets. Verification goes without.",
    ),
]
Registry = Annotated[
    Path | None, typer.Option("--registry", help="Folder of models, looked in first; BENCH_REGISTRY does the same.")
]
SuitePath = Annotated[
    Path | None,
    typer.Option("--suite-path", help="Folder of suites beside the shipped ones; BENCH_SUITES does the same."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document in place of tables (docs/json.md).")]
Programs = Annotated[
    list[Path] | None,
    typer.Option(
        "--program",
        help="A file that a card's section `program`, or an attack or map of a suite, needs; running it is your "
        "decision. Repeatable, each goes by its name to what asks for it.",
    ),
]


FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="End with the first run that fails, and not with a list of all that did.")
]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        help="Exit code 1 where gradient masking is found: masked, or suspicious (which includes it).",
        show_default=False,
    ),
]
EXIT_NEGATIVE, EXIT_FAILED = 1, 2


def masking_to_fail_on(text: str | None) -> tuple[str, ...]:
    """The verdicts on gradient masking that `--fail-on` names; raises BenchError."""
    verdicts = {None: (), "masked": ("masked",), "suspicious": ("suspicious", "masked")}
    if text not in verdicts:
        raise BenchError(f"{text!r} is no verdict to fail on; use masked or suspicious.", option="fail_on")
    return verdicts[text]


def require_masking_probe(plans: Sequence[RunPlan], verdicts: Sequence[str]) -> None:
    """Raise BenchError where a sign of gradient masking is to fail, and no run looks for one."""
    if verdicts and plans and not any(plan.protocol.probes_masking for plan in plans):
        suites = ", ".join(dict.fromkeys(plan.suite.name for plan in plans))
        raise BenchError(
            f"nothing in {suites} looks for gradient masking; add a suite that does, as cross_norm_quick.",
            option="fail_on",
        )


def warn_of_broken_cards(registry: Path | None) -> None:
    """A line for each model that is left out because its card cannot be read."""
    from bench.catalog.models import broken_cards

    warn(f"a model is left out: {error}" for error in broken_cards(registry))


def seed_option(text: str) -> Any:
    """`--seed`, within what rows and manifests can hold."""
    return typer.Option("--seed", min=0, max=(1 << 63) - 1, help=text)


def parse_batch_size(text: str) -> int | None:
    """A number of images; None for `auto`."""
    if text != "auto" and not text.isdecimal():
        raise BenchError(f"{text} is not a number of images; use 1 or more, or auto.", option="batch_size")
    return None if text == "auto" else int(text)


def parse_radius(text: str) -> float:
    """`8/255` or `0.1`; raises BenchError."""
    try:
        return float(as_number(text))
    except ValueError as error:
        raise BenchError(f"{text!r} is not a radius; write it as 8/255 or 0.03.", option="eps") from error


def parse_positions(texts: list[str]) -> list[int]:
    """Positions of images, `0,1,2` and `5` alike; raises BenchError."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    wrong = [part for part in parts if not part.removeprefix("-").isdecimal()]
    if wrong:
        raise BenchError(f"{wrong[0]!r} is no position of an image; write 0, or several as 0,1,2", option="image")
    return [int(part) for part in parts]


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`name=value` pairs, values as TOML has them, 8/255 and .5 numbers, bare words strings; raises BenchError."""
    from bench.core.toml_files import parse_toml

    require_once(assignments)
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        value = _BARE_POINT.sub(r"\g<1>0.", value.strip())
        if not sign or not name.strip() or not value:
            raise BenchError(f"{assignment!r} is not PARAMETER=VALUE.")
        try:
            content = parse_toml(f"value = {value}")
            parsed[name.strip()] = content["value"] if len(content) == 1 else value
        except tomllib.TOMLDecodeError:
            parsed[name.strip()] = as_number(value)
        except ValueError as error:
            raise BenchError(f"--set {name.strip()}: {error}.") from error
    return parsed


def require_once(assignments: list[str]) -> None:
    """Raise BenchError where two of `name=value` have one name: one of the values would be lost."""
    names = [assignment.partition("=")[0].strip() for assignment in assignments]
    for name in names:
        if names.count(name) > 1:
            raise BenchError(f"the parameter {name!r} is given twice; give it once.")


def goes_on(context: typer.Context) -> bool:
    """Whether a subcommand follows; raises BenchError if options stand before it, which it would not see."""
    name = context.invoked_subcommand
    if name is None:
        return False
    sources = {one.opts[0]: context.get_parameter_source(one.name or "") for one in context.command.params}
    given = [flag for flag, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise BenchError(f"{', '.join(given)} must stand after `{name}`: `{context.command_path} {name} ...`.")
    return True
