"""Suites fitted to a data set: their radii for it, how many of its images they take, and which it cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.attacks.user_files import UserFile
from bench.catalog.dataset_radii import radii_advice, suite_for
from bench.catalog.suites import Suite, resolve_suites
from bench.core.errors import BenchError
from bench.core.precision import Precision, as_float32
from bench.data import ImageDataset, load_split
from bench.protocols import Protocol, protocol_for
from bench.runs.failures import Failures

if TYPE_CHECKING:
    from bench.runs.plan import RunRequest


@dataclass(frozen=True, slots=True)
class FittedData:
    """A data set of the request, and the suites with their radii for it and how many of its images each takes."""

    test: ImageDataset
    training: ImageDataset | None
    suites: list[tuple[Suite, Protocol, int]]


@contextmanager
def skipped(suite: Suite, where: str, request: RunRequest, failures: Failures) -> Iterator[None]:
    """What refuses the suite in here is an error where the user has named it, and else a reason to leave it out."""
    try:
        yield
    except BenchError as error:
        _leave_out(error, suite, where, request, failures=failures)


def in_precision(suite: Suite, precision: Precision, request: RunRequest, failures: Failures) -> bool:
    """Whether the suite can search in that precision, or is to be left out; raises BenchError where it was named."""
    if precision == "float32" or protocol_for(suite).search_takes_precision:
        return True
    if precision == as_float32(precision):
        error = BenchError(f"suite {suite.name} has no search that torch.compile is for.", option="compile")
    else:
        error = BenchError(f"suite {suite.name} computes in float32 only, not in {precision}.", option="precision")
    _leave_out(error, suite, precision, request, failures=failures)
    return False


def share_programs(programs: Sequence[Path], suites: Sequence[Suite]) -> tuple[dict[str, UserFile], list[Path]]:
    """The files that the suites' attacks and maps ask for, read, by name; and the others, which are the models'.

    A lone file is the suites' where they ask for any.

    Raises:
        BenchError: two files of one name, or one cannot be read.
    """
    by_name = {path.name: path for path in programs}
    if len(by_name) < len(programs):
        raise BenchError("each program goes by its name to what asks for it; two of these have one.", option="program")
    wanted = {name for suite in suites for name in protocol_for(suite).program_files}
    taken = by_name.keys() & wanted or (by_name.keys() if wanted and len(by_name) == 1 else set())
    files = {name: UserFile.read(path) for name, path in by_name.items() if name in taken}
    return files, [path for name, path in by_name.items() if name not in taken]


def load_fitted(
    name: str, suites: Sequence[Suite], request: RunRequest, files: Mapping[str, UserFile], *, failures: Failures
) -> FittedData:
    """A data set and what the suites do with it; raises BenchError where one cannot be carried out on it."""
    test = load_split(name, "test", data_dir=request.data_dir, download=request.download)
    fitted: list[tuple[Suite, Protocol]] = []
    training: ImageDataset | None = None
    for suite in suites:
        with skipped(suite, name, request, failures):
            found = _fit(suite, test, request, files)
            if training is None and found[1].needs_training_split and not request.without_training:
                training = load_split(name, "train", data_dir=request.data_dir, download=request.download)
            fitted.append(found)
    if not fitted:
        raise BenchError(f"{name} can have none of these suites; {next(iter(failures.skipped.values()))}")
    return FittedData(test, training, [(suite, protocol, _count(suite, test, request)) for suite, protocol in fitted])


def _leave_out(error: BenchError, suite: Suite, where: str, request: RunRequest, *, failures: Failures) -> None:
    if is_named(suite, request):
        raise error
    failures.skipped[suite.name, where] = str(error)


def is_named(suite: Suite, request: RunRequest) -> bool:
    """Whether the user has named this suite, and not just `all` or a wildcard."""
    named = [one for one in request.suites if not isinstance(one, str) or not (one == "all" or set(one) & set("*?["))]
    return suite.name in {one.name for one in resolve_suites(named, request.suite_path)}


def _fit(
    suite: Suite, dataset: ImageDataset, request: RunRequest, files: Mapping[str, UserFile]
) -> tuple[Suite, Protocol]:
    """The suite with radii for the data set, and its protocol; raises BenchError."""
    fitted = suite_for(suite, dataset.name, request.data_dir)
    protocol = protocol_for(fitted)
    protocol.choose_program(files)
    try:
        protocol.require_dataset(dataset.name)
    except BenchError as error:
        raise BenchError(f"{error}{radii_advice(fitted, dataset.name)}") from error
    try:
        protocol.require_images(dataset.shape[1:], dataset.name)
    except BenchError as error:
        raise BenchError(f"suite {suite.name}: {error}") from error
    return fitted, protocol


def _count(suite: Suite, dataset: ImageDataset, request: RunRequest) -> int:
    """How many images are evaluated; raises BenchError where there are not as many."""
    examples, most = request.examples, len(dataset)
    if examples is None:
        return min(suite.file.examples, most)
    if not 1 <= examples <= most:
        raise BenchError(f"{examples} images of {dataset.name} cannot be had; use 1 to {most}.", option="examples")
    return examples
