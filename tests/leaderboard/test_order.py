"""Values over another number of images than most: they come last, beat nothing and are beaten by nothing."""

from __future__ import annotations

import json
from pathlib import Path

from bench.cli.output.board_formats import as_csv, as_latex, as_markdown, as_table
from bench.leaderboard.boards import Board, Cell, Row, make_boards
from bench.leaderboard.order import comparable
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.leaderboard.views import by_method, pareto_front, with_columns
from bench.reporting.page.content import Number
from bench.reporting.page.tradeoffs import Spot, front
from tests.conftest import Bench
from tests.leaderboard.rows import row
from tests.reporting.page.pages import add_run, metric, page_of, parse

GIVEN = {"few": (0.99, 0.4, 64), "best": (0.8, 0.9, 500), "worst": (0.6, 0.7, 500), "traded": (0.7, 0.95, 500)}
"""Model -> sparseness, clean accuracy, and how many images the sparseness is over."""


def board_of(folder: Path, given: dict[str, tuple[float, float, int]]) -> Board:
    for model, (sparseness, clean, count) in given.items():
        plain = {"suite": "complexity", "attack": "", "norm": "", "eps": None, "model": model}
        first = row(model, **plain, metric="sparseness", value=sparseness, n_examples=count)
        first |= {"subject": "grad_cam", "direction": "higher", "unit": "number"}
        append_rows(folder, [first, row(model, **plain, metric="clean_accuracy", value=clean, n_examples=500)])
    (board,) = make_boards(read_leaderboard(folder), "sparseness grad_cam")
    return board


def names(board: Board) -> list[str]:
    return [row.name for row in board.rows]


def test_a_mean_over_fewer_images_than_most_comes_last_and_every_format_says_so(tmp_path: Path, bench: Bench) -> None:
    board = board_of(tmp_path, GIVEN)
    assert names(board) == ["best", "traded", "worst", "few"]
    said = "last and not compared, over another number of images: few"
    assert said in str(as_table(board, wide=True, width=200).caption) and said in as_latex([board])
    assert f"\n{said.capitalize()}.\n" in as_markdown([board])
    lines = [line.split(",") for line in as_csv([board]).splitlines()]
    assert [line[lines[0].index("apart")] for line in lines[1:]] == ["", "", "", "yes"]
    shown = bench("leaderboard", "--leaderboard", tmp_path, "--sort", "sparseness grad_cam", "--json")[1]
    assert [one["apart"] for one in json.loads(shown)["boards"][0]["rows"]] == [False, False, False, True]
    assert with_columns([board], ["clean"])[0].order_note == said


def test_so_does_one_over_all_images_where_most_have_fewer(tmp_path: Path) -> None:
    board = board_of(tmp_path, {"all": (0.99, 0.5, 500), "one": (0.8, 0.5, 64), "other": (0.7, 0.5, 64)})
    assert names(board) == ["one", "other", "all"] and board.order_note.endswith(": all")


def test_where_no_number_is_that_of_most_the_order_is_said_to_be_no_ranking(tmp_path: Path) -> None:
    board = board_of(tmp_path, {"a": (0.7, 0.5, 171), "b": (0.9, 0.5, 175), "c": (0.8, 0.5, 181), "d": (0.6, 0.5, 181)})
    assert names(board) == ["b", "c", "a", "d"]
    assert board.order_note == "values over different numbers of images, so that their order is no ranking"


def test_it_neither_goes_from_a_pareto_front_nor_sends_another_from_it(tmp_path: Path) -> None:
    columns = ("sparseness grad_cam", "clean")
    found = pareto_front(board_of(tmp_path, GIVEN), columns)
    assert names(found) == ["best", "traded", "few"] and found.order_note.endswith(": few")
    strong = board_of(tmp_path / "strong", GIVEN | {"few": (0.99, 0.99, 64)})
    assert names(pareto_front(strong, columns)) == ["best", "traded", "few"]


def test_a_method_that_lacks_the_value_of_a_seed_comes_last(tmp_path: Path) -> None:
    given = {
        name: (value, 0.5, 500) for name, value in (("a1", 0.6), ("a2", 0.6), ("b1", 0.7), ("b2", 0.7), ("c1", 0.9))
    }
    by_model = board_of(tmp_path, given)
    board = by_method(by_model, {row.name: row.name[0] for row in by_model.rows})
    assert names(board) == ["c", "b", "a"] and not board.order_note
    lacking = Row("c", "c", (Cell(0.9, counts=(500,), models=1),), models=2)
    whole = Row("b", "b", (Cell(0.7, counts=(500,), models=2),), models=2)
    assert comparable([lacking, whole], 0) == [False, True]


def test_the_page_draws_no_front_through_it() -> None:
    spots = [
        Spot(name, Number(x), Number(y, apart=name == "few")) for name, x, y in (("few", 0.9, 0.9), ("a", 0.8, 0.8))
    ]
    assert [one.model for one in front(spots)] == ["a"]


def test_the_page_marks_it_for_its_own_sorting(tmp_path: Path) -> None:
    for model, count in (("few", 64), ("one", 100), ("two", 100)):
        add_run(tmp_path, model, [metric("clean_accuracy", 0.9), metric("sparseness/grad_cam", 0.5, n_examples=count)])
    (board,) = parse(page_of(tmp_path)).with_class("board")
    (marked,) = [node for node in board.find("td") if "data-apart" in node.attributes]
    assert marked.text.startswith("0.500 (n 64)")
