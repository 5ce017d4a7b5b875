from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from bench.leaderboard.rows import COLUMNS
from bench.reporting.figures import figure_bytes
from bench.studies import figures
from bench.studies.pictures import Picture, draw_picture
from bench.studies.values import Values
from tests.leaderboard.rows import row

ROBUST = {"suite": "main", "metric": "robust_accuracy", "attack": "sweep", "norm": "linf", "eps": 0.1}
CLEAN = {"suite": "main", "metric": "clean_accuracy"}
CURVES = [{"name": "trained", "groups": [["weak", "weak_seed*"], "strong"]}, {"name": "other", "groups": ["absent"]}]


def values(tmp_path: Path) -> Values:
    numbers = {"weak": (0.9, 0.2), "weak_seed1": (0.88, 0.3), "strong": (0.8, 0.5), "half_done": (0.7, None)}
    found = []
    for model, (clean, robust) in numbers.items():
        shared = {"model": model, "suite": "main"}
        found.append(row(f"run-{model}", **shared, metric="clean_accuracy", attack="", norm="", eps=None, value=clean))
        if robust is not None:
            found.append(row(f"run-{model}", **shared, value=robust))
    return Values(tmp_path, pd.DataFrame(found, columns=list(COLUMNS)))


def picture(**changes: Any) -> Picture:
    return Picture(**{"name": "front", "title": "A front.", "x": CLEAN, "y": [ROBUST], "curves": CURVES, **changes})


def places(figure: Any, panel: int = 0) -> list[list[tuple[float, float]]]:
    """The points that each line joins."""
    lines = [container.lines[0] for container in figure.axes[panel].containers]
    return [[(round(float(x), 4), round(float(y), 4)) for x, y in line.get_xydata()] for line in lines]


def test_a_group_stands_at_the_mean_of_its_seeds_with_their_range_as_bars(tmp_path: Path) -> None:
    drawn = draw_picture(picture(), values(tmp_path))
    assert drawn is not None
    figure, caption = drawn
    assert places(figure) == [[(0.89, 0.25), (0.8, 0.5)]]
    (container,) = figure.axes[0].containers
    across, up = (bars.get_segments()[0].tolist() for bars in container.lines[2])
    np.testing.assert_allclose([across, up], [[[0.88, 0.25], [0.9, 0.25]], [[0.89, 0.2], [0.89, 0.3]]])
    assert caption == "A front. Points are means over training seeds, bars their range. Not there yet: absent."


def test_groups_without_a_measured_place_stand_where_the_study_says(tmp_path: Path) -> None:
    curves = [{"name": "trained", "groups": [["weak", "weak_seed*"], "half_done", "strong"], "at": [0.0, 0.5, 1.0]}]
    drawn = draw_picture(picture(x=None, y=[ROBUST, CLEAN], curves=curves), values(tmp_path))
    assert drawn is not None
    assert places(drawn[0]) == [[(0.0, 0.25), (1.0, 0.5)]], "what is not measured yet is left out"
    assert places(drawn[0], panel=1) == [[(0.0, 0.89), (0.5, 0.7), (1.0, 0.8)]]
    curves.append({"name": "again", "groups": ["half_done"], "at": [0.5]})  # twice in the panel that lacks it
    drawn = draw_picture(picture(x=None, y=[ROBUST, CLEAN], curves=curves), values(tmp_path))
    assert drawn is not None
    assert drawn[1].endswith(" Not there yet: half_done (robust accuracy (sweep, L-inf 0.1)).")


def test_a_profile_has_a_metric_at_each_place(tmp_path: Path) -> None:
    curves = [{"name": "a", "groups": [["weak", "weak_seed*"]]}, {"name": "b", "groups": ["strong"]}]
    drawn = draw_picture(
        picture(x=None, y=[CLEAN, ROBUST], curves=curves, profile=True, labels=["c", "r"]), values(tmp_path)
    )
    assert drawn is not None
    found = places(drawn[0])
    assert [[y for _, y in line] for line in found] == [[0.89, 0.25], [0.8, 0.5]]
    assert [[round(x) for x, _ in line] for line in found] == [[0, 1], [0, 1]] and found[0][0] != found[1][0]
    assert [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()] == ["c", "r"]


def test_a_picture_of_nothing_is_not_drawn(tmp_path: Path) -> None:
    assert draw_picture(picture(curves=CURVES[1:]), values(tmp_path)) is None
    assert draw_picture(picture(x={**CLEAN, "suite": "elsewhere"}), values(tmp_path)) is None


def test_the_drawing_is_small_keeps_its_words_and_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (draw_picture(picture(), values(tmp_path)) for _ in range(2))
    assert first is not None and second is not None
    drawing = figure_bytes(first[0], "svg")
    assert drawing == figure_bytes(second[0], "svg") and len(drawing) < 20_000
    assert b">trained</text>" in drawing and not re.search(rb' d="[^"]*\.\d{3}', drawing)
    ElementTree.fromstring(drawing)
    styles, names = (set(re.findall(one, drawing)) for one in (rb"\.(s\d+)\{", rb' id="([^"]+)"'))
    assert set(re.findall(rb'class="(\w+)"', drawing)) == styles, "each style is said, and none for nothing"
    assert set(re.findall(rb'(?:href="|url\()#([^")]+)', drawing)) == names


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"x": None}, "needs `at`"),
        ({"curves": [{"name": "a", "groups": ["weak"], "at": [1.0]}]}, "needs `at`"),
        ({"profile": True}, "a profile has no x"),
        ({"labels": ["a", "b"]}, "labels are as many as y"),
        ({"log": ["z"]}, "log names x or y"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        picture(**changes)


def test_a_curve_of_robustness_is_of_the_worst_of_a_suites_own_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[pd.DataFrame] = []
    monkeypatch.setattr(figures, "robustness_figure", lambda rows, _: drawn.append(rows))
    rows = pd.DataFrame([row(attack=name, subject="") for name in ("sweep", "square", "worst", "external:x")])
    request: Any = SimpleNamespace(study=SimpleNamespace(figures=["robustness"]))
    figures._figures(request, rows, material=SimpleNamespace(tilt=None))  # type: ignore[arg-type]
    assert drawn[0]["attack"].tolist() == ["worst"]
