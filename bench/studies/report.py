"""What a study leaves behind: tables as CSV and Markdown, figures, and verdict.md."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.core.errors import bench_command
from bench.core.files import write_atomically
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.labels import full_label
from bench.leaderboard.metrics import keys_of
from bench.leaderboard.rows import METRIC_COLUMNS
from bench.leaderboard.statistics.intervals import t_interval
from bench.protocols.manifold.metrics import kept
from bench.reporting.figures import (
    distances_figure,
    manifold_figure,
    roar_figure,
    robustness_figure,
    save_figure,
    scatter_figure,
)
from bench.studies.claims import VERDICTS, Judgement
from bench.studies.computations import Computations
from bench.studies.plan import StudyPlan, StudyRequest
from bench.studies.study import expand
from bench.studies.tilt_figure import tilt_figure
from bench.training.boundary_tilt import STRENGTHS, TiltStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TILT_QUANTITIES = ("tilt", "tilt_from_means", "perturbation_angle", "minor_offset", "nearest_distance")
_TILT_RERUN = {
    "standard": (47.0, 36.5, 44.3, 0.509, 0.477),
    "weak": (20.6, 10.1, 19.2, 0.141, 0.105),
    "strong": (10.6, 0.4, 8.1, 0.064, 0.035),
}
"""Means over five seeds of an independent re-implementation (the paper prints no such numbers)."""


_RESULTS = ["run_id", "model", "suite", *METRIC_COLUMNS]
"""What else a run's rows share is in leaderboard.csv and in the run's manifest."""


def write_tables(folder: Path, rows: pd.DataFrame, judgements: Sequence[Judgement], tilt: TiltStudy | None) -> None:
    """claims.csv, results.csv and results.md, and tilt.csv and tilt.md where that experiment was run."""
    claims = [
        [
            judgement.claim.id, judgement.verdict, _cell(judgement.effect), _cell(judgement.low), _cell(judgement.high),
            judgement.count, judgement.claim.published, judgement.reason, judgement.claim.kind,
            "" if judgement.seeds is None else str(judgement.seeds), _p(judgement), judgement.gates,
            "yes" if judgement.claim.headline else "",
        ]
        for judgement in judgements
    ]  # fmt: skip
    header = [
        "claim", "verdict", "effect", "ci_low", "ci_high", "n", "published", "detail", "kind", "seeds", "p_adjusted",
        "gates", "headline",
    ]  # fmt: skip
    write_atomically(folder / "claims.csv", _csv(header, claims))
    write_atomically(folder / "results.csv", rows[_RESULTS].to_csv(index=False, lineterminator="\n").encode())
    write_atomically(folder / "results.md", _results(rows).encode())
    if tilt is not None:
        header, table = _tilt_table(tilt)
        write_atomically(folder / "tilt.csv", _csv(header, table))
        write_atomically(folder / "tilt.md", _markdown(header, table).encode())


def _tilt_table(tilt: TiltStudy) -> tuple[list[str], list[list[str]]]:
    header = ["net", "training eps", "quantity", "mean", "ci_low", "ci_high", "seeds", "independent rerun"]
    table = []
    for strength, eps in STRENGTHS.items():
        nets = [net for net in tilt.nets if net.strength == strength]
        reruns = (*_TILT_RERUN[strength], None, None)
        for name, rerun in zip((*_TILT_QUANTITIES, "accuracy", "flip_rate"), reruns, strict=True):
            values = np.array([getattr(net, name) for net in nets])
            low, high = t_interval(values)
            numbers = [f"{number:.4g}" for number in (values.mean(), low, high)]
            table.append([strength, f"{eps:g}", name, *numbers, str(len(nets)), "" if rerun is None else f"{rerun:g}"])
    return header, table


def _results(rows: pd.DataFrame) -> str:
    parts = []
    for suite in dict.fromkeys(rows["suite"]):
        of_suite = rows[rows["suite"] == suite]
        labels = [full_label(key) for key in keys_of(of_suite)]
        cells = [f"{row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]" for _, row in of_suite.iterrows()]
        table = of_suite.assign(label=labels, cell=cells).drop_duplicates(["label", "model"], keep="last")
        wide = table.pivot_table(index="label", columns="model", values="cell", aggfunc="last", sort=False).fillna("")
        body = [
            [str(label), *(str(cell) for cell in row)] for label, row in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        parts.append(f"## {suite}\n\n" + _markdown(["metric", *(str(name) for name in wide.columns)], body))
    return "\n".join(parts)


def write_figures(
    request: StudyRequest, rows: pd.DataFrame, tilt: TiltStudy | None, computed: Computations
) -> list[str]:
    """Draw what the study declares and the rows allow; the names of the figures drawn."""
    made: dict[str, Figure] = {}
    for figure_name in request.study.figures:
        if figure_name == "tilt" and tilt is not None:
            made["tilt"] = tilt_figure(tilt)
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
            made.update(_stability_figure(request, computed))
    for name, figure in made.items():
        save_figure(figure, request.output / "figures", name)
    return list(made)


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


def write_verdict(
    request: StudyRequest, plan: StudyPlan, judgements: Sequence[Judgement], figures: Sequence[str], rows: pd.DataFrame
) -> None:
    """verdict.md: the headlines, every claim with effect, interval, n and the published value, what differs."""
    study = request.study
    claims, checks = ([one for one in judgements if (one.claim.kind == "check") == check] for check in (False, True))
    again = bench_command("reproduce", study.name, scale=request.scale)
    lines = [
        f"# {study.name}: {study.paper}",
        "",
        *_headlines(claims),
        f"Scale {request.scale}, {study.dataset}, seed {request.seed}. {_counts(claims)} of {len(claims)} claims. "
        f"Repeat it with `{again}`.",
        "",
        "A claim is *supported* when the whole 95 % interval of its effect lies on its side and its p-value, adjusted",
        "by Holm over the claims of this study, is at most .05; *suggestive* when that holds with fewer than three",
        "training seeds a side or rests on a suggestive control; *not supported* when it holds of the other side; else",
        "*undecided*, as is all that rests on a failed control. Intervals cover images and seeds, not the choice of",
        "data set, net or hyper-parameters.",
        "",
    ]
    for judgement in claims:
        lines += _claim_lines(judgement)
    if checks:
        lines += [
            "# Checks of the implementation",
            "",
            f"Identities, no claims: {_counts(checks)} of {len(checks)}.",
            "",
        ]
    for judgement in checks:
        lines += _claim_lines(judgement)
    lines += ["## What differs from the paper", "", *(f"- {text}" for text in study.differences), ""]
    if plan.left_out:
        lines += ["## Left out", "", *(f"- {text}" for text in plan.left_out), ""]
    if figures:
        lines += ["## Figures", "", *(f"![{name}](figures/{name}.png)" for name in figures), ""]
    runs = sorted(set(rows["run_id"])) if len(rows) else []
    lines += ["## Evidence", "", f"{len(runs)} runs, named in plan.json; their rows are in results.csv.", ""]
    write_atomically(request.output / "verdict.md", "\n".join(lines).encode())


def _headlines(judgements: Sequence[Judgement]) -> list[str]:
    """A sentence that can be quoted, with figure and interval, of each claim that the study puts first."""
    lines: list[str] = []
    for judgement in (one for one in judgements if one.claim.headline):
        text, verdict, reason = judgement.claim.text.rstrip("."), judgement.verdict.capitalize(), judgement.reason
        failed = f"; it rests on {judgement.gates}" if judgement.verdict.endswith("(control failed)") else ""
        lines.append(f"{len(lines) + 1}. {text}. *{verdict}*: {_interval(judgement)}{reason}{failed}.")
    return [*lines, ""] if lines else []


def _interval(judgement: Judgement) -> str:
    if judgement.effect is None:
        return ""
    effect, low, high = (_cell(number) for number in (judgement.effect, judgement.low, judgement.high))
    return f"effect {effect}, 95 % interval [{low}, {high}]; "


def _counts(judgements: Sequence[Judgement]) -> str:
    counts = {word: sum(judgement.verdict == word for judgement in judgements) for word in VERDICTS}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _claim_lines(judgement: Judgement) -> list[str]:
    claim = judgement.claim
    lines = [f"## {claim.id}: {judgement.verdict}", "", claim.text, ""]
    if judgement.effect is not None:
        p = "" if judgement.p is None else f"adjusted p {_p(judgement)}; "
        lines.append(f"- {_interval(judgement)}{p}{judgement.count}")
    lines.append(f"- {judgement.reason}")
    if judgement.gates:
        lines.append(f"- rests on {judgement.gates}")
    lines.append(f"- published: {claim.published or 'no number of the paper could be recovered'}")
    return [*lines, ""]


def _p(judgement: Judgement) -> str:
    return "" if judgement.p is None else f"{judgement.p:.2g}"


def _cell(number: float | None) -> str:
    return "" if number is None else f"{number:.4f}"


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue().encode()


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
