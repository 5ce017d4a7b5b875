"""What an evaluation gives back: metrics, records, and how a notebook shows them."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.leaderboard.findings import Finding
from bench.leaderboard.labels import full_label
from bench.leaderboard.metrics import keys_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from bench.leaderboard.evidence.adversarial import AdversarialImages

_MOST_PANELS = 4
"""Of curves of other metrics than robust accuracy; a suite may have dozens."""


@dataclass(frozen=True, repr=False)
class Result:
    """An evaluation: its metrics as a frame, the records behind them, and what there was to remark.

    Attributes:
        frame: a row a metric: metric, subject, attack, norm, eps, value, ci_low, ci_high, n_examples; shares are
            fractions.
        records: a row an image, attack, norm and radius, as the suite's protocol writes them.
        folder: where the evidence lies; None where nothing was kept.
        adversarial: with `save_adversarial=True` the smallest adversarial image of every example and norm, as arrays
            `ids` (n,), positions in the test split, `norms` (n,), `images` (n, C, H, W) float32 in [0, 1], and
            `predictions` (n,), what the model says of them.
    """

    model: str
    suite: str
    frame: pd.DataFrame
    records: pd.DataFrame = field(repr=False)
    findings: list[Finding]
    counters: dict[str, int]
    seconds: float
    folder: Path | None
    adversarial: AdversarialImages | None = field(default=None, repr=False)

    def value(
        self,
        metric: str,
        *,
        subject: str | None = None,
        attack: str | None = None,
        norm: str | None = None,
        eps: float | None = None,
    ) -> float:
        """The one value of that metric, `eps` as the suite has it; raises BenchError if there is none or several.

        What the metric is of can also be part of its name: `stability/cosine/gradient`.
        """
        wanted = {"subject": subject, "attack": attack, "norm": norm, "eps": eps}
        rows = self.frame[
            (self.frame["metric"] == metric) | (self.frame["metric"] + "/" + self.frame["subject"] == metric)
        ]
        if rows.empty:
            raise unknown_name(metric, set(self.frame["metric"]), "metric")
        named = rows
        for name, value in wanted.items():
            rows = rows if value is None else rows[rows[name] == value]
        if len(rows) != 1:
            raise _not_one(rows if len(rows) else named, metric, wanted)
        return float(rows["value"].iloc[0])

    def plot(self, *others: Result, width: float | None = None) -> Figure:
        """Curves over the radius, one panel a norm, from clean accuracy at 0; bars where there is no radius.

        Args:
            others: results of the same suite, drawn beside this one.
            width: of the whole in inches, for a paper: `result.plot(width=3.25).savefig("curves.pdf")`.

        Raises:
            BenchError: results of several suites, or two of one name; a width that is not from 1 to 40.
        """
        from bench.reporting.figures import new_figure
        from bench.reporting.plots import curves_figure, one_attack, robustness_figure

        if width is not None and not 1 <= width <= 40:
            raise BenchError(f"width {width!r} is not from 1 to 40 inches.")
        results = (self, *others)
        models = [one.model for one in results]
        if len({one.suite for one in results}) > 1 or len(set(models)) < len(models):
            asked = ", ".join(one._title() for one in results)
            raise BenchError(
                f"these cannot be told apart or compared: {asked}; take one suite, and a model_id for each."
            )
        rows = one_attack(pd.concat([one.frame.assign(model=one.model) for one in results]))
        if (rows["metric"] == "robust_accuracy").any():
            figure = robustness_figure(rows, models, width=width)
        elif rows["eps"].notna().any():
            curves = rows[rows["eps"].notna()]
            first = curves[["metric", "subject", "attack", "norm"]].drop_duplicates()[:_MOST_PANELS]
            figure = curves_figure(curves.merge(first), models, width=width)
        else:
            figure, axes = new_figure(len(results), width=(width or 6.0 * len(results)) / len(results))
            for ax, one in zip(axes, results, strict=True):
                value, low, high = (one.frame[name] for name in ("value", "ci_low", "ci_high"))
                errors = [(value - low).clip(lower=0), (high - value).clip(lower=0)]
                ax.barh([full_label(key) for key in keys_of(one.frame)], value, xerr=errors)
                ax.invert_yaxis()
                ax.set(xlabel="value, 95 % interval", title=one.model)
        figure.suptitle(f"{', '.join(models)} under {self.suite}", fontsize="medium")
        return figure

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


def _not_one(rows: pd.DataFrame, metric: str, wanted: Mapping[str, object]) -> BenchError:
    """The error where a metric's rows differ in what was not named, or none of them has what was."""
    choices = {name: values for name in wanted if len(values := rows[name].drop_duplicates().tolist()) > 1}
    open_ones = {name: values for name, values in choices.items() if wanted[name] is None} or choices
    said = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
    listed = "; ".join(f"{name} of {', '.join(map(str, values))}" for name, values in open_ones.items())
    return BenchError(f"metric {metric!r}{', ' * bool(said)}{said} is not one row; name {listed}.")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)
