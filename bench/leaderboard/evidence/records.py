"""Records: one row per example, attack, norm and radius; the evidence behind every number."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from bench.core.errors import BenchError, reason_of
from bench.core.files import open_regular, replaced_whole

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


_KEYS = ("check", "attribution", "other", "map", "game", "attack", "norm", "eps", "severity")
"""Columns that tell the rows of one example apart. Rows that share them lie together: the file is smaller for it."""
_FEW = 16
"""A column of numbers with fewer values than one in so many rows is stored as numbers of a dictionary."""
_SEVERAL = 3


def write_records(path: Path, records: pd.DataFrame, *, small: bool = False) -> None:
    """Write a parquet file atomically, no value rounded; raises BenchError.

    Args:
        small: take time for a small file, and sort the rows: those that share attack, norm, radius and so on, in the
            order in which these first come, in the order they had.
    """
    if small and (keys := [name for name in _KEYS if name in records]):
        groups = records.groupby(keys, sort=False, observed=True, dropna=False).ngroup()
        records = records.iloc[groups.argsort(kind="stable")]
    table = pa.Table.from_pandas(records, preserve_index=False).replace_schema_metadata(None)
    encoding = {
        field.name: found
        for field in table.schema
        if (found := _encoding(field.name, field.type, records[field.name], rising=small)) is not None
    }
    with replaced_whole(path) as temporary:
        parquet.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19 if small else 3,
            use_dictionary=[name for name in table.column_names if name not in encoding],
            column_encoding=encoding,
            write_statistics=False,
            store_schema=False,  # of pyarrow's own, a third of a small file's frame; what texts are, see `read_records`
        )


def _encoding(name: str, kind: pa.DataType, values: pd.Series, *, rising: bool) -> str | None:
    """How a column becomes smallest; None for numbers of a dictionary."""
    if pa.types.is_integer(kind):
        return "DELTA_BINARY_PACKED" if rising and name == "example_id" else "BYTE_STREAM_SPLIT"
    if not pa.types.is_floating(kind):
        return None
    different = values.nunique()
    if _FEW * different <= len(values):
        return None
    # a distance stands at every radius of its norm: what comes again whole is found again where bytes are not apart
    return "PLAIN" if _SEVERAL * different <= len(values) else "BYTE_STREAM_SPLIT"


def read_records(path: Path) -> pd.DataFrame:
    """Read a parquet file; raises BenchError when it is missing or damaged.

    What pandas once wrote beside the columns is not obeyed: it names indices and types, and a stranger may have.
    """
    try:
        with open_regular(path) as stream:
            # texts are categories, in files that say so and in those that do not
            texts = [field.name for field in parquet.ParquetFile(stream).schema if field.physical_type == "BYTE_ARRAY"]
            # threads cost a small file more than they save
            table = parquet.ParquetFile(stream, read_dictionary=texts).read(use_threads=False)
            found: pd.DataFrame = table.replace_schema_metadata(None).to_pandas(use_threads=False)
    except FileNotFoundError as error:
        raise BenchError(f"the evidence {path} is missing; run the evaluation again.") from error
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        reason = reason_of(error)
        raise BenchError(f"the evidence {path} cannot be read ({reason}); run the evaluation again.") from error
    return found
