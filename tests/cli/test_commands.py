from __future__ import annotations

import io
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.catalog.models import resolve_models
from bench.leaderboard.table import append_rows
from tests.conftest import TINY_SUITE, Bench, ModelCopy
from tests.executors.processes import run_python
from tests.leaderboard.rows import row


def _processor_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_little_more_than_the_libraries_that_print_it() -> None:
    """The best of three in turns, so that neither a busy nor a slow machine decides; a third of a second on most."""
    pairs = [
        (
            _processor_seconds("-m", "bench.cli.main", "--help"),
            _processor_seconds("-c", "import typer.main, typer.rich_utils, rich.table"),
        )
        for _ in range(3)
    ]
    assert min(pair[0] for pair in pairs) < 2.5 * min(pair[1] for pair in pairs)


def test_a_reader_that_has_gone_is_no_failure_of_anyone(tmp_path: Path) -> None:
    """As `bench suites | head -1`: not a word on stderr, and the code that other programs end with."""
    code = (
        "import os, sys; reading, writing = os.pipe(); os.close(reading); os.dup2(writing, 1); "
        "sys.argv = ['bench', 'suites']; from bench.cli.main import main; main()"
    )
    assert run_python(code, tmp_path / "said") == (141, "")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "leaderboard", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full, as Linux has it")
def test_a_full_disk_under_the_output_is_no_verdict() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "bench", "suites"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: the output cannot be written: No space left")
    assert len(done.stderr.splitlines()) == 1


def test_starting_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, bench.cli.main; print([name for name in ('torch', 'pandas', 'numpy', 'pydantic') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("given", "command", "expected"),
    [
        ({}, "datasets", "1000"),  # a command that loads torch
        ({"GOMP_SPINCOUNT": "7"}, "--help", "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "--help", "None"),
    ],
)
def test_threads_wait_politely_unless_the_environment_says_otherwise(
    given: dict[str, str], command: str, expected: str
) -> None:
    code = (
        f"import os, sys, atexit; sys.argv = ['bench', {command!r}]; from bench.cli.main import main; "
        "atexit.register(lambda: print('spins', os.environ.get('GOMP_SPINCOUNT'))); "
        "assert 'torch' not in sys.modules; main()"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=kept | given)
    assert result.stdout.splitlines()[-1] == f"spins {expected}"


def test_unknown_commands_are_refused_with_one_line(bench: Bench) -> None:
    assert "No such command 'rum'" in bench.refused("rum")


def test_models_lists_and_shows(bench: Bench) -> None:
    code, out, _ = bench("models")
    assert code == 0
    for name in ("standard", "at_linf", "at_l2", "ir_gradient", "ir_smoothgrad", "lga"):
        assert f"fashion_mnist/{name}" in out
    assert bench("models", "list")[1] == out
    code, out, _ = bench("models", "list", "at_*", "lga", "--dataset", "fashion_mnist", "--exclude", "*_seed?")
    assert code == 0 and "at_l2" in out and "lga" in out and "standard" not in out and "seed" not in out
    assert "did you mean" in bench.refused("models", "list", "--exclude", "at_lnf")
    code, out, _ = bench("models", "show", "at_linf")
    assert code == 0 and 'norm = "linf"' in out and "eps = 0.1" in out
    assert "did you mean" in bench.refused("models", "show", "at_lnf")


def test_suites_lists_shows_and_validates(bench: Bench, tmp_path: Path) -> None:
    assert "cross_norm_quick" in bench("suites")[1]
    assert "[parameters.datasets.fashion_mnist]" in bench("suites", "show", "cross_norm")[1]
    path = tmp_path / "mine.toml"
    path.write_text(TINY_SUITE)
    assert "a valid suite 'tiny'" in bench("suites", "validate", path)[1]
    path.write_text(TINY_SUITE.replace("patience", "patiens"))
    assert "patiens: unknown key" in bench.refused("suites", "validate", path)


def test_datasets_says_what_is_embedded(bench: Bench) -> None:
    code, out, _ = bench("datasets")
    assert code == 0 and "embedded" in out and "cifar10" in out


def test_recipes_lists_and_explains_parameters(bench: Bench) -> None:
    assert "ir_smoothgrad" in bench("recipes")[1]
    out = bench("recipes", "show", "at_l2")[1]
    assert "eps" in out and "1.5" in out and "radius, pixels in [0, 1]" in out
    of_net = bench("recipes", "show", "hessian", "--dataset", "cifar10", "--set", "architecture=resnet18")[1]
    assert re.search(r"weight +0\.0001", of_net) and re.search(r"epochs +200", of_net)


def test_doctor_finds_nothing_wrong_here(bench: Bench, tmp_path: Path) -> None:
    code, out, _ = bench("doctor", "--leaderboard", tmp_path)
    assert code == 0 and "all weights match their digests" in out and "wrong" not in out


def test_a_run_without_its_evidence_among_others_is_said_in_one_line(bench: Bench, tmp_path: Path) -> None:
    for run in ("here", "gone"):
        append_rows(tmp_path, [row(run, model=run)])
    at = ("--leaderboard", tmp_path)
    assert "no ranks" not in bench("leaderboard", *at)[2], "rows that came alone have none"
    (tmp_path / "runs" / "here").mkdir(parents=True)
    (tmp_path / "runs" / "here" / "manifest.json").write_text("{}")
    assert "there is no evidence of run gone; restore it" in " ".join(bench("leaderboard", *at)[2].split())
    assert "no ranks" not in bench("leaderboard", *at, "--no-ranks")[2]
    code, out, _ = bench("doctor", *at)
    assert code == 2 and "1 of 2 runs in" in out and "gone for one" in " ".join(out.split())


def test_doctor_names_damaged_weights_and_exits_with_two(bench: Bench, tmp_path: Path, model_copy: ModelCopy) -> None:
    model_copy.weights.write_bytes(b"")
    code, out, err = bench("doctor", "--leaderboard", tmp_path)
    assert code == 2 and "do not match their card" in out and err.startswith("error: something is wrong")


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for model, clean, robust in (("standard", 0.92, 0.1), ("at_linf", 0.86, 0.78)):
        append_rows(
            tmp_path,
            [
                row(model, model=model, metric="clean_accuracy", attack="", norm="", eps=None, value=clean),
                row(model, model=model, value=robust),
                row(model, model=model, metric="union_accuracy", norm="all", eps=None, value=robust / 2),
            ],
        )
    return tmp_path


def test_the_leaderboard_as_a_table_is_sorted(bench: Bench, board: Path) -> None:
    code, out, _ = bench("leaderboard", "--leaderboard", board)
    assert code == 0
    assert out.index("at_linf") < out.index("standard")
    assert "fashion_mnist (test, 100 images), suite cross_norm version 1" in out
    _, out, _ = bench("leaderboard", "--leaderboard", board, "--sort", "clean")
    assert out.index("standard") < out.index("at_linf")


def test_the_leaderboard_as_csv_json_and_markdown_says_the_same(bench: Bench, board: Path) -> None:
    frame = pd.read_csv(io.StringIO(bench("leaderboard", "--leaderboard", board, "--format", "csv")[1])).set_index(
        "model"
    )
    assert frame.loc["at_linf", "L-inf 0.1"] == 0.78 and frame.loc["standard", "clean"] == 0.92
    first = json.loads(bench("leaderboard", "--leaderboard", board, "--format", "json")[1])["boards"][0]["rows"][0]
    assert first["model"] == "at_linf" and {one["label"]: one["value"] for one in first["metrics"]}["union"] == 0.39
    markdown = bench("leaderboard", "--leaderboard", board, "--format", "markdown")[1]
    assert "| at_linf | 86.0 | **78.0** | **39.0** |" in markdown
    assert "| standard | **92.0** | 10.0 | 5.0 |" in markdown


def test_what_a_newer_suite_version_says_of_a_model_replaces_the_older(bench: Bench, tmp_path: Path) -> None:
    for run, model, version in (("a", "one", 1), ("b", "two", 1), ("c", "two", 2)):
        append_rows(tmp_path, [row(run, model=model, suite_version=version)])
    shown = ("leaderboard", "--leaderboard", tmp_path, "--format", "csv")
    assert bench(*shown)[1].count("one") == 1 and bench(*shown)[1].count("two") == 1
    assert bench(*shown, "--all-versions")[1].count("two") == 2


def test_leaderboard_filters_and_mistakes(bench: Bench, board: Path) -> None:
    assert "did you mean cross_norm" in bench.refused("leaderboard", "--leaderboard", board, "--suite", "cross_nrm")
    assert "unknown metric to sort by" in bench.refused("leaderboard", "--leaderboard", board, "--sort", "beauty")
    assert "bench run" in bench.refused("leaderboard", "--leaderboard", board / "nowhere")
    assert bench("leaderboard", "--leaderboard", board, "--dataset", "fashion_mnist")[0] == 0


def test_an_evaluation_needs_neither_the_compiler_nor_plots_nor_statistics(tiny_suite: Path, tmp_path: Path) -> None:
    """They take a second or more to import, some longer than torch itself."""
    heavy = ("torch._dynamo", "torchvision", "foolbox", "torchattacks", "matplotlib", "scipy.stats")
    code = (
        f"import sys, bench; bench.evaluate('standard', {str(tiny_suite)!r}, examples=4); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert run_python(code, tmp_path / "said") == (0, "[]\n")


@pytest.mark.parametrize("command", [("leaderboard",), ("compare", "standard", "at_l2")])
def test_json_is_not_printed_in_place_of_another_format_that_was_asked_for(
    command: tuple[str, ...], bench: Bench
) -> None:
    assert "--json or --format latex, not both" in bench.refused(*command, "--format", "latex", "--json")


def test_the_front_of_accuracy_and_stability_comes_from_the_cards(
    bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    models = ("standard", "standard_softplus", "jacobian")
    arguments = [part for name in models for part in ("--model", name)]
    assert bench("run", *arguments, "--suite", tiny_suite, "--leaderboard", tmp_path)[0] == 0
    shown = ("leaderboard", "--leaderboard", tmp_path, "--format", "json", "--pareto")
    assert "leave out --ranks" in bench.refused(*shown, "clean, L-inf 0.1", "--ranks")
    (board,) = json.loads(bench(*shown, "clean, stability 16/255")[1])["boards"]
    cards = {name: resolve_models([name])[0].card.gradients for name in models}
    found = {row["model"]: row["metrics"][1]["value"] for row in board["rows"]}
    assert "standard_softplus" in found
    assert found == {name: pytest.approx(cards[name].stability["16/255"]) for name in found}
    assert "no model of" in bench.refused(*shown, "clean, stability 9/255")


def test_a_front_is_of_the_tables_that_have_both_columns(bench: Bench, tmp_path: Path) -> None:
    for suite in ("clean", "cross_norm"):
        append_rows(tmp_path, [
            row(suite, suite=suite, metric="clean_accuracy", attack="", norm="", eps=None),
            *([row(suite, suite=suite)] if suite == "cross_norm" else []),
        ])  # fmt: skip
    shown = ("leaderboard", "--leaderboard", tmp_path, "--json", "--pareto")
    (board,) = json.loads(bench(*shown, "clean, L-inf 0.1")[1])["boards"]
    assert board["suite"] == "cross_norm"
    assert "unknown column 'union'" in bench.refused(*shown, "clean, union")
