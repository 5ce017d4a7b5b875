"""Records of retrained nets that no judged model has a part in: every model is held against the same ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, sha256_bytes, user_cache
from bench.leaderboard.evidence.records import read_records, write_records
from bench.protocols.retraining.metrics import RETRAINING_COLUMNS

logger = logging.getLogger(__name__)
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
