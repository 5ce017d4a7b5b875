"""Where all values are near 1, people read what they lack to it: in every table and plot of the command line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli.commands.run import outcome_table
from bench.cli.output.comparison_formats import Shape, as_latex, as_table
from bench.cli.output.rendering import output
from bench.comparison.compare import SuiteComparison
from bench.leaderboard.labels import read_from_one
from bench.leaderboard.metrics import Metric, MetricKey
from bench.leaderboard.statistics.paired import Comparison
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.reporting.plots import curves_figure
from tests.leaderboard.rows import row

COSINE = MetricKey("stability/cosine", "gradient", attack="uniform", norm="linf", eps=4 / 255)


def metric(key: MetricKey, value: float, ends: tuple[float, float], direction: Any) -> Metric:
    return Metric(key, value, *ends, n_examples=100, direction=direction, unit="number")


def cells(table: Any) -> list[list[str]]:
    return [[str(cell) for cell in column._cells] for column in table.columns]


@pytest.mark.parametrize(
    ("values", "direction", "unit", "expected"),
    [
        ([0.9999, 0.98], "higher", "number", True),
        ([0.9999, 0.97], "higher", "number", False),
        ([1.0, 1.0], "higher", "number", False),
        ([0.9999], "lower", "number", False),
        ([0.9999], "higher", "share", False),
        ([], "higher", "number", False),
    ],
)
def test_only_what_cannot_exceed_one_and_is_near_it_is_read_from_there(
    values: list[float], direction: Any, unit: Any, expected: bool
) -> None:
    assert read_from_one(values, direction, unit) == expected


def test_a_run_shows_what_its_values_lack_to_one() -> None:
    plan: Any = SimpleNamespace(suite=SimpleNamespace(file=SimpleNamespace(fractions={})))
    metrics = [
        metric(COSINE, 0.99991, (0.9998, 0.99996), "higher"),
        metric(MetricKey("stability/l2", "gradient"), 0.995, (0.99, 0.999), "lower"),
    ]
    outcome: Any = SimpleNamespace(plan=plan, metrics=metrics)
    names, *_, values, intervals = cells(outcome_table(outcome))
    assert names[0].startswith("1 - stability, cosine") and not names[1].startswith("1 - ")
    assert values == ["0.000090", "0.995"] and intervals == ["[0.000040, 0.00020]", "[0.99, 0.999]"]


def test_a_comparison_shows_them_too_and_the_sign_of_its_difference_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    one = Comparison(
        COSINE, "higher", "number", n_examples=50, first=0.9995, second=0.9998, ci_low=0.0003, ci_high=0.0005,
        p_value=0.001, test="signs",
    )  # fmt: skip
    found = SuiteComparison(
        "both", "tiny", "fashion_mnist", runs=("1", "2"), comparisons=[one], adjusted=[0.001], unpaired=[]
    )
    names, first, second, difference, *_ = cells(as_table(found, Shape("a", "b")))
    assert names == ["1 - stability/cosine/gradient uniform L-inf 4/255"]
    assert (first, second) == (["0.00050"], ["0.00020"])
    assert difference == ["-0.00030 [-0.00050, -0.00030]"]
    assert "$1 -$ stability/cosine" in as_latex(found, Shape("a", "b"))


def test_a_comparison_says_of_how_many_images_where_a_metric_has_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shared: dict[str, Any] = {"first": 0.5, "second": 0.75, "ci_low": 0.1, "ci_high": 0.4, "p_value": 0.5}
    clean = Comparison(MetricKey("clean"), "higher", "share", n_examples=4, test="McNemar", gained=(1,), **shared)
    mass = Comparison(MetricKey("mass"), "higher", "number", n_examples=3, test="sign flips", **shared)
    found = SuiteComparison(
        "both", "tiny", "fashion_mnist", runs=("1", "2"), comparisons=[clean, mass], adjusted=[1.0, 1.0], unpaired=[]
    )
    assert cells(as_table(found, Shape("a", "b")))[4] == ["+1 -0", "of 3"]


def test_curves_show_them_too(tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "metric": "stability/cosine", "subject": "gradient", "attack": "uniform", "norm": "linf", "direction": "higher",
        "unit": "number",
    }  # fmt: skip
    rows = [
        row(f"run-{eps}", model="a", eps=eps, value=value, ci_low=value - 0.001, ci_high=1.0, **common)
        for eps, value in ((0.1, 0.999), (0.2, 0.995))
    ]
    append_rows(tmp_path, rows)
    (axes,) = curves_figure(read_leaderboard(tmp_path), ["a"]).get_axes()
    assert axes.get_title().startswith("1 - ")
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([0.001, 0.005])


def test_on_eighty_columns_a_comparison_tears_no_word_of_a_long_name(monkeypatch: pytest.MonkeyPatch) -> None:
    key = MetricKey("stability_correct/cosine", "integrated_gradients", attack="uniform", norm="linf", eps=4 / 255)
    one = Comparison(
        key, "higher", "number", n_examples=50, first=0.5, second=0.6, ci_low=0.08, ci_high=0.12, p_value=1e-60,
        test="signs",
    )  # fmt: skip
    shares = Comparison(
        MetricKey("clean_accuracy"), "higher", "share", n_examples=50, first=0.9, second=0.8, ci_low=-0.1, ci_high=0.0,
        p_value=0.1, test="McNemar", gained=(1, 2), lost=tuple(range(30)),
    )  # fmt: skip
    found = SuiteComparison(
        "both", "tiny", "fashion_mnist", runs=("1", "2"), comparisons=[shares, one], adjusted=[0.1, 1e-60], unpaired=[]
    )
    for width, lines in (
        (80, ["stability_", "cosine/integrated_"]),
        (200, ["stability_correct/cosine/integrated_gradients"]),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        console = output()
        with console.capture() as shown:
            console.print(as_table(found, Shape("standard", "at_linf")))
        text = shown.get()
        assert all(line in text for line in lines), text
        assert max(map(len, text.splitlines())) <= width
