"""Means over different images, as maps that are undefined on some images give them: counted, and not held against
each other."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli.commands.run import outcome_table
from bench.cli.output.board_formats import as_csv, as_latex, as_markdown, as_table
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.controls import beaten
from bench.leaderboard.metrics import Metric, MetricKey
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.conftest import Bench
from tests.leaderboard.rows import row
from tests.reporting.page.pages import add_run, metric, page_of, parse


def complexity(folder: Path, counts: dict[str, int]) -> Board:
    """Grad-CAM's sparseness beside a control's, the map undefined on some of 500 images."""
    plain: dict[str, Any] = {"suite": "complexity", "attack": "", "norm": "", "eps": None}
    for place, (model, count) in enumerate(counts.items()):
        common = {**plain, "model": model, "metric": "sparseness"}
        own = [
            row(model, **common, value=0.811 - 0.1 * place, n_examples=count) | {"subject": "grad_cam"},
            row(model, **common, value=0.9, n_examples=500) | {"subject": "control_sobel", "direction": "descriptive"},
        ]
        given = {"direction": "higher", "unit": "number"}
        append_rows(folder, [own[0] | given, own[1] | {"unit": "number"}])
    (board,) = make_boards(read_leaderboard(folder), "sparseness grad_cam")
    return board


def shown(board: Board) -> dict[str, str]:
    made = as_table(board, wide=True, width=200)
    names, values = ([str(cell) for cell in column._cells] for column in made.columns[:2])
    return dict(zip(names, values, strict=True))


def test_a_mean_over_fewer_images_says_so_and_is_neither_the_best_nor_held_against_a_control(
    tmp_path: Path, bench: Bench
) -> None:
    board = complexity(tmp_path, {"few": 64, "all": 500})
    assert board.best(0) is None
    assert shown(board) == {"few": "0.811 (n 64)", "all": "0.711†"}
    assert "n: images that a value is over" in str(as_table(board, wide=True, width=200).caption)
    assert "| few | 0.811 (n 64) |" in as_markdown([board], intervals=False)
    assert "few & 0.811 (n 64) {\\scriptsize [0.4, 0.6]} &" in as_latex([board], intervals=True)
    header, first, second = as_csv([board]).splitlines()
    assert header.endswith("sparseness grad_cam n") and first.endswith(",64") and second.endswith(",")
    boards = json.loads(bench("leaderboard", "--leaderboard", tmp_path, "--json")[1])["boards"]
    found = [[one["n_examples"] for one in line["metrics"]] for line in boards[0]["rows"]]
    assert sorted(found) == [[64, 500], [500, 500]]


def test_where_all_are_over_all_images_nothing_is_counted(tmp_path: Path) -> None:
    board = complexity(tmp_path, {"one": 500, "other": 500})
    assert board.best(0) == 0.811 and shown(board) == {"one": "*0.811†", "other": "0.711†"}
    assert "n:" not in str(as_table(board, wide=True, width=200).caption) and " n" not in as_csv([board]).split("\n")[0]


def test_means_over_as_many_images_have_a_best(tmp_path: Path) -> None:
    board = complexity(tmp_path, {"one": 64, "other": 64})
    assert shown(board) == {"one": "*0.811 (n 64)", "other": "0.711 (n 64)"}


def test_a_control_is_held_against_a_method_over_as_many_images_alone() -> None:
    def figures(count: int) -> Any:
        yield MetricKey("sparseness", "grad_cam"), "higher", 0.811, count
        yield MetricKey("sparseness", "control_sobel"), "descriptive", 0.9, 500

    assert beaten(figures(64)) == {} and list(beaten(figures(500))) == [MetricKey("sparseness", "grad_cam")]


def test_the_page_shows_the_number_in_small(tmp_path: Path) -> None:
    for model, count, value in (("few", 64, 0.811), ("all", 100, 0.711)):
        own = metric("sparseness/grad_cam", value, n_examples=count)
        add_run(tmp_path, model, [metric("clean_accuracy", 0.9), own])
    page = parse(page_of(tmp_path))
    (board,) = page.with_class("board")
    (note,) = board.find("small")
    assert note.text == "(n 64)" and "over 64 of the run's images" in page.text
    assert [node.text for node in board.with_class("best")] == ["90.0", "90.0"]


@pytest.mark.parametrize(("count", "said"), [(64, "sparseness grad cam (n 64)"), (500, "sparseness grad cam")])
def test_the_table_of_a_run_counts_too(count: int, said: str) -> None:
    plan = SimpleNamespace(suite=SimpleNamespace(file=SimpleNamespace(fractions={})))
    found = [
        Metric(MetricKey(*name), 0.8, ci_low=0.7, ci_high=0.9, n_examples=n, direction="higher", unit="number")
        for name, n in ((("sparseness", "grad_cam"), count), (("sparseness", "gradient"), 500))
    ]
    outcome: Any = SimpleNamespace(plan=plan, metrics=found)
    assert next(iter(outcome_table(outcome).columns))._cells[0].plain == said
