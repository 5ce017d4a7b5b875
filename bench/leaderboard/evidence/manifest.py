"""The manifest of a run: its one record, written and read as the same class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
)

from bench.catalog.cards import ModelCard
from bench.catalog.suites import SuiteFile
from bench.core.bounds import Precision
from bench.core.errors import BenchError
from bench.core.files import json_lines, leads_out, read_regular, sha256_bytes, sha256_file
from bench.core.toml_files import refuse_odd_values
from bench.leaderboard.evidence import columns
from bench.leaderboard.evidence.answers import FixedAnswers
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric
from bench.leaderboard.migration import migrated_manifest

SCHEMA_VERSION: Literal[4] = 4
_WITHOUT_DEFAULTS = PlainSerializer(lambda part: part.model_dump(exclude_defaults=True))


class _Part(BaseModel):
    """Nothing is converted: what is checked here is what everybody reads afterwards."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, validate_assignment=True)


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something besides model, suite and data that a run's results depend on.

    Attributes:
        sha256: of another net's weights, say.
        decides: `metrics`, so that rows are comparable only where it agrees, or only what the run notices besides.
    """

    sha256: str
    decides: Literal["metrics", "findings"] = "metrics"


class RunConfig(_Part):
    """What identifies a run: everything that decides its verdicts, and nothing that does not (batch size, device).

    Of this package its version counts and not its commit: what changes numbers gives a suite a new version, and other
    changes must not keep a run from being resumed.

    Attributes:
        model: the full name, e.g. `fashion_mnist/at_linf`.
        program_sha256: of the user's program that makes the net; the weights' digest does not cover what it does.
        precision: of the search; what is judged is judged in float32, but a search may miss what another finds.
        dependencies: what else decides metrics or findings, by name; None where an older manifest does not say.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    model_sha256: str
    program_sha256: str = ""
    suite: str
    suite_version: int
    suite_sha256: str
    dataset: str
    split: str
    data_sha256: str
    training_sha256: str = ""
    examples: int
    seed: int
    precision: Precision = "float32"
    dependencies: dict[str, Dependency] | None = {}
    bench_version: str

    @property
    def key(self) -> str:
        """Digest of it all; an unfinished run of the same key can be resumed."""
        return sha256_bytes(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())

    @property
    def dependencies_sha256(self) -> str | None:
        """One digest of the dependencies that decide metrics; empty where there are none."""
        if self.dependencies is None:
            return None
        deciding = {name: found.sha256 for name, found in self.dependencies.items() if found.decides == "metrics"}
        return sha256_bytes(json.dumps(deciding, sort_keys=True).encode()) if deciding else ""


class Request(_Part):
    """What was asked for, where the run has its own figure; None is what suits the suite or the machine.

    Attributes:
        save_adversarial: whether adversarial images were to be kept, where the suite finds any.
        named: the options of `bench run` that name the model again, as they were given, where its full name does not
            do; also the file of a suite's own attack. Paths are as `bench.core.files.shared_path` leaves them.
    """

    examples: int | None = None
    device: str = "auto"
    batch_size: int | None = None
    save_adversarial: bool = False
    named: dict[str, str | bool | list[str]] = {}


class ExecutorStats(_Part):
    """Who computed a run: how many workers took part, how many were lost, and what each had.

    Attributes:
        threads: of torch, in each process.
    """

    name: str
    workers: int
    threads: int
    workers_lost: int = 0
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None


class Environment(_Part):
    """Where and with what code a run was computed; nothing of it decides a verdict.

    Attributes:
        bench: the package's version, with the commit in a checkout; several where a run went on under another.
        commit: 40 hex digits, with `-dirty` where files differed from it, several as of `bench`; empty outside a
            checkout; None where an older manifest does not say.
        device: as `device_label`; several where machines differ, or a run went on on another one.
        cpu: its name, of the machine that planned the run; empty where it or an older manifest does not say.
        packages: versions of what else is installed that numbers come from.
        batch_size: the smallest that was used.
    """

    bench: str
    torch: str
    python: str
    commit: str | None = None
    device: str = ""
    cpu: str = ""
    packages: dict[str, str] = {}
    batch_size: int = 0
    executor: Annotated[ExecutorStats, _WITHOUT_DEFAULTS]


class UnitStats(_Part):
    """What a work unit adds, besides its records.

    Attributes:
        worker, attempts: of an executor that counts them.
        sha256, adversarial_sha256, seal: of its records, its images and of all this, while the run is not finished.
    """

    start: int
    stop: int
    seconds: float
    cpu_seconds: float = 0.0
    device: str
    batch_size: int = 0
    counters: dict[str, int] = {}
    findings: list[Finding] = []
    worker: int | None = None
    attempts: int = 1
    sha256: str = ""
    adversarial_sha256: str = ""
    seal: str = ""


class Result(_Part):
    """What a finished run says; the digests are of its records, and of its adversarial images if it has kept any."""

    model_config = ConfigDict(allow_inf_nan=True)

    metrics: Annotated[
        list[Annotated[Metric, BeforeValidator(columns.metric_fields)]],
        BeforeValidator(columns.metric_rows),
        PlainSerializer(columns.metric_columns),
    ] = []
    findings: list[Finding] = []
    counters: dict[str, int] = {}
    seconds: float = 0.0
    examples_sha256: str = ""
    adversarial_sha256: str = ""


class Manifest(_Part):
    """All that is known of a run; what its rows, comparisons and reports are made from."""

    schema_version: Literal[4] = SCHEMA_VERSION
    run_id: str
    status: Literal["running", "finished", "interrupted", "failed"] = "running"
    reason: str = ""
    started_at: str = ""
    finished_at: str = ""
    config: RunConfig
    request: Annotated[Request, _WITHOUT_DEFAULTS] = Request()
    card: Annotated[ModelCard, PlainSerializer(lambda card: card.model_dump(mode="json", exclude_none=True))]
    suite: SuiteFile
    data_source: str = ""
    answers: FixedAnswers | None = None
    environment: Environment
    units: dict[str, UnitStats] = {}
    result: Result = Result()

    @field_validator("units", mode="wrap")
    @classmethod
    def _whole_ones(cls, units: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """One that was damaged counts as one that was not computed."""
        units = columns.unit_rows(units)
        try:
            return check(units)
        except ValidationError as error:
            damaged = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
            if not damaged:
                raise
            return check({index: unit for index, unit in units.items() if index not in damaged})

    @field_serializer("units")
    def _in_short(self, units: dict[str, UnitStats]) -> dict[str, Any]:
        found = {index: unit.model_dump(exclude_defaults=True) for index, unit in units.items()}
        return columns.unit_columns(found) if self.status == "finished" and found else found

    @field_serializer("result", mode="wrap")
    def _without_sums(self, result: Result, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Counters only where they are not the sum of the units'."""
        total = columns.summed(unit.counters for unit in self.units.values())
        known = self.status == "finished" and list(total.items()) == list(result.counters.items())
        return {name: value for name, value in dump(result).items() if not (known and name == "counters")}

    def to_json(self) -> bytes:
        """As its file has it."""
        return json_lines(self.model_dump(mode="json")).encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run; raises BenchError when it is missing, damaged, or from a newer version."""
    path = folder / "manifest.json"
    if leads_out(path, folder.parent.parent):
        raise BenchError(f"the manifest {path} is a link out of the leaderboard, which is not followed.")
    try:
        content = json.loads(read_regular(path))
        refuse_odd_values(content)
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"the manifest {path} is missing or damaged; run the evaluation again.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in range(1, SCHEMA_VERSION + 1):
        raise BenchError(f"the manifest {path} is of another version of RIBench; use that version to read it.")
    try:
        content = (migrated_manifest(content) if version == 1 else content) | {"schema_version": SCHEMA_VERSION}
        # as JSON, whose objects pydantic takes for dataclasses where it is strict, but without half a surrogate pair
        manifest = Manifest.model_validate_json(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BenchError(f"the manifest {path} is damaged at {where}; run the evaluation again.") from error
    if "counters" not in manifest.result.model_fields_set:
        manifest.result.counters = columns.summed(unit.counters for unit in manifest.units.values())
    return manifest


def checked_manifest(folder: Path) -> Manifest:
    """The manifest of a finished run whose records are those that it names; raises BenchError."""
    manifest = read_manifest(folder)
    check_records(folder, manifest)
    return manifest


def check_records(folder: Path, manifest: Manifest) -> None:
    """Raises BenchError where a run is not finished, or its records are missing or not what it wrote (by digest)."""
    path = folder / "examples.parquet"
    if manifest.status != "finished":
        raise BenchError(f"the run {folder} is not finished; run the same command again to finish it.")
    if leads_out(path, folder.parent.parent):
        raise BenchError(f"the evidence {path} is a link out of the leaderboard, which is not followed.")
    if not path.is_file():
        raise BenchError(f"the evidence {path} is missing; run the evaluation again.")
    if sha256_file(path) != manifest.result.examples_sha256:
        raise BenchError(
            f"the evidence {path} is not what the run wrote (its digest differs from the manifest's); "
            "restore it from version control or run the evaluation again."
        )


def read_evidence(folder: Path) -> tuple[Manifest, pd.DataFrame]:
    """Manifest and records of a finished run; raises BenchError as `checked_manifest` does."""
    return checked_manifest(folder), read_records(folder / "examples.parquet")
