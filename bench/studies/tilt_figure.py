"""The four panels of the boundary-tilting experiment: the data, then each net's regions and adversarial points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.reporting.figures import new_figure
from bench.training.boundary_tilt import TiltStudy, logits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 1.1
_GRID = 400
_CLASS_COLOURS = ("#0072b2", "#e69f00")


def tilt_figure(study: TiltStudy) -> Figure:
    """As in Bridging, section 2.2: adversarial points of class 0 in red, an arrow from its mean to theirs."""
    figure, panels = new_figure(4, width=3.6, height=3.8)
    _points(panels[0], study)
    panels[0].set_title("data")
    ticks = torch.linspace(-_SIDE, _SIDE, _GRID)
    grid = torch.cartesian_prod(ticks, ticks)
    first = study.data.labels == 0
    for axes, (strength, weights) in zip(panels[1:], study.weights.items(), strict=True):
        regions = logits(weights, grid[None])[0].argmax(1).view(_GRID, _GRID).t()
        axes.contourf(
            ticks.numpy(), ticks.numpy(), regions.numpy(), levels=[-0.5, 0.5, 1.5], colors=_CLASS_COLOURS, alpha=0.25
        )
        _points(axes, study)
        adversarial = study.adversarial[strength][first]
        axes.scatter(
            adversarial[:, 0].numpy(), adversarial[:, 1].numpy(), s=1, color="#d62728", linewidths=0, rasterized=True
        )
        start, end = study.data.means[0], adversarial.mean(0)
        axes.annotate(
            "",
            xy=(float(end[0]), float(end[1])),
            xytext=(float(start[0]), float(start[1])),
            arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 1.5},
        )
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
