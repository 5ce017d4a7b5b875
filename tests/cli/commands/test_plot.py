"""`bench plot`: one board as a picture of the asked-for kind, width and font."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from bench.leaderboard.table import append_rows
from bench.reporting import plots
from tests.conftest import Bench
from tests.leaderboard.rows import row


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for model, clean, robust in (("standard", 0.9, 0.1), ("at_linf", 0.8, 0.7), ("worse", 0.7, 0.05)):
        common: dict[str, Any] = {"model": model, "ci_low": 0.0, "ci_high": 1.0}
        accuracies = [
            row(f"run-{model}", metric="robust_accuracy", attack="sweep", norm=norm, eps=eps, value=robust, **common)
            for norm, eps in (("linf", 0.1), ("linf", 0.2), ("l2", 1.5))
        ]
        append_rows(tmp_path, [row(f"run-{model}", metric="clean_accuracy", value=clean, **common), *accuracies])
    return tmp_path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    write = plots.figure_bytes

    def kept(figure: Figure, kind: str) -> bytes:
        figures.append(figure)
        return write(figure, kind)

    monkeypatch.setattr(plots, "figure_bytes", kept)
    return figures


@pytest.mark.parametrize(("name", "begins"), [("a.pdf", b"%PDF"), ("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_curves_have_a_panel_a_norm_and_begin_at_the_clean_accuracy(
    name: str, begins: bytes, bench: Bench, board: Path, drawn: list[Figure]
) -> None:
    code, out, error = bench("plot", "--leaderboard", board, "--width", 3.25, "--output", board / name)
    assert code == 0, error
    assert (board / name).read_bytes().startswith(begins) and "suite" in out
    (figure,) = drawn
    first, second = figure.get_axes()
    assert [list(line.get_xdata()) for line in first.get_lines()] == [[0.0, 0.1, 0.2]] * 3
    assert [line.get_label() for line in second.get_lines()] == ["at_linf", "standard", "worse"]
    assert float(figure.get_figwidth()) == 3.25
    written = (board / name).read_bytes()
    assert bench("plot", "--leaderboard", board, "--width", 3.25, "--output", board / name)[0] == 0
    assert (board / name).read_bytes() == written


def test_a_curve_falls_to_what_others_images_have_shown_and_has_a_point_a_radius(
    bench: Bench, board: Path, drawn: list[Figure]
) -> None:
    common: dict[str, Any] = {"model": "at_linf", "ci_low": 0.0, "ci_high": 1.0, "finished_at": "2026-01-02"}
    rows = [
        row("entered", attack=attack, eps=eps, value=value, **common)
        for attack, value in (("sweep", 0.7), ("external:x", 0.4))
        for eps in (0.1, 0.2)
    ]
    append_rows(board, [row("entered", metric="clean_accuracy", value=0.8, **common), *rows])
    assert bench("plot", "--leaderboard", board, "--model", "at_linf", "--output", board / "a.svg")[0] == 0
    (line,) = drawn[0].get_axes()[0].get_lines()
    assert list(line.get_xdata()) == [0.0, 0.1, 0.2] and list(line.get_ydata()) == [0.8, 0.4, 0.4]


def test_the_legend_of_many_models_covers_no_curve(bench: Bench, board: Path, drawn: list[Figure]) -> None:
    for number in range(25):
        common: dict[str, Any] = {"model": f"a_model_of_number_{number}", "ci_low": 0.0, "ci_high": 1.0, "value": 0.5}
        robust = row(f"run-{number}", metric="robust_accuracy", attack="sweep", norm="linf", eps=0.1, **common)
        append_rows(board, [row(f"run-{number}", metric="clean_accuracy", **common), robust])
    assert bench("plot", "--leaderboard", board, "--width", 3.25, "--output", board / "a.png")[0] == 0
    legend, panel = drawn[0].legends[0].get_window_extent(), drawn[0].get_axes()[0].get_window_extent()
    assert legend.y0 >= 0 and legend.y1 <= panel.y0 and panel.height > 100


def test_a_pareto_front_names_the_models_that_no_other_beats(bench: Bench, board: Path, drawn: list[Figure]) -> None:
    asked = ("--columns", "clean, L-inf 0.1", "--output", board / "a.svg", "--leaderboard", board)
    assert bench("plot", "pareto", *asked)[0] == 0
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["1 standard", "2 at_linf"]


def test_what_cannot_be_drawn_is_refused_in_one_line(bench: Bench, board: Path) -> None:
    at = ("--leaderboard", board, "--output", board / "a.pdf")
    assert "has no stability to draw" in bench.refused("plot", "stability", *at)
    assert "is not two columns" in bench.refused("plot", "pareto", "--columns", "clean", *at)
    assert "no font 'No Such Roman' is installed" in bench.refused("plot", "--font", "No Such Roman", *at)
    assert "must end in .png, .svg or .pdf" in bench.refused(
        "plot", "--leaderboard", board, "--output", board / "a.gif"
    )
    append_rows(board, [row("other", n_examples=50, metric="clean_accuracy", value=0.5)])
    assert "50 images" in (said := bench.refused("plot", *at)) and "--table" in said
    assert not (board / "a.pdf").exists()
    assert bench("plot", *at, "--table", "100 images")[0] == 0


def test_of_tables_that_differ_in_the_suites_version_alone_the_newest_is_drawn(bench: Bench, board: Path) -> None:
    common: dict[str, Any] = {"model": "new", "suite_version": 2, "suite_sha256": "d" * 64}
    append_rows(board, [row("new", metric=name, value=0.5, **common) for name in ("clean_accuracy", "robust_accuracy")])
    drawing = ("plot", "--leaderboard", board, "--output", board / "a.png", "--font", "dejavu sans")
    assert "version 2" in bench(*drawing)[1]
    assert "version 1" in bench(*drawing, "--table", "version 1")[1]
    append_rows(board, [row("seed", seed=1, metric="clean_accuracy", value=0.5)])
    assert "these are 2 tables of 3" in bench.refused(*drawing)
    assert "no table has 'foo' in its title; there are: fashion_mnist" in bench.refused(*drawing, "--table", "foo")
