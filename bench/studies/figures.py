"""The figures of a study: those of its kind, and the pictures that its file declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.metrics import keys_of
from bench.protocols.manifold.metrics import kept
from bench.reporting.curve_figures import robustness_figure
from bench.reporting.figures import (
    distances_figure,
    manifold_figure,
    roar_figure,
    save_figure,
    scatter_figure,
)
from bench.studies.computations import Computations
from bench.studies.effects import Material
from bench.studies.names import expand
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
        elif figure_name == "trade_off":
            made.update(_trade_off_figures(rows))
        elif figure_name == "manifold":
            made.update(_manifold_figures(request, rows))
        elif figure_name == "stability":
            made.update(_stability_figure(request, material.computed))
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


def _trade_off_figures(rows: pd.DataFrame) -> dict[str, Figure]:
    figures = {}
    for suite in sorted({name for name in rows["suite"] if name.startswith(("roar", "kar"))}):
        score = f"{suite.split('_')[0]}_score"
        points = {}
        for model in dict.fromkeys(rows.loc[rows["suite"] == suite, "model"]):
            clean = rows[(rows["model"] == model) & (rows["metric"] == "clean_accuracy")]
            own = rows[(rows["model"] == model) & (rows["suite"] == suite) & (rows["metric"] == score)]
            own = own[own["subject"] == "gradient"]
            if len(clean) and len(own):
                row = own.iloc[-1]
                points[model] = (float(clean["value"].iloc[-1]), float(row["value"]), (row["ci_low"], row["ci_high"]))
        if points:
            label = f"{score.split('_')[0].upper()} score of the gradient map"
            figures[f"trade_off_{suite}"] = scatter_figure(points, "clean accuracy of the judged model", label)
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


def _stability_figure(request: StudyRequest, computed: Computations) -> dict[str, Figure]:
    values = {}
    for model in expand(request.study.scale(request.scale).models, computed.entries):
        if model in computed.entries:
            distances = 1.0 - computed.similarities(model, 8.0).numpy()
            half = 1.96 * distances.std(ddof=1) / np.sqrt(len(distances))
            mean = max(float(distances.mean()), 1e-7)
            # a logarithmic axis has no place for zero or less
            values[model] = (mean, max(mean - half, 0.1 * mean), mean + half)
    label = "1 - cosine of gradients under noise of 8/255"
    ordered = dict(sorted(values.items(), key=lambda item: -item[1][0]))
    return {"stability": distances_figure(ordered, label)} if values else {}
