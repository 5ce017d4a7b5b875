"""What a study leaves behind: tables as CSV and Markdown, figures, and verdict.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.catalog.locations import shipped
from bench.core.errors import bench_command
from bench.core.files import csv_text, write_atomically
from bench.leaderboard.labels import full_label, small_number
from bench.leaderboard.metrics import keys_of
from bench.leaderboard.statistics.intervals import t_interval
from bench.studies.claims import VERDICTS, Judgement
from bench.studies.plan import StudyPlan, StudyRequest
from bench.training.boundary_tilt import STRENGTHS, TiltStudy

_TILT_QUANTITIES = ("tilt", "tilt_from_means", "perturbation_angle", "minor_offset", "nearest_distance")
_TILT_RERUN = {
    "standard": (47.0, 36.5, 44.3, 0.509, 0.477),
    "weak": (20.6, 10.1, 19.2, 0.141, 0.105),
    "strong": (10.6, 0.4, 8.1, 0.064, 0.035),
}
"""Means over five seeds of an independent re-implementation (the paper prints no such numbers)."""


def write_tables(folder: Path, rows: pd.DataFrame, judgements: Sequence[Judgement], tilt: TiltStudy | None) -> None:
    """claims.csv and results.md, and tilt.csv and tilt.md where that experiment was run.

    Args:
        rows: those that claims and pictures rest on.
    """
    claims = [
        [
            judgement.claim.id, judgement.verdict,
            *(effect_text(number) for number in (judgement.effect, judgement.low, judgement.high)),
            judgement.count, "ours" if judgement.claim.ours else judgement.claim.published, judgement.reason,
            judgement.claim.kind,
            "" if judgement.seeds is None else str(judgement.seeds),
            "" if judgement.p is None else f"{judgement.p:.2g}", judgement.gates,
            "yes" if judgement.claim.headline else "",
        ]
        for judgement in judgements
    ]  # fmt: skip
    header = [
        "claim", "verdict", "effect", "ci_low", "ci_high", "n", "published", "detail", "kind", "seeds", "p_adjusted",
        "gates", "headline",
    ]  # fmt: skip
    write_atomically(folder / "claims.csv", csv_text([header, *claims]).encode())
    write_atomically(folder / "results.md", _results(rows).encode())
    if tilt is not None:
        header, table = _tilt_table(tilt)
        write_atomically(folder / "tilt.csv", csv_text([header, *table]).encode())
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
    parts = ["The figures that claims and pictures rest on; the others of these runs are in leaderboard.csv.\n"]
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


def write_verdict(
    request: StudyRequest,
    plan: StudyPlan,
    judgements: Sequence[Judgement],
    figures: Mapping[str, str],
    rows: pd.DataFrame,
) -> None:
    """verdict.md: the headlines, every claim with effect, interval, n and the published value, what differs."""
    study = request.study
    claims, checks = ([one for one in judgements if (one.claim.kind == "check") == check] for check in (False, True))
    shipped_one = (shipped("suites") / "studies" / f"{study.name}.toml").is_file()
    name = study.name if shipped_one else f"{study.name}.toml"
    again = bench_command("reproduce", name, scale=request.scale, seed=request.seed or None, registry=request.registry)
    lines = [
        f"# {study.name}: {study.paper}",
        "",
        *_headlines(claims),
        f"Scale {request.scale}, {study.dataset}, seed {request.seed}. {_counts(claims)} of {len(claims)} claims. "
        f"Repeat it with `{again}`.",
        "",
        "A claim is *supported* when the whole 95 % interval of its effect lies on its side and its p-value, adjusted",
        "by Holm over the claims of this study, is at most .05; *suggestive* when that holds with fewer than three",
        "training seeds a side, after more tuning trials or on a suggestive control; *not supported* when it holds of",
        "the other side without any of these; else *undecided*, as is all that rests on a failed control. The side of",
        "a claim that two things are equal is all within its margin. Intervals cover images and training seeds; with",
        "one seed a side images (and nets retrained for ROAR and KAR) alone, though two seeds of one method may differ",
        "as much; never the choice of data set, net or hyper-parameters.",
        "",
    ]
    for judgement in claims:
        lines += _claim_lines(judgement)
    if checks:
        said = f"Identities, and what a training step costs here; no claims: {_counts(checks)} of {len(checks)}."
        lines += ["# Checks of the implementation", "", said, ""]
    for judgement in checks:
        lines += _claim_lines(judgement)
    lines += ["## What differs from the paper", "", *(f"- {text}" for text in study.differences), ""]
    if plan.left_out:
        lines += ["## Left out", "", *(f"- {text}" for text in plan.left_out), ""]
    if figures:
        lines += ["## Figures", "", *(f"![{text}](figures/{name}.svg)\n" for name, text in figures.items())]
    lines += ["## Evidence", "", f"{runs_text(rows)}, named in plan.json; their rows are in leaderboard.csv.", ""]
    write_atomically(request.output / "verdict.md", "\n".join(lines).encode())


def runs_text(rows: pd.DataFrame) -> str:
    """How many runs of which suites: `6 runs: 2 of clean (version 1), 4 of cross_norm (version 3)`."""
    runs = rows.drop_duplicates("run_id")
    counts = Counter(zip(runs["suite"], runs["suite_version"], strict=True))
    of_suites = ", ".join(f"{counts[one]} of {one[0]} (version {one[1]})" for one in sorted(counts))
    return f"{len(runs)} runs{': ' * bool(of_suites)}{of_suites}"


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
    effect, low, high = (effect_text(number) for number in (judgement.effect, judgement.low, judgement.high))
    return f"effect {effect}, 95 % interval [{low}, {high}]; "


def _counts(judgements: Sequence[Judgement]) -> str:
    counts = {word: sum(judgement.verdict == word for judgement in judgements) for word in VERDICTS}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _claim_lines(judgement: Judgement) -> list[str]:
    claim = judgement.claim
    lines = [f"## {claim.id}: {judgement.verdict}", "", claim.text, ""]
    if judgement.effect is not None:
        p = "" if judgement.p is None else f"adjusted p {judgement.p:.2g}; "
        lines.append(f"- {_interval(judgement)}{p}{judgement.count}")
    lines.append(f"- {judgement.reason}")
    if judgement.gates:
        lines.append(f"- rests on {judgement.gates}")
    published = claim.published or "no number of the paper could be recovered"
    lines.append("- ours, of no paper" if claim.ours else f"- published: {published}")
    return [*lines, ""]


def effect_text(number: float | None) -> str:
    """With four decimals, or the two digits that count where those would all be 0: `0.0012`, `-0.000021`."""
    if number is None:
        return ""
    return small_number(number) if 1e-9 < abs(number) < 5e-5 else f"{number:.4f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
