"""The figures of a study: those of its kind, and the pictures that its file declares."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.leaderboard.best_known import is_external
from bench.leaderboard.evidence.records import read_records
from bench.protocols.manifold.metrics import kept
from bench.reporting.figures import manifold_figure, new_figure, roar_figure, save_figure
from bench.reporting.plots import one_attack, robustness_figure
from bench.studies.effects import Material
from bench.studies.names import Group, expand
from bench.studies.pictures import draw_picture
from bench.studies.plan import StudyRequest
from bench.studies.study import Ordering
from bench.training.boundary_tilt import TiltStudy, logits

_SIDE = 1.1
_GRID = 100
_CLASS_COLOURS = ("#0072b2", "#e69f00")


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
            made["tilt"] = _tilt_figure(material.tilt)
        elif figure_name == "robustness":
            for suite in sorted(set(rows.loc[rows["metric"] == "robust_accuracy", "suite"])):
                of_suite = one_attack(rows[(rows["suite"] == suite) & ~is_external(rows)])
                made[f"robustness_{suite}"] = robustness_figure(of_suite, list(dict.fromkeys(of_suite["model"])))
        elif figure_name == "roar":
            made.update(_retraining_figures(rows))
        elif figure_name == "manifold":
            made.update(_manifold_figures(request, rows))
    return made


def _retraining_figures(rows: pd.DataFrame) -> dict[str, Figure]:
    """A panel for each net, of means over its training seeds."""
    figures = {}
    for suite in sorted({name for name in rows["suite"] if name.startswith(("roar", "kar"))}):
        of_suite = rows[(rows["suite"] == suite) & (rows["metric"] == "retrained_accuracy")]
        curves: dict[str, Any] = {}
        for net, own in of_suite.groupby(of_suite["model"].str.replace(r"_seed\d+$", "", regex=True), sort=False):
            lines: dict[str, list[tuple[float, float]]] = {}
            for subject, value in own.groupby("subject", sort=False)["value"].mean().items():
                name, share = str(subject).split("/")
                if name != "unmasked":
                    lines.setdefault(name, []).append((float(share) / 100, value))
            seeds = own["model"].nunique()
            curves[f"{net}, {seeds} seeds" if seeds > 1 else net] = {
                name: tuple(zip(*sorted(points), strict=True)) for name, points in lines.items()
            }
        figures[f"curves_{suite}"] = roar_figure(curves, suite)
    return figures


def _manifold_figures(request: StudyRequest, rows: pd.DataFrame) -> dict[str, Figure]:
    """A panel for each order of nets that a claim is about, a curve each for all images of a group's training seeds."""
    of_suite = rows[rows["metric"] == "manifold_distance"].drop_duplicates("model", keep="last")
    prefix = request.study.scale(request.scale).prefix
    runs = dict(zip(of_suite["model"].str.removeprefix(prefix), of_suite["run_id"], strict=True))
    claims = [claim for claim in request.study.claims_at(request.scale) if isinstance(claim, Ordering)]
    orders = [claim.models[::-1] for claim in claims if claim.of.metric == "manifold_distance"]
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for order in orders or [list(runs)]:
        for group in order:
            for run in (runs[name] for name in expand(group, runs) if name in runs):
                path = request.leaderboard / "runs" / run / "examples.parquet"
                if path.is_file():
                    records = read_records(path)
                    chosen = records.loc[kept(records, "fooled_reference"), "adversarial_distance"]
                    curves = panels.setdefault(_name(order[-1]) if orders else "", {})
                    curves.setdefault(_name(group), (records["clean_distance"].tolist(), []))[1].extend(chosen)
    return {"manifold": manifold_figure(panels)} if panels else {}


def _name(group: Group) -> str:
    return (group if isinstance(group, str) else group[0]).removesuffix("+")


def _tilt_figure(study: TiltStudy) -> Figure:
    """The data, then each net's regions and adversarial points of class 0 in red, an arrow from its mean to theirs.

    Source: Bridging, section 2.2.
    """
    figure, panels = new_figure(4, width=3.6, height=3.8)
    _points(panels[0], study)
    panels[0].set_title("data")
    ticks = torch.linspace(-_SIDE, _SIDE, _GRID)
    grid = torch.cartesian_prod(ticks, ticks)
    first = study.data.labels == 0
    for axes, (strength, weights) in zip(panels[1:], study.weights.items(), strict=True):
        of_class = logits(weights, grid[None])[0]
        second = (of_class[:, 1] - of_class[:, 0]).view(_GRID, _GRID).t().numpy()
        levels = [-1e9, 0.0, 1e9]
        axes.contourf(ticks.numpy(), ticks.numpy(), second, levels=levels, colors=_CLASS_COLOURS, alpha=0.25)
        _points(axes, study)
        adversarial = study.adversarial[strength][first]
        across, up = adversarial.numpy().T
        axes.scatter(across, up, s=1, color="#d62728", linewidths=0, rasterized=True)
        start, end = study.data.means[0].tolist(), adversarial.mean(0).tolist()
        arrow = {"arrowstyle": "->", "color": "black", "linewidth": 1.5}
        axes.annotate("", xy=(end[0], end[1]), xytext=(start[0], start[1]), arrowprops=arrow)
        nets = [net for net in study.nets if net.strength == strength]
        tilt = sum(net.tilt_from_means for net in nets) / len(nets)
        axes.set_title(f"{strength}: {tilt:.1f}° from the means' line", fontsize=10)
    for axes in panels:
        axes.set(xlim=(-_SIDE, _SIDE), ylim=(-_SIDE, _SIDE), aspect="equal")
    return figure


def _points(axes: Axes, study: TiltStudy) -> None:
    for label, colour in enumerate(_CLASS_COLOURS):
        points = study.data.points[study.data.labels == label].numpy()
        axes.scatter(points[:, 0], points[:, 1], s=1, color=colour, linewidths=0, rasterized=True)
