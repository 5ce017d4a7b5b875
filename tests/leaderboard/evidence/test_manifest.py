from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from bench.core.errors import BenchError
from bench.leaderboard.evidence.answers import FixedAnswers
from bench.leaderboard.evidence.manifest import Dependency, Manifest, Result, UnitStats, read_manifest
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric, MetricKey
from tests.leaderboard.evidence.manifests import as_content, whole_manifest, write_content

FINDING = Finding("a", "note", "e", "d")
METRIC = Metric(MetricKey("m", eps=8 / 255), 0.5, math.nan, math.inf, n_examples=3, direction="lower", unit="number")


def whole() -> Manifest:
    base = whole_manifest()
    return whole_manifest(
        status="finished",
        config=base.config.model_copy(update={"dependencies": {"autoencoder": Dependency("1")}}),
        answers=FixedAnswers([[1.5, None]], 0.25),
        units={"0": UnitStats(start=0, stop=3, seconds=0.1, device="cpu", findings=[FINDING])},
        result=Result(metrics=[METRIC], findings=[FINDING], counters={"claims": 1}),
    )


def test_what_was_written_is_read_as_it_was_and_is_json_that_any_program_reads(tmp_path: Path) -> None:
    content = json.loads(whole().to_json(), parse_constant=pytest.fail)
    read = read_manifest(write_content(tmp_path, content))
    (metric,) = read.result.metrics
    assert math.isnan(metric.ci_low) and math.isnan(metric.ci_high), "null where no number is finite"
    assert read.config == whole().config and read.answers == whole().answers and read.units == whole().units
    assert read.card == whole().card and read.suite == whole().suite and read.result.findings == [FINDING]
    assert as_content(read) == content


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("config.seed", "1"), ("config.model", 3), ("config.precision", "float64"), ("config.dependencies", ["a"]),
        ("card.weights", []), ("card.weights.parameters", "many"), ("card.accuracy.test", 90),
        ("card.training.recipe", None), ("card.training.parameters", 3), ("status", "done"), ("suite", "cross_norm"),
        ("suite.examples", 0), ("environment.executor.workers", 1.5), ("answers.logits", [["a"]]), ("units", []),
        ("result.findings", {}), ("result.findings.0.severity", "grave"), ("result.counters", {"claims": 1.5}),
        ("result.metrics.0", {"metric": "m"}), ("result.metrics.0.value", "1"), ("result.metrics.0", 3),
        ("result.seconds", "1"), ("result.examples_sha256", 1), ("config", None), ("environment.torch", 10**9),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_where_it_stands(tmp_path: Path, place: str, value: object) -> None:
    changed = as_content(whole())
    changed["result"]["metrics"] = [METRIC.as_dict()]  # as it was before metrics had columns
    *way, last = (int(part) if part.isdecimal() else part for part in place.split("."))
    inner: Any = changed
    for key in way:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(BenchError, match=f"is damaged at {place}"):
        read_manifest(write_content(tmp_path, changed))


@pytest.mark.parametrize(
    ("column", "value", "place"),
    [("value", ["1"], "result.metrics.0.value"), ("value", [0.5, 0.5], "result.metrics"), ("value", 0.5, "result.metrics"),
     ("unit", ["apples"], "result.metrics.0.unit")],
)  # fmt: skip
def test_a_column_of_metrics_that_is_damaged_is_refused(tmp_path: Path, column: str, value: object, place: str) -> None:
    changed = as_content(whole())
    assert changed["result"]["metrics"]["value"] == [0.5]
    changed["result"]["metrics"][column] = value
    with pytest.raises(BenchError, match=f"is damaged at {place};"):
        read_manifest(write_content(tmp_path, changed))


def test_what_many_metrics_share_is_written_once_and_read_as_it_was(tmp_path: Path) -> None:
    alike = [replace(METRIC, key=replace(METRIC.key, subject=f"s{number % 2}"), value=number) for number in range(8)]
    many = whole_manifest(result=Result(metrics=alike))
    written = as_content(many)["result"]["metrics"]
    assert written["direction"] == "lower"
    assert written["subject"] == {"values": ["s0", "s1"], "has": [0, 1] * 4}
    assert written["value"] == list(range(8))
    assert as_content(read_manifest(write_content(tmp_path, as_content(many)))) == as_content(many)


def test_units_of_a_finished_run_are_written_by_column_and_counters_only_where_they_are_not_their_sum(
    tmp_path: Path,
) -> None:
    shared = {"stop": 3, "seconds": 0.1, "device": "cpu"}
    units = {
        "1": UnitStats(start=3, **shared, counters={"claims": 2, "queries": 5}, findings=[FINDING]),
        "0": UnitStats(start=0, **shared, counters={"queries": 1}, attempts=2),
    }
    result = Result(metrics=[METRIC], counters={"claims": 2, "queries": 6})
    running, finished = (
        whole_manifest(status=status, units=units, result=result) for status in ("running", "finished")
    )
    assert as_content(running)["units"].keys() == {"0", "1"} and "counters" in as_content(running)["result"]
    written = as_content(finished)
    assert written["units"]["start"] == [3, 0] and written["units"]["device"] == "cpu"
    assert written["units"]["counters/claims"] == [2, None] and "counters" not in written["result"]
    for manifest in (running, finished):
        read = read_manifest(write_content(tmp_path, as_content(manifest)))
        assert list(read.units.items()) == list(units.items()) and read.result.counters == result.counters
    others = whole_manifest(status="finished", units=units, result=Result(counters={"claims": 3}))
    assert read_manifest(write_content(tmp_path, as_content(others))).result.counters == {"claims": 3}


@pytest.mark.parametrize(
    ("column", "value"), [("stop", [3, 3]), ("seconds", {"values": [1.0], "has": [1]}), ("stop", {})]
)
def test_columns_of_units_that_are_damaged_are_refused(tmp_path: Path, column: str, value: object) -> None:
    changed = as_content(whole())
    changed["units"][column] = value
    with pytest.raises(BenchError, match="is damaged at units"):
        read_manifest(write_content(tmp_path, changed))


@pytest.mark.parametrize("value", [1 / 3, 0.12345650000001, 2 / 3 * 1e-7, 1.0, math.inf])
def test_numbers_are_written_so_that_a_row_of_the_leaderboard_says_the_same(tmp_path: Path, value: float) -> None:
    metric = replace(METRIC, value=value)
    written = as_content(whole_manifest(result=Result(metrics=[metric])))
    (read,) = read_manifest(write_content(tmp_path, written)).result.metrics
    assert f"{read.value:.6g}" == f"{value:.6g}" or math.isinf(value)
    assert len(repr(read.value)) <= len("0.1234567891e-07")


def test_metrics_of_a_manifest_without_columns_are_read(tmp_path: Path) -> None:
    changed = as_content(whole())
    changed["result"]["metrics"] = [METRIC.as_dict()]
    assert as_content(read_manifest(write_content(tmp_path, changed))) == as_content(whole())


@pytest.mark.parametrize("name", ["config", "card", "suite", "environment", "run_id", "status"])
def test_nothing_that_every_run_has_may_be_missing(tmp_path: Path, name: str) -> None:
    changed = as_content(whole())
    del changed[name]
    if name == "status":
        assert read_manifest(write_content(tmp_path, changed)).status == "running"
        return
    with pytest.raises(BenchError, match=f"is damaged at {name}"):
        read_manifest(write_content(tmp_path, changed))


def test_a_unit_that_is_damaged_counts_as_not_computed(tmp_path: Path) -> None:
    changed = as_content(whole_manifest(units=whole().units))
    changed["units"] |= {"1": {**changed["units"]["0"], "seconds": "long"}, "2": 3}
    assert read_manifest(write_content(tmp_path, changed)).units == whole().units


@pytest.mark.parametrize(
    "columns",
    [
        {"metric": 3}, {"metric": "m"}, {"metric": ["a"], "value": []}, {"metric": None}, {"metric": {}},
        *({"metric": {"values": ["a"], "has": has}} for has in ([1], [-1], [[0]], ["0"], 3)),
    ],
)  # fmt: skip
def test_metrics_whose_columns_are_no_lists_of_one_length_are_damaged(tmp_path: Path, columns: object) -> None:
    changed = as_content(whole())
    changed["result"]["metrics"] = columns
    with pytest.raises(BenchError, match=r"is damaged at result\.metrics"):
        read_manifest(write_content(tmp_path, changed))


@pytest.mark.parametrize("depth", [50, 100_000])
def test_a_manifest_nested_without_end_is_damaged(tmp_path: Path, depth: int) -> None:
    deep = json.dumps(as_content(whole()))[:-1] + ', "suite": {"a": ' + "[" * depth + "]" * depth + "}}"
    with pytest.raises(BenchError, match="is missing or damaged"):
        read_manifest(write_content(tmp_path, deep))


@pytest.mark.parametrize("version", [0, 5, "2", None, [1]])
def test_a_manifest_of_another_version_is_not_guessed_at(tmp_path: Path, version: object) -> None:
    with pytest.raises(BenchError, match="is of another version of RIBench"):
        read_manifest(write_content(tmp_path, as_content(whole()) | {"schema_version": version}))


def test_the_key_tells_apart_all_that_decides_verdicts_and_nothing_else() -> None:
    config = whole().config
    others = {"seed": 1, "precision": "tf32", "examples": 4, "training_sha256": "t", "dependencies": {}}
    keys = {config.key, *(config.model_copy(update={name: value}).key for name, value in others.items())}
    assert len(keys) == 1 + len(others)


def test_only_dependencies_that_decide_metrics_count_for_what_is_comparable() -> None:
    config = whole().config
    noticed = {**(config.dependencies or {}), "source": Dependency("2", "findings")}
    assert config.model_copy(update={"dependencies": noticed}).dependencies_sha256 == config.dependencies_sha256 != ""
    assert config.model_copy(update={"dependencies": {"source": Dependency("2", "findings")}}).dependencies_sha256 == ""


def test_what_pandas_wrote_beside_the_columns_is_not_obeyed(tmp_path: Path) -> None:
    hostile = {"index_columns": ["broken"], "columns": [{"name": 5}], "column_indexes": [{"numpy_type": "evil"}]}
    table = pa.table({"example_id": [1, 2], "broken": [True, False]})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(hostile)}), tmp_path / "examples.parquet")
    expected = pd.DataFrame({"example_id": [1, 2], "broken": [True, False]})
    pd.testing.assert_frame_equal(read_records(tmp_path / "examples.parquet"), expected)
