"""Run folders: `runs/<run id>/` is written while a run goes, resumed after a stop, and is the evidence afterwards."""

from __future__ import annotations

import datetime
import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, read_regular, sha256_bytes, sha256_file, write_atomically
from bench.results.records import read_records, write_records

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


class _Gradients(BaseModel):
    stability: dict[str, float] = {}


class _Card(BaseModel):
    weights: dict[str, Any] = {}
    gradients: _Gradients | None = None


class _Manifest(BaseModel):
    """The kinds of what others read of a manifest, so that none has to expect anything else."""

    run_id: str
    status: str
    facts: dict[str, str | int | float] = {}
    units: dict[str, dict[str, Any]] = {}
    suite: dict[str, Any] = {}
    card: _Card = _Card()
    findings: list[dict[str, str]] = []
    counters: dict[str, int] = {}
    versions: dict[str, str] = {}
    seconds: float = 0.0


def run_key(facts: Mapping[str, Any]) -> str:
    """Digest of everything that decides a run's verdicts; an unfinished run of the same key can be resumed."""
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class RunFolder:
    """One run's folder, locked by the process that writes it."""

    path: Path
    manifest: dict[str, Any]
    lock: FileLock = field(repr=False)

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    def parts_done(self) -> set[int]:
        """Indices of the work units whose records are on the disk, whole, and whose facts are in the manifest."""
        parts = {int(path.stem) for path in (self.path / "parts").glob("*.parquet") if path.stem.isdigit()}
        # a process can be killed between a part and its line in the manifest; its counters are lost then
        return parts & {int(index) for index in self.manifest["units"]}

    def save_part(self, index: int, records: pd.DataFrame, facts: Mapping[str, Any]) -> None:
        """Write the records of one work unit and note it in the manifest."""
        with clear_disk_errors(self.path):
            (self.path / "parts").mkdir(exist_ok=True)
        write_records(self._part(index), records)
        self.manifest["units"][str(index)] = dict(facts)
        self._write()

    def records(self, count: int) -> pd.DataFrame:
        """All records, in the order of the units."""
        import pandas as pd

        parts = pd.concat([read_records(self._part(index)) for index in range(count)], ignore_index=True)
        for name in parts.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in parts.dtypes]]:
            parts[name] = parts[name].astype("category")
        return parts

    def write_examples(self, records: pd.DataFrame, facts: Mapping[str, Any]) -> None:
        """Write examples.parquet and what the whole run has to say; the run can still be resumed."""
        examples = self.path / "examples.parquet"
        write_records(examples, records)
        self.manifest.update(facts)
        self.manifest.update(finished_at=now(), examples_sha256=sha256_file(examples))
        self._write()

    def finish(self) -> None:
        """Close the manifest and drop the parts; called after the leaderboard has the run's rows."""
        self.manifest["status"] = "finished"
        self._write()
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def interrupt(self) -> None:
        self.manifest["status"] = "interrupted"
        self._write()

    def release(self) -> None:
        """Let other processes have the run. The lock's file goes only when nobody can want the run any more."""
        if self.manifest["status"] == "finished":
            Path(self.lock.lock_file).unlink(missing_ok=True)
        self.lock.release()

    def _part(self, index: int) -> Path:
        return self.path / "parts" / f"{index:05d}.parquet"

    def _write(self) -> None:
        write_atomically(self.path / "manifest.json", (json.dumps(self.manifest, indent=1) + "\n").encode())


def open_run(leaderboard: Path, label: str, facts: Mapping[str, Any], *, fresh: bool) -> RunFolder:
    """Resume the unfinished run with these facts if there is one and no other process has it, else start a new one.

    Args:
        label: goes into the run id, e.g. `at_linf-cross_norm`.
        facts: JSON values that decide the verdicts.
        fresh: never resume.

    Raises:
        BenchError: the folder cannot be written.
    """
    key = run_key(facts)
    if not fresh:
        for folder in sorted((leaderboard / "runs").glob(f"*-{key[:8]}*"), reverse=True):
            resumed = _resume(folder, key)
            if resumed is not None:
                return resumed
    started = datetime.datetime.now(datetime.UTC)
    run_id = f"{started:%Y%m%dT%H%M%S}-{label}-{key[:8]}-{secrets.token_hex(2)}"
    path = leaderboard / "runs" / run_id
    with clear_disk_errors(path):
        path.mkdir(parents=True)
        lock = FileLock(path / ".lock")
        lock.acquire(timeout=0)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "status": "running",
        "key": key,
        "started_at": started.isoformat(timespec="seconds"),
        "facts": dict(facts),
        "units": {},
    }
    run = RunFolder(path, manifest, lock)
    run._write()
    return run


def _resume(folder: Path, key: str) -> RunFolder | None:
    try:
        manifest = read_manifest(folder)
    except BenchError:
        return None
    if manifest.get("key") != key or manifest.get("status") == "finished":
        return None
    lock = FileLock(folder / ".lock")
    with clear_disk_errors(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
    # the process that had it may have finished it between our look and our lock
    if read_manifest(folder).get("status") == "finished":
        lock.release()
        return None
    return RunFolder(folder, manifest | {"status": "running"}, lock)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run; raises BenchError when it is missing, damaged, or from a newer version."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(read_regular(path))
    except (OSError, ValueError) as error:
        raise BenchError(f"the manifest {path} is missing or damaged; run the evaluation again.") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise BenchError(f"the manifest {path} is of another version of RIBench; use that version to read it.")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BenchError(f"the manifest {path} is damaged at {where}; run the evaluation again.") from error
    return manifest


def leaderboard_rows(common: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tidy rows of a run: what all its rows share, with each metric."""
    return [{**common, **metric} for metric in metrics]
