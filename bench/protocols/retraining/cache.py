"""What ROAR and KAR keep in the user's cache: records that no judged model has a part in, and what is under way.

Every model is held against the same such records. Maps and trainings under way are kept so that a stop loses little.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, is_old, sha256_bytes, user_cache
from bench.core.torch_state import read_state, write_state
from bench.leaderboard.evidence.records import read_records, write_records
from bench.protocols.retraining.metrics import RETRAINING_COLUMNS
from bench.training.epochs import Stateful

logger = logging.getLogger(__name__)
EVERY_SECONDS = 30.0
"""Between two states that are written down: so much a stop loses."""
_VERSION = 1


class RecordCache:
    """The records of one group of nets in the user's cache, by the digest of all that decides them."""

    def __init__(self, deciding: Mapping[str, Any]) -> None:
        content = json.dumps({**deciding, "version": _VERSION}, sort_keys=True)
        self.path = user_cache("retraining", f"{sha256_bytes(content.encode())}.parquet")

    def read(self) -> pd.DataFrame | None:
        """The records, or None where there are none or they are damaged."""
        if not self.path.is_file():
            return None
        try:
            records = read_records(self.path)
        except BenchError as error:
            logger.warning("%s", error)
            return None
        return records if list(records.columns) == list(RETRAINING_COLUMNS) else None

    def write(self, records: pd.DataFrame) -> None:
        try:
            with clear_disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            write_records(self.path, records)
        except BenchError as error:
            logger.warning("retrained nets are not cached: %s", error)


class Unfinished:
    """One thing that takes long, of one group, e.g. its training.

    What is kept is used again only where it fits what is to be gone on with, and was computed as that will be.
    """

    def __init__(self, group: Mapping[str, Any], what: str, by: str) -> None:
        """Take what computes as `by`, as `computed_by` says it."""
        self._what, self._by = what, by
        self._folder = user_cache("retraining")
        self._path = self._folder / f"{sha256_bytes(json.dumps([group, what], sort_keys=True).encode())}.pt"
        self._written = time.monotonic()

    def read(self, fits: str) -> dict[str, Any]:
        """What was written down last with the same `fits` by the same versions and device; empty where nothing was."""
        found = read_state(self._path)
        if found and (former := found.get("by", "an older version")) != self._by:
            said = "what was under way (%s) begins again, since other versions or another device began it: %s"
            logger.warning(said, self._what, former)
            self.remove()
            return {}
        return found["state"] if found.get("fits") == fits else {}

    def write(self, fits: str, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state down, if the last time was long enough ago."""
        if time.monotonic() - self._written < EVERY_SECONDS:
            return
        try:
            write_state(self._path, {"fits": fits, "by": self._by, "state": state()})
        except BenchError as error:
            logger.warning("a training under way is not kept: %s", error)
        for path in self._folder.glob("*.pt"):
            with suppress(OSError):
                if is_old(path):
                    path.unlink()
        self._written = time.monotonic()

    def remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class UnfinishedTraining:
    """Keeps the nets of `retrain` as they are trained."""

    def __init__(self, kept: Unfinished, fits: str) -> None:
        self._kept, self._fits = kept, fits

    def restore(self, parts: Mapping[str, Stateful]) -> int:
        """Put the parts where they were; returns how many steps that is, 0 where nothing was kept."""
        state = self._kept.read(self._fits)
        for name, part in parts.items() if state else ():
            part.load_state_dict(state[name])
        return int(state["steps"]) if state else 0

    def keep(self, parts: Mapping[str, Stateful], steps: int) -> None:
        self._kept.write(
            self._fits, lambda: {"steps": steps, **{name: part.state_dict() for name, part in parts.items()}}
        )
