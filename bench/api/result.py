"""What an evaluation gives back: metrics, records, and how a notebook shows them."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api.plots import draw_metrics
from bench.core.errors import BenchError
from bench.leaderboard.findings import Finding

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.table import Table


@dataclass(frozen=True, repr=False)
class Result:
    """An evaluation: its metrics as a frame, the records behind them, and what there was to remark.

    Attributes:
        frame: a row a metric: metric, attack, norm, eps, value, ci_low, ci_high, n_examples. Shares are fractions.
        records: a row an image, attack, norm and radius, as the suite's protocol writes them.
        folder: where the evidence lies; None where nothing was kept.
    """

    model: str
    suite: str
    frame: pd.DataFrame
    records: pd.DataFrame = field(repr=False)
    findings: list[Finding]
    counters: dict[str, int]
    seconds: float
    folder: Path | None

    def value(
        self, metric: str, *, attack: str | None = None, norm: str | None = None, eps: float | None = None
    ) -> float:
        """The one value of that metric; raises BenchError if there is none, or more than one."""
        rows = self.frame[self.frame["metric"] == metric]
        for name, wanted in (("attack", attack), ("norm", norm)):
            rows = rows if wanted is None else rows[rows[name] == wanted]
        if eps is not None:
            rows = rows[(rows["eps"] - eps).abs() <= 1e-9 + 1e-6 * eps]
        if len(rows) != 1:
            raise BenchError(f"{len(rows)} rows have metric {metric!r}, attack {attack}, norm {norm}, eps {eps}.")
        return float(rows["value"].iloc[0])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Curves of robust accuracy over the radius, one a norm; a bar for each metric where there is no radius."""
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots()
        draw_metrics(ax, self.frame)
        ax.set_title(self._title())
        return ax

    def _title(self) -> str:
        return f"{self.model} under {self.suite}"

    def __rich__(self) -> Table:
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self._title()), box=box.SIMPLE_HEAD)
        for name in self.frame.columns:
            table.add_column(name)
        for row in self.frame.itertuples(index=False):
            table.add_row(*(escape(_cell(one)) for one in row))
        return table

    def __repr__(self) -> str:
        remarks = [f"{one.severity} {one.id}: {one.evidence}" for one in self.findings]
        return "\n".join([self._title(), self.frame.to_string(index=False, na_rep=""), *remarks])

    def _repr_html_(self) -> str:
        remarks = "".join(f"<p>{html.escape(f'{one.severity} {one.id}: {one.evidence}')}</p>" for one in self.findings)
        table = self.frame.to_html(index=False, na_rep="", escape=True)
        return f"<p><b>{html.escape(self._title())}</b></p>{table}{remarks}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)
