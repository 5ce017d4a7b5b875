"""The figures of a study: those of its kind, and the pictures that its file declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.metrics import keys_of
from bench.protocols.manifold.metrics import kept
from bench.reporting.curve_figures import robustness_figure
from bench.reporting.figures import (
    manifold_figure,
    roar_figure,
    save_figure,
)
from bench.studies.effects import Material
from bench.studies.pictures import draw_picture
from bench.studies.plan import StudyRequest
from bench.studies.tilt_figure import tilt_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figures(request: StudyRequest, rows: pd.DataFrame, material: Material) -> dict[str, str]:
    """Draw what the study declares and the rows allow; the names of the figures drawn and what they show."""
    made = _figures(request, rows, material)
    captions = {name: name for name in made}
    for picture in request.study.pictures:
        if drawn := draw_picture(picture, material.values):
            made[picture.name], captions[picture.name] = drawn
    for name, figure in made.items():
        save_figure(figure, request.output / "figures", name)
    return captions


def _figures(request: StudyRequest, rows: pd.DataFrame, material: Material) -> dict[str, Figure]:
    made: dict[str, Figure] = {}
    for figure_name in request.study.figures:
        if figure_name == "tilt" and material.tilt is not None:
            made["tilt"] = tilt_figure(material.tilt)
        elif figure_name == "robustness":
            for suite in sorted(set(rows.loc[rows["metric"] == "robust_accuracy", "suite"])):
                of_suite = rows[rows["suite"] == suite]
                made[f"robustness_{suite}"] = robustness_figure(of_suite, list(dict.fromkeys(of_suite["model"])))
        elif figure_name == "roar":
            made.update(_retraining_figures(rows))
        elif figure_name == "manifold":
            made.update(_manifold_figures(request, rows))
    return made


def _retraining_figures(rows: pd.DataFrame) -> dict[str, Figure]:
    figures = {}
    for suite in sorted({name for name in rows["suite"] if name.startswith(("roar", "kar"))}):
        of_suite = rows[(rows["suite"] == suite) & (rows["metric"] == "retrained_accuracy")]
        curves: dict[str, Any] = {}
        for model in dict.fromkeys(of_suite["model"]):
            own = of_suite[of_suite["model"] == model]
            lines: dict[str, list[tuple[float, float]]] = {}
            for key, value in zip(keys_of(own), own["value"], strict=True):
                name, share = key.parts
                if name != "unmasked":
                    lines.setdefault(name, []).append((float(share) / 100, value))
            curves[model] = {name: tuple(zip(*sorted(points), strict=True)) for name, points in lines.items()}
        figures[f"curves_{suite}"] = roar_figure(curves, suite)
    return figures


def _manifold_figures(request: StudyRequest, rows: pd.DataFrame) -> dict[str, Figure]:
    of_suite = rows[rows["metric"] == "manifold_distance"]
    distances = {}
    for model in dict.fromkeys(of_suite["model"]):
        run = of_suite.loc[of_suite["model"] == model, "run_id"].iloc[-1]
        path = request.leaderboard / "runs" / run / "examples.parquet"
        if not path.is_file():
            continue
        records = read_records(path)
        chosen = records.loc[kept(records, "fooled_reference"), "adversarial_distance"]
        distances[model] = (records["clean_distance"].tolist(), chosen.tolist())
    return {"manifold": manifold_figure(distances)} if distances else {}
