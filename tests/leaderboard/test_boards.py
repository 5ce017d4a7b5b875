from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.cli.output.board_formats import as_csv, as_latex, as_markdown
from bench.core.errors import BenchError
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.leaderboard.views import by_method, pareto_front
from tests.leaderboard.rows import row


def boards_of(tmp_path: Path, rows: list[dict[str, Any]], sort: str | None = None) -> list[Board]:
    by_run: dict[str, list[dict[str, Any]]] = {}
    for entry in rows:
        by_run.setdefault(entry["run_id"], []).append(entry)
    for group in by_run.values():
        append_rows(tmp_path, group)
    return make_boards(read_leaderboard(tmp_path), sort)


def labels(board: Board, *, central: bool = False) -> list[str]:
    return [column.label for column in board.columns if column.central or not central]


def names(board: Board) -> list[str]:
    return [row.name for row in board.rows]


def values(board: Board, name: str = "standard") -> list[float | None]:
    (cells,) = [row.cells for row in board.rows if row.name == name]
    return [None if cell is None else cell.value for cell in cells]


@pytest.mark.parametrize(
    "change", [{"suite_version": 2}, {"n_examples": 200}, {"suite_sha256": "d" * 64}, {"data_sha256": "d" * 64}]
)
def test_rows_that_cannot_be_compared_are_never_in_one_table(tmp_path: Path, change: dict[str, Any]) -> None:
    boards = boards_of(tmp_path, [row("a"), row("b", model="other", **change)])
    assert [names(board) for board in boards] in ([["standard"], ["other"]], [["other"], ["standard"]])
    assert len({board.title for board in boards}) == 2, "nor do two tables read alike"


def test_the_latest_run_of_a_model_counts(tmp_path: Path) -> None:
    rows = [
        row("a", value=0.1, finished_at="2026-01-02T00:00:00+00:00"),
        row("b", value=0.7, finished_at="2026-01-03T00:00:00+00:00"),
    ]
    (board,) = boards_of(tmp_path, rows)
    assert values(board) == [0.7]


def test_two_runs_of_a_model_are_never_mixed(tmp_path: Path) -> None:
    rows = [row("a", eps=0.1, value=0.1), row("a", eps=0.2, value=0.05), row("b", eps=0.1, value=0.7)]
    (board,) = boards_of(tmp_path, rows)
    assert [one for one in values(board) if one is not None] == [0.7]


def test_models_are_sorted_and_columns_stand_in_reading_order(tmp_path: Path) -> None:
    rows = []
    for model, value in (("weak", 0.2), ("strong", 0.6)):
        rows += [
            row(model, model=model, metric="union_accuracy", norm="all", eps=None, value=value),
            row(model, model=model, norm="l2", eps=1.5, value=value),
            row(model, model=model, norm="linf", eps=0.1, value=1 - value),
            row(model, model=model, metric="clean_accuracy", attack="", norm="", eps=None, value=0.9),
        ]
    (board,) = boards_of(tmp_path, rows)
    assert labels(board) == ["clean", "L-inf 0.1", "L2 1.5", "union"]
    assert names(board) == ["strong", "weak"]
    (by_linf,) = boards_of(tmp_path, [], sort="L-inf 0.1")
    assert names(by_linf) == ["weak", "strong"]


def test_an_unknown_sort_column_suggests_the_nearest(tmp_path: Path) -> None:
    append_rows(tmp_path, [row()])
    with pytest.raises(BenchError, match=r"did you mean L-inf 0\.1"):
        make_boards(read_leaderboard(tmp_path), "Linf 0.1")


def test_no_rows_make_no_boards() -> None:
    from bench.leaderboard.rows import COLUMNS

    assert make_boards(pd.DataFrame({name: [] for name in COLUMNS})) == []


def test_the_pareto_front_holds_what_nothing_beats(tmp_path: Path) -> None:
    rows = []
    for model, clean, robust in (("a", 0.9, 0.1), ("b", 0.8, 0.5), ("c", 0.7, 0.4), ("d", 0.8, 0.5), ("e", 0.9, 0.05)):
        rows += [
            row(model, model=model, metric="clean_accuracy", attack="", norm="", eps=None, value=clean),
            row(model, model=model, norm="linf", eps=0.1, value=robust),
        ]
    (board,) = boards_of(tmp_path, rows)
    front = pareto_front(board, ("clean", "L-inf 0.1"))
    assert names(front) == ["a", "b", "d"] and front.title.endswith("Pareto front of clean and L-inf 0.1, 3 of 5")
    with pytest.raises(BenchError, match="unknown column"):
        pareto_front(board, ("clean", "beauty"))


def test_seeds_are_taken_together_with_their_spread(tmp_path: Path) -> None:
    rows = [row(name, model=name, value=value) for name, value in (("a", 0.5), ("a1", 0.7), ("b", 0.9))]
    (board,) = boards_of(tmp_path, rows)
    grouped = by_method(board, {"a": "x", "a1": "x", "b": "y"})
    assert names(grouped) == ["y", "x"] and [row.models for row in grouped.rows] == [1, 2]
    assert values(grouped, "y") == [pytest.approx(0.9)] and values(grouped, "x") == [pytest.approx(0.6)]
    (cell,) = grouped.rows[1].cells
    assert cell is not None and cell.spread == pytest.approx(0.2 / 2**0.5)


def test_the_best_of_a_column_follows_its_direction_and_subsets_stay_on_the_board(tmp_path: Path) -> None:
    rows = []
    for model, value in (("weak", 0.8), ("strong", 0.3)):
        rows += [
            row(model, model=model, metric="taps/cosine/gradient", attack="frame", value=value),
            row(model, model=model, metric="taps_clean/cosine/gradient", attack="frame", value=value),
            row(model, model=model, metric="saps_correct/cosine/gradient", attack="frame", value=value, n_examples=90),
        ]
    (board,) = boards_of(tmp_path, rows)
    best = {name.split("/")[0]: board.best(place) for place, name in enumerate(labels(board))}
    assert best["taps"] == 0.3 and best["saps_correct"] == 0.8 and best["taps_clean"] is None
    (ordered,) = boards_of(tmp_path, [], sort="taps/cosine/gradient frame L-inf 0.1")
    assert names(ordered) == ["strong", "weak"]


def test_a_suite_of_many_metrics_is_shown_and_sorted_by_what_it_is_about(tmp_path: Path) -> None:
    rows = [row("net", model="net", metric="clean_accuracy", attack="", norm="", eps=None, value=0.9)]
    for eps in (0.1, 0.2):
        rows += [
            row("net", model="net", metric=f"{kind}/{measure}/gradient", attack=attack, eps=eps, value=0.5)
            for kind in ("saps", "taps")
            for measure in ("cosine", "ssim")
            for attack in ("frame", "top_k", "worst")
        ]
    (board,) = boards_of(tmp_path, rows)
    assert labels(board, central=True) == [
        "clean",
        "saps/cosine/gradient frame L-inf 0.2",
        "saps/cosine/gradient worst L-inf 0.2",
        "taps/cosine/gradient frame L-inf 0.2",
    ]
    assert board.sort.label == labels(board, central=True)[1]


def test_what_stands_after_each_component_is_kept_for_the_wide_table(tmp_path: Path) -> None:
    rows = [row("a", metric="robust_accuracy", attack="autoattack", norm="linf", eps=0.1)]
    rows += [
        row("a", metric="robust_accuracy_after", attack=name, norm="linf", eps=0.1) for name in ("apgd-ce", "square")
    ]
    rows.append(row("a", metric="clean_accuracy", attack="", norm="", eps=None))
    (board,) = boards_of(tmp_path, rows)
    assert labels(board, central=True) == ["clean", "L-inf 0.1"] and len(board.columns) == 4


def test_distances_and_corruptions_have_plain_names_in_reading_order(tmp_path: Path) -> None:
    found = {"linf": "sweep", "l2": "sweep", "l1": "sweep", "l0": "sigma_zero"}
    smallest = [row("a", metric="median_distance", attack=found[norm], norm=norm, eps=None) for norm in found]
    (board,) = boards_of(tmp_path / "distances", smallest)
    assert labels(board) == ["median L-inf", "median L2", "median L1", "median L0"]
    assert board.sort.label == "median L-inf"
    plain = {"norm": "", "eps": None}
    corrupted = [
        row("a", metric="corruption_accuracy", attack=kind, **plain) for kind in ("jpeg", "all", "gaussian_blur")
    ]
    corrupted.append(row("a", metric="corruption_accuracy_5", attack="gaussian_blur", **plain))
    (board,) = boards_of(tmp_path / "corruptions", corrupted)
    assert labels(board) == ["all corruptions", "gaussian blur", "jpeg", "gaussian blur 5"]
    assert labels(board, central=True) == ["all corruptions", "gaussian blur", "jpeg"]
    assert board.sort.label == "all corruptions"


def test_metrics_that_would_be_called_alike_keep_columns_of_their_own(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a", eps=eps, value=eps) for eps in (0.0156861, 0.0156863)])
    (board,) = make_boards(read_leaderboard(tmp_path))
    assert values(board) == [0.0156861, 0.0156863]
    assert labels(board)[0] == "L-inf 0.01569" and len(set(labels(board))) == 2


def test_numbers_that_nobody_has_stay_on_the_board(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a", value=None)])
    (board,) = make_boards(read_leaderboard(tmp_path))
    assert values(board) == [None] and labels(board) == ["L-inf 0.1"]


def test_a_front_of_one_column_is_its_best(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a", model="good", value=0.9)])
    append_rows(tmp_path, [row("b", model="bad", value=0.1)])
    (board,) = make_boards(read_leaderboard(tmp_path))
    assert names(pareto_front(board, ("L-inf 0.1", "L-inf 0.1"))) == ["good"]


def test_a_board_is_sorted_by_what_judges_a_model_where_there_is_such_a_metric(tmp_path: Path) -> None:
    rows = [
        row("a", metric="agreement/spearman/gradient/smoothgrad", attack="", norm="", eps=None),
        row("a", metric="randomisation/spearman/gradient/linear", attack="", norm="", eps=None),
        row("a", metric="clean_accuracy", attack="", norm="", eps=None),
    ]
    (board,) = boards_of(tmp_path, rows)
    assert board.sort.label == "randomisation/spearman/gradient/linear" and board.sort.lower_first


def test_what_a_protocol_of_any_name_declares_as_its_headline_comes_first_and_sorts(tmp_path: Path) -> None:
    names = {"stripes": "usual", "dots": "detail", "errors": "headline"}
    rows = [
        row("a", metric=name, attack="", norm="", eps=None) | {"prominence": prominence, "direction": "lower"}
        for name, prominence in names.items()
    ]
    rows.append(row("a", metric="clean_accuracy", attack="", norm="", eps=None))
    (board,) = boards_of(tmp_path, rows)
    assert labels(board) == ["clean", "errors", "stripes", "dots"]
    assert labels(board, central=True) == ["clean", "errors"]
    assert board.sort.label == "errors" and board.sort.lower_first


def test_where_all_values_are_near_one_people_read_what_they_lack_and_files_keep_the_values(tmp_path: Path) -> None:
    near = {"lga": (0.999912, 0.9), "standard": (0.999089, 0.98), "hessian": (0.9996, 0.99)}
    rows = [
        row(model, model=model, metric="stability/cosine/gradient", attack="uniform", eps=eps, value=value)
        | {"direction": "higher", "unit": "number", "ci_low": value - 1e-5, "ci_high": value}
        for model, values in near.items()
        for eps, value in zip((4 / 255, 8 / 255), values, strict=True)
    ]
    (board,) = boards_of(tmp_path, rows)
    first, second = board.columns
    assert (first.from_one, second.from_one) == (True, False)
    assert first.heading == f"1 - {first.label}" and second.heading == second.label
    assert board.place(first.heading) == 0 and first.shows_least_first and not second.shows_least_first
    assert names(board) == ["lga", "hessian", "standard"] and board.best(0) == 0.999912  # as it is measured
    cell = board.rows[0].cells[0]
    assert cell is not None and cell.value == 0.999912
    shown = first.shown(cell)
    assert [shown.value, shown.ci_low, shown.ci_high] == pytest.approx([0.000088, 0.000088, 0.000098])
    assert "| 1 - stability/cosine/gradient uniform L-inf 4/255 |" in as_markdown([board])
    assert "| lga | **0.000088 \\[0.000088, 0.000098\\]** | 0.9 " in as_markdown([board], intervals=True)
    assert "0.999912" in as_csv([board]) and "1 - " not in as_csv([board])
    assert "$1 -$ stability" in as_latex([board])


@pytest.mark.parametrize("value", [0.9799, 1.0, 1.001])
def test_values_far_from_one_or_beyond_it_are_read_as_they_are(tmp_path: Path, value: float) -> None:
    entry = row("a", metric="target_alignment", attack="", norm="", eps=None, value=value)
    (board,) = boards_of(tmp_path, [entry | {"direction": "higher", "unit": "number"}])
    assert not board.columns[0].from_one
