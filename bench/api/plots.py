"""Metrics on axes of matplotlib."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.leaderboard.labels import full_label
from bench.leaderboard.metrics import keys_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_metrics(ax: Axes, frame: pd.DataFrame) -> None:
    """Curves over the radius, one a norm; a bar for each metric where there is no radius."""
    curves = frame[frame["eps"].notna()]
    if len(curves):
        _draw_curves(ax, curves)
    else:
        _draw_bars(ax, frame)


def _draw_curves(ax: Axes, rows: pd.DataFrame) -> None:
    for _, curve in rows.groupby(["metric", "subject", "attack", "norm"], sort=False):
        ordered = curve.sort_values("eps")
        key = replace(keys_of(curve)[0], eps=None)
        (line,) = ax.plot(ordered["eps"], ordered["value"], marker="o", label=full_label(key))
        ax.fill_between(ordered["eps"], ordered["ci_low"], ordered["ci_high"], alpha=0.15, color=line.get_color())
    ax.set_xlabel("radius, pixels in [0, 1]")
    ax.set_ylabel("value, 95 % interval")
    ax.legend()


def _draw_bars(ax: Axes, rows: pd.DataFrame) -> None:
    names = [full_label(key) for key in keys_of(rows)]
    errors = [(rows["value"] - rows["ci_low"]).clip(lower=0), (rows["ci_high"] - rows["value"]).clip(lower=0)]
    ax.barh(names, rows["value"], xerr=errors)
    ax.invert_yaxis()
    ax.set_xlabel("value, 95 % interval")
