"""Metrics on axes of matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.core.threat import NORM_LABELS

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
    for (metric, attack_name, norm), curve in rows.groupby(["metric", "attack", "norm"], sort=False):
        ordered = curve.sort_values("eps")
        label = " ".join(
            part
            for part in (str(metric).replace("_", " "), str(attack_name), NORM_LABELS.get(str(norm), str(norm)))
            if part
        )
        (line,) = ax.plot(ordered["eps"], ordered["value"], marker="o", label=label)
        ax.fill_between(ordered["eps"], ordered["ci_low"], ordered["ci_high"], alpha=0.15, color=line.get_color())
    ax.set_xlabel("radius, pixels in [0, 1]")
    ax.set_ylabel("value, 95 % interval")
    ax.legend()


def _draw_bars(ax: Axes, rows: pd.DataFrame) -> None:
    names = [" ".join(str(part) for part in (row.metric, row.attack, row.norm) if part) for row in rows.itertuples()]
    errors = [(rows["value"] - rows["ci_low"]).clip(lower=0), (rows["ci_high"] - rows["value"]).clip(lower=0)]
    ax.barh(names, rows["value"], xerr=errors)
    ax.invert_yaxis()
    ax.set_xlabel("value, 95 % interval")
