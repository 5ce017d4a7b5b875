"""Records: one row per example, attack, norm and radius; the evidence behind every number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import BenchError
from bench.core.files import open_regular, replaced_whole

if TYPE_CHECKING:
    import pandas as pd

ROBUSTNESS_COLUMNS = {
    "example_id": "int32",
    "label": "int32",
    "prediction": "int32",
    "attack": "category",
    "norm": "category",
    "eps": "float64",
    "broken": "bool",
    "distance": "float64",
    "adversarial_prediction": "int32",
    "found_in_norm": "category",
}
"""Columns of a robustness protocol's records.

`prediction` is the clean image's; `broken` whether a verified adversarial example lies within `eps` (a misclassified
clean image is broken at every radius); `distance` the smallest verified one in that norm, infinite where none was
found; `adversarial_prediction` its class, -1 where none; `found_in_norm` the norm in which it was searched, empty for
a misclassified clean image and where none was found.
"""


def write_records(path: Path, records: pd.DataFrame) -> None:
    """Write a parquet file atomically; raises BenchError."""
    with replaced_whole(path) as temporary:
        records.to_parquet(temporary, index=False, compression="zstd")


def read_records(path: Path) -> pd.DataFrame:
    """Read a parquet file; raises BenchError when it is missing or damaged.

    What pandas once wrote beside the columns is not obeyed: it names indices and types, and a stranger may have.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with open_regular(path) as stream:
            found: pd.DataFrame = parquet.read_table(stream).replace_schema_metadata(None).to_pandas()
    except FileNotFoundError as error:
        raise BenchError(f"the evidence {path} is missing; run the evaluation again.") from error
    except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise BenchError(f"the evidence {path} cannot be read ({reason}); run the evaluation again.") from error
    return found
