"""Run folders: `runs/<run id>/` is written while a run goes, resumed after a stop, and is the evidence afterwards."""

from __future__ import annotations

import datetime
import logging
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock, Timeout

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, is_old, sha256_file, sweep, write_atomically
from bench.core.names import is_safe_name
from bench.leaderboard.evidence.adversarial import FILE_NAME, AdversarialImages, write_images
from bench.leaderboard.evidence.answers import same_answers
from bench.leaderboard.evidence.manifest import Environment, Manifest, Result, UnitStats, read_manifest
from bench.leaderboard.evidence.records import read_records, write_records
from bench.leaderboard.evidence.seals import is_sealed, seal

logger = logging.getLogger(__name__)

_CODE = re.compile(r"[0-9][0-9A-Za-z.+-]{,59}|[0-9a-f]{40}(-dirty)?")
"""A version of this package, or a commit."""


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class RunFolder:
    """One run's folder, locked by the process that writes it; its id is the folder's name."""

    path: Path
    manifest: Manifest
    lock: FileLock = field(repr=False)

    @property
    def run_id(self) -> str:
        return self.path.name

    def in_order(self) -> list[str]:
        """The indices of the work units that are done, by the examples that they cover, whichever came in first."""
        return sorted(self.manifest.units, key=lambda index: self.manifest.units[index].start)

    def save_part(
        self, index: int, records: pd.DataFrame, stats: UnitStats, adversarial: AdversarialImages | None = None
    ) -> None:
        """Write the records and images of one work unit and note it, sealed, in the manifest."""
        with clear_disk_errors(self.path):
            (self.path / "parts").mkdir(exist_ok=True)
        write_records(self._part(index), records)
        digests = {"sha256": sha256_file(self._part(index))}
        if adversarial is not None:
            write_images(self._images(index), [adversarial], self.manifest.config.data_sha256)
            digests["adversarial_sha256"] = sha256_file(self._images(index))
        unit = stats.model_copy(update=digests)
        self.manifest.units[str(index)] = unit.model_copy(update={"seal": seal(*self._sealed(str(index), unit))})
        self._write()

    def keep_own_units(self, units: Mapping[str, UnitStats], *, saved: bool) -> None:
        """Take over those units of an earlier manifest that this user's own processes have written, as they wrote them.

        Anyone who can write to the folder can put any part and any number into it; what does not match its seal is
        computed again. A process can also be killed between a part and its line in the manifest.

        Args:
            saved: whether a unit counts only with its adversarial images.
        """
        for index, unit in units.items():
            if saved and not unit.adversarial_sha256:
                continue  # it was computed when no images were asked for
            if is_sealed(unit.seal, *self._sealed(index, unit)) and self._is_whole(int(index), unit):
                self.manifest.units[index] = unit
        dropped = len(units) - len(self.manifest.units)
        if dropped:
            logger.warning(
                "%d of the %d finished units of run %s are of another torch or other packages, or not as this user's "
                "processes left them (see docs/scale.md); they are computed again", dropped, len(units), self.run_id,
            )  # fmt: skip

    def _sealed(self, index: str, unit: UnitStats) -> tuple[Any, ...]:
        parts: Any = {"config": True, "answers": True, "environment": {"torch", "packages"}}
        shared = self.manifest.model_dump(mode="json", include=parts)
        return self.run_id, shared, index, unit.model_dump(mode="json", exclude={"seal"})

    def _is_whole(self, index: int, unit: UnitStats) -> bool:
        found = {self._part(index): unit.sha256, self._images(index): unit.adversarial_sha256}
        return all(
            path.is_file() and not path.is_symlink() and sha256_file(path) == digest
            for path, digest in found.items()
            if digest or path == self._part(index)
        )

    def records(self) -> pd.DataFrame:
        """The records of all units that are done, in order."""
        parts = pd.concat([read_records(self._part(int(index))) for index in self.in_order()], ignore_index=True)
        for name in parts.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in parts.dtypes]]:
            parts[name] = parts[name].astype("category")
        return parts

    def write_result(self, records: pd.DataFrame, result: Result) -> None:
        """Write examples.parquet and what the whole run has to say; the run can still be resumed."""
        examples = self.path / "examples.parquet"
        write_records(examples, records, small=True)
        digests = {"examples_sha256": sha256_file(examples)}
        if self.manifest.request.save_adversarial:
            parts = [self._images(int(index)) for index in self.in_order()]
            write_images(self.path / FILE_NAME, parts, self.manifest.config.data_sha256)
            digests["adversarial_sha256"] = sha256_file(self.path / FILE_NAME)
        self.manifest.result = result.model_copy(update=digests)
        self.manifest.finished_at = now()
        self._write()

    def finish(self) -> None:
        """Close the manifest and drop the parts; called after the leaderboard has the run's rows."""
        self.manifest.status = "finished"
        for unit in self.manifest.units.values():
            unit.sha256 = unit.adversarial_sha256 = unit.seal = ""  # of parts, which go now
        self._write()
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def stop(self, status: Literal["interrupted", "failed"], reason: str = "") -> None:
        """Say why the run goes no further; it can be resumed. One that has its rows is finished whatever stopped it."""
        if self.manifest.status == "finished":
            self.finish()
            return
        self.manifest.status, self.manifest.reason = status, reason
        self._write()

    def release(self) -> None:
        """Let other processes have the run. The lock's file goes only when no process can need the run any more."""
        self.lock.release()  # before its file goes: Windows removes no open file
        if self.manifest.status == "finished":
            with suppress(OSError):
                Path(self.lock.lock_file).unlink(missing_ok=True)

    def _part(self, index: int) -> Path:
        return self.path / "parts" / f"{index:05d}.parquet"

    def _images(self, index: int) -> Path:
        return self._part(index).with_suffix(".npz")

    def _write(self) -> None:
        write_atomically(self.path / "manifest.json", self.manifest.to_json())


def open_run(leaderboard: Path, manifest: Manifest, *, fresh: bool) -> RunFolder:
    """Resume the unfinished run of the same configuration if there is one and no other process has it, else start one.

    What killed processes have left behind in the leaderboard is cleared away after a day.

    Args:
        manifest: of a run that starts now; its `run_id` is given here.
        fresh: never resume.

    Raises:
        BenchError: the folder cannot be written.
    """
    config, key = manifest.config, manifest.config.key
    _clear_away(leaderboard / "runs")
    if not fresh:
        for folder in sorted((leaderboard / "runs").glob(f"*-{key[:8]}-*"), reverse=True):
            resumed = _resume(folder, manifest)
            if resumed is not None:
                return resumed
    label = f"{config.model.replace('/', '-')}-{config.suite}"
    run_id = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{label}-{key[:8]}-{secrets.token_hex(2)}"
    path = leaderboard / "runs" / run_id
    with clear_disk_errors(path):
        path.mkdir(parents=True)
        lock = FileLock(path / ".lock")
        lock.acquire(timeout=0)
    run = RunFolder(path, manifest.model_copy(update={"run_id": run_id, "started_at": now(), "units": {}}), lock)
    run._write()
    return run


def _resume(folder: Path, manifest: Manifest) -> RunFolder | None:
    """The run in `folder` with `manifest`, what is its own of the earlier one's units, or None if it is another's."""
    if not _may_resume(folder, manifest):
        return None
    lock = FileLock(folder / ".lock")
    with clear_disk_errors(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
    # the process that had it may have gone on, or finished it, between our look and our lock
    if not _may_resume(folder, manifest):
        lock.release()
        return None
    sweep(folder)
    sweep(folder / "parts")
    earlier = read_manifest(folder)
    # of what stands there only what is sealed is believed; the rest is shown, and decides nothing
    kept = {"run_id": folder.name, "started_at": earlier.started_at[:40], "answers": earlier.answers}
    run = RunFolder(folder, manifest.model_copy(update={**kept, "units": {}}), lock)
    run.keep_own_units(earlier.units, saved=manifest.request.save_adversarial)
    if run.manifest.units:
        run.manifest.environment = _of_both(earlier.environment, manifest.environment)
    return run


def _of_both(earlier: Environment, now: Environment) -> Environment:
    """The environment now, with the versions and commits of all processes that have had a part in the run."""
    joined = {}
    for name in ("bench", "commit"):
        told = f"{getattr(earlier, name)}, {getattr(now, name)}".split(", ")
        # what stands there is not sealed; so many commits fit into a row
        joined[name] = ", ".join(list(dict.fromkeys(one for one in told if _CODE.fullmatch(one)))[-8:])
    return now.model_copy(update=joined)


def _may_resume(folder: Path, manifest: Manifest) -> bool:
    if any(path.is_symlink() for path in (folder, folder / "manifest.json", folder / "parts", folder / ".lock")):
        return False  # the target of a link is never written to
    try:
        earlier = read_manifest(folder)
    except BenchError:
        return False
    if earlier.config != manifest.config or earlier.status == "finished" or not is_safe_name(folder.name):
        return False
    if manifest.answers is None or (earlier.answers and same_answers(earlier.answers, manifest.answers)):
        return True
    logger.warning("the unfinished run %s is of a net that answers otherwise; a new run starts", folder.name)
    return False


def _clear_away(runs: Path) -> None:
    """Remove what killed processes have left: temporary files, and folders without a manifest, after a day."""
    with suppress(OSError):
        for folder in runs.iterdir():
            if not folder.is_dir() or folder.is_symlink():
                continue
            sweep(folder)
            half_copied = folder.name.startswith(".") and folder.name.endswith(".merging")
            empty = all(path.name == ".lock" for path in folder.iterdir())
            if (half_copied or empty) and is_old(folder):
                shutil.rmtree(folder, ignore_errors=True)
