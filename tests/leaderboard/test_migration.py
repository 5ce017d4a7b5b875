from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.locations import shipped
from bench.core.errors import BenchError
from bench.leaderboard.evidence.manifest import Dependency, read_manifest
from bench.leaderboard.migration import migrated_name, migrated_rows
from bench.leaderboard.rows import COLUMNS, run_columns
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.leaderboard.evidence.manifests import as_content, whole_manifest, write_content
from tests.leaderboard.rows import row


@pytest.mark.parametrize(
    ("metric", "attack", "expected"),
    [
        ("robust_accuracy", "sweep", ("robust_accuracy", "", "sweep", "higher", "share")),
        ("stability/cosine/gradient", "uniform", ("stability/cosine", "gradient", "uniform", "higher", "number")),
        ("stability/centre_shift/a", "uniform", ("stability/centre_shift", "a", "uniform", "lower", "number")),
        ("taps/cosine/gradient", "frame", ("taps/cosine", "gradient", "frame", "lower", "number")),
        ("taps/centre_shift/gradient", "top_k", ("taps/centre_shift", "gradient", "top_k", "higher", "number")),
        ("taps_clean/cosine/gradient", "", ("taps_clean/cosine", "gradient", "", "descriptive", "number")),
        ("agreement/spearman/a/b", "", ("agreement/spearman", "a/b", "", "descriptive", "number")),
        ("prediction_kept/gradient", "frame", ("prediction_kept", "gradient", "frame", "descriptive", "share")),
        ("deletion/gradient", "", ("deletion", "gradient", "", "lower", "number")),
        ("deletion/random_order", "", ("deletion", "random_order", "", "descriptive", "number")),
        ("retrained_accuracy_30", "mask_only:a", ("retrained_accuracy", "mask_only:a/30", "", "descriptive", "share")),
        ("corruption_accuracy_5", "jpeg", ("corruption_accuracy", "jpeg/5", "", "higher", "share")),
        ("corruption_accuracy", "all", ("corruption_accuracy", "all", "", "higher", "share")),
        ("roar_score", "gradient", ("roar_score", "gradient", "", "higher", "number")),
        ("manifold_auroc", "fooled_itself", ("manifold_auroc", "fooled_itself", "", "descriptive", "number")),
        ("never_heard_of/a_7", "x", ("never_heard_of/a_7", "", "x", "descriptive", "number")),
        ("my_accuracy", "", ("my_accuracy", "", "", "descriptive", "share")),
    ],
)
def test_what_older_versions_called_a_metric_is_taken_apart(
    metric: str, attack: str, expected: tuple[str, ...]
) -> None:
    assert migrated_name(metric, attack)[:5] == expected


def old_board(folder: Path, eps: str, **columns: str) -> None:
    names = [name for name in COLUMNS if name not in ("subject", "direction", "unit", "prominence")]
    with (folder / "leaderboard.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerow({**row("run-1"), "schema_version": 3, "eps": eps, **columns})


@pytest.mark.parametrize(
    ("text", "figure"),
    [("0.0313725", 8 / 255), ("1.2549", 320 / 255), ("0.1", 0.1), ("0.123456", 0.123456), ("12", 12.0), ("", None)],
)
def test_a_rounded_radius_becomes_the_suites_own(tmp_path: Path, text: str, figure: float | None) -> None:
    old_board(tmp_path, text)
    assert [None if eps != eps else eps for eps in read_leaderboard(tmp_path)["eps"]] == [figure]


@pytest.mark.parametrize(
    "content",
    [{"metrics": [{"eps": 0.03137251}, {"eps": None}]}, {"result": {"metrics": {"eps": [0.03137251, None]}}}],
)
def test_a_rounded_radius_is_what_the_evidence_says_before_anything_else(tmp_path: Path, content: object) -> None:
    old_board(tmp_path, "0.0313725")
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(content))
    assert read_leaderboard(tmp_path)["eps"].tolist() == [0.03137251]


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": 3}', '{"metrics": [3]}', "[" * 100_000])
def test_evidence_that_is_torn_does_not_hide_the_rows(tmp_path: Path, content: str) -> None:
    old_board(tmp_path, "0.0313725")
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    assert read_leaderboard(tmp_path)["eps"].tolist() == [8 / 255]


def test_no_evidence_is_looked_for_outside_the_leaderboard(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"metrics": [{"eps": 0.03137251}]}))
    cells = {**row(), "run_id": "../..", "eps": "0.0313725"}
    assert [found["eps"] for found in migrated_rows([cells], tmp_path / "board")] == [repr(8 / 255)]


def test_what_is_appended_to_an_older_file_keeps_its_radius_whole(tmp_path: Path) -> None:
    old_board(tmp_path, "0.0313725")
    append_rows(tmp_path, [row("new", eps=1 / 3)])
    assert read_leaderboard(tmp_path)["eps"].tolist() == [8 / 255, 1 / 3]


WHOLE = whole_manifest()


def version_1(**changes: Any) -> dict[str, Any]:
    """As version 1 had the whole manifest."""
    content = as_content(WHOLE)
    config = content["config"]
    facts = {name: value for name, value in config.items() if value != "" and name not in ("dependencies", "precision")}
    return {
        "schema_version": 1, "run_id": "a", "status": "finished", "key": "k", "started_at": "s", "facts": facts,
        "answers": {"logits": [[1.0, None]], "deviation": 0.0},
        "units": {"0": {"start": 0, "stop": 3, "seconds": 1.0, "device": "cpu", "counters": {"c": 1}, "findings": []}},
        "card": content["card"], "suite": content["suite"], "data_source": "raw", "batch_size": 256,
        "versions": {"bench": "0.1.0", "torch": "2.6", "python": "3.11"}, "threads": 2, "device": "cpu",
        "executor": {"name": "ray", "workers": 3, "workers_lost": 1, "cpus_per_worker": 1, "gpus_per_worker": 0.0},
        "metrics": [{"metric": "m", "value": 0.5, "ci_low": None, "ci_high": None, "n_examples": 3}],
        "counters": {"c": 1}, "findings": [], "seconds": 1.0, "finished_at": "f", "examples_sha256": "e",
    } | changes  # fmt: skip


def test_a_manifest_of_version_1_has_all_that_it_had(tmp_path: Path) -> None:
    read = read_manifest(write_content(tmp_path, version_1()))
    assert read.schema_version == 4 and read.card == WHOLE.card and read.suite == WHOLE.suite
    assert read.config == WHOLE.config.model_copy(update={"seed": 0, "dependencies": None})
    assert read.environment.executor.model_dump() == {
        "name": "ray", "workers": 3, "threads": 2, "workers_lost": 1, "cpus_per_worker": 1, "gpus_per_worker": 0.0,
    }  # fmt: skip
    assert (read.environment.batch_size, read.environment.device, read.units["0"].counters) == (256, "cpu", {"c": 1})
    assert (read.result.seconds, read.result.examples_sha256, read.finished_at) == (1.0, "e", "f")
    assert read.answers is not None and read.answers.logits == [[1.0, None]]


def test_what_version_1_did_not_say_is_not_made_up(tmp_path: Path) -> None:
    columns = run_columns(read_manifest(write_content(tmp_path, version_1())))
    assert {"commit", "dependencies_sha256"}.isdisjoint(columns) and columns["precision"] == "float32"


def test_precision_and_dependencies_of_version_1_are_found_among_its_facts(tmp_path: Path) -> None:
    facts = version_1()["facts"] | {
        "search_precision": "bfloat16", "autoencoder_sha256": "1", "transfer_source_sha256": "2",
    }  # fmt: skip
    config = read_manifest(write_content(tmp_path, version_1(facts=facts))).config
    assert config.precision == "bfloat16"
    assert config.dependencies == {"autoencoder": Dependency("1"), "transfer_source": Dependency("2", "findings")}


@pytest.mark.parametrize("name", ["facts", "versions", "card", "suite"])
@pytest.mark.parametrize("value", [None, 3, [], {}])
def test_a_damaged_one_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(BenchError, match="is damaged at"):
        read_manifest(write_content(tmp_path, version_1(**{name: value})))


def test_every_run_of_the_shipped_leaderboard_can_be_read() -> None:
    folders = [path.parent for path in shipped("models").parent.glob("leaderboard/runs/*/manifest.json")]
    for folder in folders[::10]:
        manifest = read_manifest(folder)
        assert manifest.run_id == folder.name and manifest.status == "finished" and manifest.result.metrics
