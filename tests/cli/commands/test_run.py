from __future__ import annotations

from pathlib import Path

import pytest

from bench.leaderboard.rows import COLUMNS
from bench.leaderboard.table import read_leaderboard
from tests.conftest import TINY_SUITE, Bench, ModelCopy


def test_a_run_prints_every_metric_with_its_interval_and_where_the_evidence_lies(
    bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    code, out, err = bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert code == 0
    assert "fashion_mnist/standard under tiny" in out
    assert "clean accuracy" in out and "worst over all norms" in out and "95 % interval" in out
    assert out.count("robust accuracy") == 3
    rows = read_leaderboard(tmp_path / "board")
    evidence = tmp_path / "board" / "runs" / rows["run_id"].iloc[0]
    assert (evidence / "examples.parquet").is_file()
    assert str(evidence) in out
    union = rows[rows["metric"] == "union_accuracy"].iloc[0]
    assert f"{100 * union['value']:.1f}" in out
    assert "left" in err  # the progress bar, with time left


def test_several_models_and_suites_run_in_one_command(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(TINY_SUITE.replace('name = "tiny"', 'name = "other"'))
    arguments = (
        "run",
        "--model",
        "*_gradient",
        "--model",
        "standard",
        "--suite",
        tiny_suite,
        "--suite",
        other,
        "--leaderboard",
        tmp_path,
    )
    code, out, err = bench(*arguments)
    assert code == 0
    assert out.count("worst over all norms") == 6 and "[1/6] " in err and "[6/6] " in err
    rows = read_leaderboard(tmp_path)
    assert set(zip(rows["model"], rows["suite"], strict=True)) == {
        (model, suite) for model in ("standard", "input_gradient", "ir_gradient") for suite in ("tiny", "other")
    }


def test_examples_and_seed_reach_the_rows(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    assert (
        bench(
            "run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path, "--examples", 7, "--seed", 3
        )[0]
        == 0
    )
    rows = read_leaderboard(tmp_path)
    assert set(rows["n_examples"]) == {7} and set(rows["seed"]) == {3}


BAD = {
    "unknown model": (["--model", "stndard"], "did you mean standard"),
    "unknown suite": (["--suite", "cros_norm"], "did you mean cross_norm"),
    "unknown data set": (["--dataset", "fashon_mnist"], "unknown data set 'fashon_mnist'; did you mean fashion_mnist"),
    "no examples": (["--examples", "0"], "0 images of fashion_mnist cannot be had; use 1 to 10000 (--examples)"),
    "negative examples": (["--examples", "-3"], "-3 images of fashion_mnist cannot be had"),
    "too many examples": (["--examples", "10001"], "10001 images of fashion_mnist cannot be had"),
    "no batch": (["--batch-size", "0"], "0 is not a number of images; use 1 or more (--batch-size)"),
    "a device that is not there": (["--device", "cuda:7"], "device 'cuda:7' was asked for"),
    "an unknown device": (["--device", "abacus"], "unknown device 'abacus'"),
    "a data dir that is not there": (["--data-dir", "/nowhere/at/all"], "is not a folder"),
    "an unknown option": (["--exmples", "3"], "No such option"),
    "a word for a number": (["--examples", "many"], "Invalid value for '--examples'"),
    "a suite path that is none": (["--suite-path", "/nowhere"], "/nowhere is not a folder (--suite-path)"),
    "a missing suite file": (["--suite", "nowhere/x.toml"], "does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_writes_nothing(bench: Bench, tmp_path: Path, case: str) -> None:
    arguments, line = BAD[case]
    board = tmp_path / "board"
    given = {"--model": "standard", "--suite": "cross_norm_quick", "--leaderboard": str(board), "--device": "cpu"}
    given.update(zip(arguments[::2], arguments[1::2], strict=True))
    error = bench.refused("run", *[part for pair in given.items() for part in pair])
    assert line in error
    assert not board.exists()


def test_a_suite_of_a_folder_of_ones_own_is_run_by_its_name(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    code, _, error = bench(
        "run", "--model", "standard", "--suite", "tiny", "--suite-path", tiny_suite.parent, "--examples", 2,
        "--leaderboard", tmp_path / "board", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, error
    assert set(read_leaderboard(tmp_path / "board")["suite"]) == {"tiny"}


def test_a_missing_option_is_named(bench: Bench) -> None:
    assert "--suite" in bench.refused("run", "--model", "standard")


def test_a_suite_with_an_unknown_key_is_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TINY_SUITE + "\n[parameters.datasets.fashion_mnist.colours]\n")
    assert "colours: unknown key" in bench.refused(
        "run", "--model", "standard", "--suite", path, "--leaderboard", tmp_path / "b"
    )
    assert not (tmp_path / "b").exists()


def test_a_leaderboard_with_foreign_columns_is_refused_before_any_work(
    bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    (tmp_path / "leaderboard.csv").write_text("model,score\nx,1\n")
    error = bench.refused("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path)
    assert "foreign: score" in error
    assert (tmp_path / "leaderboard.csv").read_text() == "model,score\nx,1\n"
    assert not (tmp_path / "runs").exists()


def test_a_leaderboard_folder_that_is_a_file_is_refused(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    (tmp_path / "taken").write_text("")
    error = bench.refused(
        "run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path / "taken" / "board"
    )
    assert "stands where a folder is needed" in error


def test_damaged_weights_are_refused(bench: Bench, tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy) -> None:
    model_copy.weights.write_bytes(model_copy.weights.read_bytes()[:-1])
    error = bench.refused("run", "--model", "copy", "--suite", tiny_suite, "--leaderboard", tmp_path / "b")
    assert "do not match their card" in error
    assert not (tmp_path / "b").exists()


def test_a_net_for_another_number_of_classes_is_refused(
    bench: Bench, tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(model_copy.weights)
    state["linear2.weight"], state["linear2.bias"] = torch.zeros(7, 128), torch.zeros(7)
    save_file(state, model_copy.weights)
    from bench.catalog.cards import read_card

    parameters = {**read_card(model_copy.folder).architecture_parameters, "num_classes": 7}
    model_copy.rewrite_card(architecture_parameters=parameters)
    model_copy.adopt_weights()
    error = bench.refused("run", "--model", "copy", "--suite", tiny_suite, "--leaderboard", tmp_path / "b")
    assert "returns 7 logits, but the data set has 10 classes" in error


def test_a_net_that_returns_nan_is_refused(
    bench: Bench, tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(model_copy.weights)
    state["linear2.bias"] = torch.full((10,), torch.nan)
    save_file(state, model_copy.weights)
    model_copy.adopt_weights()
    error = bench.refused("run", "--model", "copy", "--suite", tiny_suite, "--leaderboard", tmp_path / "b")
    assert "NaN" in error
    assert not (tmp_path / "b").exists()


def test_a_full_disk_in_the_middle_of_a_run_gives_one_line(
    bench: Bench, tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    from pyarrow import parquet

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parquet, "write_table", full)
    error = bench.refused("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path)
    assert "the disk is full" in error
    assert not (tmp_path / "leaderboard.csv").exists()
    assert not list(tmp_path.rglob("*.parquet*"))


def test_the_rows_have_every_column_filled_that_must_be(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path)
    rows = read_leaderboard(tmp_path)
    for name in set(COLUMNS) - {"subject", "attack", "norm", "eps", "dependencies_sha256", "commit"}:
        assert rows[name].notna().all() and (rows[name].astype(str) != "").all(), name
    assert ((rows["ci_low"] <= rows["value"]) & (rows["value"] <= rows["ci_high"])).all()
