from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from bench.core.errors import BenchError
from bench.leaderboard.evidence.manifest import SCHEMA_VERSION, read_manifest
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.metrics import Metric, MetricKey

WHOLE: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION, "run_id": "a", "status": "finished",
    "facts": {"model": "fashion_mnist/standard", "seed": 0},
    "card": {
        "weights": {"sha256": "0", "parameters": 7}, "accuracy": {"test": 0.9}, "gradients": {"stability": {"8/255": 0.5}},
        "training": {"recipe": "standard", "parameters": {}, "schedule": {}},
    },
    "metrics": [Metric(MetricKey("m"), 0.5, math.nan, math.nan, 3, "lower", "number").as_dict()],
    "findings": [{"id": "a", "severity": "note", "evidence": "e", "advice": "d"}], "counters": {"claims": 1},
}  # fmt: skip


def write(folder: Path, content: str) -> Path:
    (folder / "manifest.json").write_text(content)
    return folder


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("facts.seed", "1"), ("facts.model", 3), ("card.weights", []), ("card.weights.parameters", "many"),
        ("card.accuracy.test", 90), ("card.gradients.stability", {"8/255": "x"}), ("card.training.recipe", None),
        ("card.training.parameters", 3), ("findings", [{"id": "a"}]), ("findings", {}), ("counters", {"claims": 1.5}),
        ("metrics", [{"metric": "m"}]), ("metrics", [None]), ("suite", "cross_norm"), ("seconds", "1"), ("examples_sha256", 1),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_where_it_stands(tmp_path: Path, place: str, value: object) -> None:
    assert read_manifest(write(tmp_path, json.dumps(WHOLE))) == WHOLE
    changed = json.loads(json.dumps(WHOLE))
    *way, last = place.split(".")
    inner = changed
    for key in way:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(BenchError, match=f"is damaged at {place}"):
        read_manifest(write(tmp_path, json.dumps(changed)))


@pytest.mark.parametrize("depth", [50, 100_000])
def test_a_manifest_nested_without_end_is_damaged(tmp_path: Path, depth: int) -> None:
    deep = json.dumps(WHOLE)[:-1] + ', "suite": {"a": ' + "[" * depth + "]" * depth + "}}"
    with pytest.raises(BenchError, match="is missing or damaged"):
        read_manifest(write(tmp_path, deep))


def test_what_pandas_wrote_beside_the_columns_is_not_obeyed(tmp_path: Path) -> None:
    hostile = {"index_columns": ["broken"], "columns": [{"name": 5}], "column_indexes": [{"numpy_type": "evil"}]}
    table = pa.table({"example_id": [1, 2], "broken": [True, False]})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(hostile)}), tmp_path / "examples.parquet")
    expected = pd.DataFrame({"example_id": [1, 2], "broken": [True, False]})
    pd.testing.assert_frame_equal(read_records(tmp_path / "examples.parquet"), expected)
