"""Means over different images, as maps that are undefined on some images give them: counted, and not held against
each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli.commands.run import outcome_table
from bench.cli.output.board_formats import as_csv, as_latex, as_markdown, as_table
from bench.cli.output.json_output import board_entry
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.controls import beaten
from bench.leaderboard.metrics import Metric, MetricKey
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.leaderboard.views import by_method
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


def test_a_mean_over_fewer_seeds_than_its_row_says_so_and_its_column_has_no_best(tmp_path: Path) -> None:
    for model, value in (("a1", 0.9), ("a2", None), ("a3", None), ("b1", 0.8), ("b2", 0.8), ("b3", 0.8)):
        score = {"metric": "score", "subject": "", "unit": "number", "direction": "higher", "prominence": "headline"}
        own = [row(model, model=model, value=value) | score, row(model, model=model, norm="l2", value=0.1)]
        append_rows(tmp_path, own)
    (by_model,) = make_boards(read_leaderboard(tmp_path), "score sweep L-inf 0.1")
    board = by_method(by_model, {row.name: row.name[0] for row in by_model.rows})
    assert "| a | 3 | **10.0 ± 0.0** | 0.9 (models 1) |" in as_markdown([board])
    assert "| b | 3 | **10.0 ± 0.0** | 0.8 ± 0 |" in as_markdown([board])
    caption = as_table(board, wide=True, width=200).caption
    assert board.best(board.place(board.sort.label)) is None and "models beside a value" in str(caption)
    assert ",1\n" in as_csv([board]) and [one["models"] for one in board_entry(board)["rows"][1]["metrics"]] == [3, 1]
    assert board.order_note == "last and not compared, over another number of images or models: a"
    whole = replace(board, rows=board.rows[:1])
    assert "models beside a value" not in str(as_table(whole, wide=True, width=200).caption)


def test_a_methods_count_is_the_range_of_its_seeds(tmp_path: Path) -> None:
    by_model = complexity(tmp_path, {"a": 64, "b": 500})
    board = by_method(by_model, dict.fromkeys(("a", "b"), "both"))
    assert "| both | 2 | 0.761 ± 0.0707 (n 64-500) |" in as_markdown([board])


@pytest.mark.parametrize(("count", "said"), [(64, "sparseness grad cam (n 64)"), (500, "sparseness grad cam")])
def test_the_table_of_a_run_counts_too(count: int, said: str) -> None:
    plan = SimpleNamespace(suite=SimpleNamespace(file=SimpleNamespace(fractions={})))
    found = [
        Metric(MetricKey(*name), 0.8, ci_low=0.7, ci_high=0.9, n_examples=n, direction="higher", unit="number")
        for name, n in ((("sparseness", "grad_cam"), count), (("sparseness", "gradient"), 500))
    ]
    outcome: Any = SimpleNamespace(plan=plan, metrics=found)
    assert next(iter(outcome_table(outcome).columns))._cells[0].plain == said
