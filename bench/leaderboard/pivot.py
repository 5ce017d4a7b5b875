"""The leaderboard as people read it: models by metrics, only comparable rows side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench.core.names import unknown_name
from bench.core.threat import NORM_LABELS
from bench.leaderboard.labels import is_path, label
from bench.leaderboard.metrics import Direction, MetricKey, Unit, keys_of

if TYPE_CHECKING:
    import pandas as pd

COMPARABLE = (
    "dataset", "split", "suite", "suite_version", "suite_sha256", "data_sha256", "dependencies_sha256", "n_examples",
    "seed", "precision",
)  # fmt: skip
"""Rows are ranked together only where all of these agree."""
_ORDER = {"clean_accuracy": 0, "robust_accuracy": 1, "union_accuracy": 2}
_HEADLINES: dict[str, tuple[tuple[str, str], ...]] = {
    "stability/cosine": (("gradient", "uniform"),),
    "saps/cosine": (("gradient", "frame"), ("gradient", "worst")),
    "taps/cosine": (("gradient", "frame"),),
    "insertion": (("gradient", ""), ("gradient", "frame")),
    "deletion": (("gradient", ""), ("gradient", "frame")),
    "roar_score": (("gradient", ""), ("input_x_gradient", "")),
    "kar_score": (("gradient", ""), ("input_x_gradient", "")),
    "manifold_distance": (("fooled_reference", ""), ("fooled_itself", "")),
    "corruption_accuracy": tuple((name, "") for name in ("all", "contrast", "gaussian_blur", "gaussian_noise", "jpeg")),
    "median_distance": (("", "sweep"), ("", "sigma_zero")),
}
"""Metric -> subjects and attacks: what is shown, and comes first, of the suites that have dozens of metrics."""
_FEW = 5
"""Headlines shown at every radius, where there are no more, else at the largest; columns shown where there are none."""


@dataclass(frozen=True, slots=True)
class Board:
    """One table: the latest run of each model under one suite, data set and number of examples.

    The number of examples is a run's; a metric of its correctly classified ones alone has fewer.

    Attributes:
        title: names what all rows share.
        frame: index model, columns metric labels, fractions; best first by the sort column.
        sort: the column the rows are sorted by.
        runs: model -> id of the run its row comes from.
        keys: column -> what metric it is.
        spread: where rows are methods: the standard deviation over training seeds, else None.
        seeds: where rows are methods: how many models each stands for.
        central: the columns worth showing where space is short.
        directions, units: of each column.
    """

    title: str
    facts: dict[str, Any]
    frame: pd.DataFrame
    methods: dict[str, str]
    sort: str
    central: list[str]
    directions: dict[str, Direction]
    units: dict[str, Unit]
    runs: dict[str, str] = field(default_factory=dict)
    keys: dict[str, MetricKey] = field(default_factory=dict)
    spread: pd.DataFrame | None = None
    seeds: dict[str, int] = field(default_factory=dict)

    def best(self, column: str) -> float:
        """The best value of a column; NaN where no value is better than another."""
        values = self.frame[column]
        return {"higher": values.max, "lower": values.min, "descriptive": lambda: math.nan}[self.directions[column]]()

    def lower_is_better(self, column: str) -> bool:
        return self.directions[column] == "lower"


def make_boards(rows: pd.DataFrame, sort: str | None = None) -> list[Board]:
    """Boards of all groups of comparable rows, largest suites of each data set first.

    Raises:
        BenchError: no board has the column `sort`.
    """
    boards = []
    rows = rows.assign(n_examples=rows.groupby("run_id")["n_examples"].transform("max"))
    columns_seen: set[str] = set()
    for facts, group in rows.groupby(list(COMPARABLE), sort=True):
        latest = _latest(group)
        labels = metric_labels(latest)
        latest = latest.assign(column=[labels[key] for key in keys_of(latest)])
        columns = list(dict.fromkeys(labels.values()))
        columns_seen.update(columns)
        if sort is not None and sort not in columns:
            continue
        once = latest.drop_duplicates(["model", "column"], keep="last")
        # pivot_table drops what is NaN everywhere
        values = once.pivot(index="model", columns="column", values="value")[columns]  # noqa: PD010
        central = _central(latest, columns, labels)
        by = sort or _default_sort(columns, central)
        named: dict[str, Any] = dict(zip(COMPARABLE, facts if isinstance(facts, tuple) else (facts,), strict=True))
        title = (
            f"{named['dataset']} ({named['split']}, {named['n_examples']} images), "
            f"suite {named['suite']} version {named['suite_version']}, seed {named['seed']}"
            f"{precision_note(named['precision'])}"
        )
        methods = dict(zip(latest["model"], latest["method"], strict=True))
        directions, units = (dict(zip(latest["column"], latest[name], strict=True)) for name in ("direction", "unit"))
        keys = {label: key for key, label in labels.items()}
        runs = dict(zip(latest["model"], latest["run_id"], strict=True))
        ordered = values.sort_values(by, ascending=directions[by] == "lower", kind="stable")
        boards.append(Board(title, named, ordered, methods, by, central, directions, units, runs, keys))
    if not boards and sort is not None:
        raise unknown_name(sort, columns_seen, "metric to sort by")
    return boards


def precision_note(precision: str) -> str:
    """What a title adds where adversarial examples were not looked for in float32."""
    return "" if precision == "float32" else f", {precision} search"


def _latest(group: pd.DataFrame) -> pd.DataFrame:
    """The rows of each model's latest run."""
    order = group.assign(position=range(len(group))).sort_values(["finished_at", "position"], kind="stable")
    last_run = order.groupby("model")["run_id"].last()
    return group[group["run_id"] == group["model"].map(last_run)]


def metric_labels(rows: pd.DataFrame) -> dict[MetricKey, str]:
    """Short column names, in reading order; attacks are named only if several ran."""
    keys = sorted(set(keys_of(rows)), key=_order)
    attacks = {key.attack for key in keys if key.metric == "robust_accuracy" and key.attack != "worst"}
    labels: dict[MetricKey, str] = {}
    for key in keys:
        found = label(key, attack=len(attacks) > 1)
        # radii may differ beyond the fourth digit, and a stranger's metrics may be named like ours
        labels[key] = found if found not in labels.values() else f"{found} ({key})"
    return labels


def _order(key: MetricKey) -> tuple[Any, ...]:
    """Accuracies, headlines, the rest; by attack, or what else is measured of, then by norm and radius."""
    headline = _is_headline(key)
    place = (3, list(_HEADLINES).index(key.metric)) if headline else (_ORDER.get(key.metric, 9), 0)
    # the norms of `median_distance` come in their own order, whatever attack finds their perturbations
    of = "" if key.metric == "median_distance" else key.attack or ("" if is_path(key) else key.parts[0])
    norm = list(NORM_LABELS).index(key.norm) if key.norm in NORM_LABELS else len(NORM_LABELS)
    return *place, key.attack == "worst", of, norm, key.metric, key.subject, key.attack, key.norm, key.eps or 0.0


def _is_headline(key: MetricKey) -> bool:
    return (key.subject, key.attack) in _HEADLINES.get(key.metric, ())


def _central(rows: pd.DataFrame, columns: Sequence[str], labels: Mapping[MetricKey, str]) -> list[str]:
    """Clean, union, and each norm's middle radius; else what the suite is about, of the gradient's maps."""
    chosen = {name for name in columns if name in ("clean", "union")}
    robust = rows[rows["metric"] == "robust_accuracy"]
    for norm, group in robust.groupby("norm"):
        radii = sorted(set(group["eps"]))
        middle = f"{NORM_LABELS.get(str(norm), norm)} {radii[len(radii) // 2]:.4g}"
        chosen.update(
            label for key, label in labels.items() if key.metric == "robust_accuracy" and label.endswith(middle)
        )
    headlines = [key for key in labels if _is_headline(key)]
    if len(headlines) > _FEW:
        largest: dict[MetricKey, float] = {}
        for key in headlines:
            anywhere = replace(key, eps=None)
            largest[anywhere] = max(key.eps or 0.0, largest.get(anywhere, 0.0))
        headlines = [key for key in headlines if (key.eps or 0.0) == largest[replace(key, eps=None)]]
    chosen.update(labels[key] for key in headlines)
    if len(chosen) < 2:
        chosen.update(columns[:_FEW])
    return [name for name in columns if name in chosen]


def _default_sort(columns: Sequence[str], central: Sequence[str]) -> str:
    """The union over norms, else the first central column that is not plain accuracy."""
    union = [name for name in columns if name.startswith("union")]
    return next(iter([*union, *(name for name in central if name != "clean"), *columns]))


def by_method(board: Board, groups: Mapping[str, str]) -> Board:
    """A board with one row a group of models: means over training seeds, and their spread.

    Args:
        groups: model -> name of the group it belongs to.
    """
    labels = [groups[str(model)] for model in board.frame.index]
    grouped = board.frame.groupby(labels, sort=False)
    mean = grouped.mean().rename_axis("method")
    order = mean.sort_values(board.sort, ascending=board.lower_is_better(board.sort), kind="stable")
    counts = {str(name): int(count) for name, count in grouped.size().items()}
    methods = {name: name for name in counts}
    return replace(
        board, frame=order, methods=methods, runs={}, spread=grouped.std(ddof=1).loc[order.index], seeds=counts
    )


def pareto_front(board: Board, first: str, second: str) -> list[str]:
    """The rows that no other row equals or beats in both columns, best in `first` on top (ties kept)."""
    for name in (first, second):
        if name not in board.frame:
            raise unknown_name(name, list(board.frame.columns), "column")
    names = list(dict.fromkeys((first, second)))
    points = board.frame[names].dropna()
    signed = points * [-1 if board.lower_is_better(name) else 1 for name in names]
    front = [
        str(model)
        for model, point in signed.iterrows()
        if not ((signed >= point).all(axis=1) & (signed > point).any(axis=1)).any()
    ]
    return list(signed.loc[front].sort_values(first, ascending=False, kind="stable").index)
