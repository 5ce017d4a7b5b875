"""The regression gate: evaluate again, compare with a baseline example by example, say what became worse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from bench.catalog.models import ModelEntry
from bench.comparison.baseline import comparable_rows
from bench.comparison.compare import SuiteComparison, compare_runs
from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.leaderboard.evidence.answers import same_answers
from bench.leaderboard.evidence.manifest import Manifest, read_manifest
from bench.leaderboard.findings import Finding, masking_verdict
from bench.leaderboard.labels import full_label, near_one, read_from_one
from bench.leaderboard.metrics import Direction, Metric, Unit, keys_of
from bench.leaderboard.statistics.paired import ALPHA, Comparison, holm
from bench.leaderboard.table import read_leaderboard
from bench.runs.execute import RunOutcome

Severity = Literal["failure", "warning", "note"]
_MASKING_VERDICTS = ("no sign", "not judged", "suspicious", "masked")
_MOST_NAMED = 3
_LEAST_LACK = 1e-4
"""Taken for what a value nearer to 1 lacks to it: rounding in float32 alone moves a cosine by some 1e-7."""


@dataclass(frozen=True, slots=True)
class GateRules:
    """When a difference is a regression.

    Attributes:
        tolerance: how much worse a share may become (0.005: half a point); other metrics may become worse by this
            share of the baseline's value, or of what that lacks to 1 where tables show 1 - value.
        time_factor: how many times the baseline's seconds a run may take; None: not looked at.
        fail_on_time: slowness is a failure, and else a warning.
        strict: what of the baseline was not compared is a failure, and else a note.
        masking: verdicts on gradient masking that are a failure also where the baseline has them.
    """

    tolerance: float = 0.005
    time_factor: float | None = 3.0
    fail_on_time: bool = False
    strict: bool = False
    masking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing the gate has to say about a run."""

    severity: Severity
    kind: Literal["metric", "digest", "finding", "time", "baseline"]
    text: str


@dataclass(frozen=True)
class RegressionReport:
    """One model under one suite against its baseline; `passed` unless a remark is a failure.

    Attributes:
        comparison: the numbers, baseline first; None where nothing could be compared.
        metrics: of the new run, and `run_id` its id; empty where the verdict is of none.
        not_compared: of the verdict on what else the baseline has, (data set, model, suite) of each.
    """

    model: str
    suite: str
    seconds: float
    remarks: list[Remark] = field(default_factory=list)
    comparison: SuiteComparison | None = None
    metrics: list[Metric] = field(default_factory=list)
    not_compared: Sequence[tuple[str, str, str]] = ()
    run_id: str = ""

    @property
    def passed(self) -> bool:
        return all(remark.severity != "failure" for remark in self.remarks)


def check_regression(outcome: RunOutcome, leaderboard: Path, baseline: Path, rules: GateRules) -> RegressionReport:
    """Compare a fresh run, whose rows are in `leaderboard`, with the latest comparable one of `baseline`.

    A metric fails when it is worse, or defined on a smaller share of the images, by more than the tolerance and the
    paired test, with Holm's correction over the suite's metrics that can be worse, says that it is not chance.

    Raises:
        BenchError: the baseline has no run of this model and suite, or its evidence is damaged.
    """
    plan = outcome.plan
    old = comparable_rows(plan, baseline, but=outcome.run_id)
    rows = read_leaderboard(leaderboard)
    new = rows[rows["run_id"] == outcome.run_id]
    manifest = read_manifest(baseline / "runs" / str(old["run_id"].iloc[0]))
    remarks = list(_digest_remarks(outcome, manifest))
    if any(remark.severity == "failure" for remark in remarks):
        return _report(outcome, remarks)
    comparison = compare_runs(f"{plan.entry.card.name} under {plan.suite.name}", (old, new), (baseline, leaderboard))
    remarks += [Remark("failure", "baseline", doubt) for doubt in comparison.doubts if doubt]
    remarks += _metric_remarks(comparison, rules)
    remarks += _defined_remarks(comparison, rules)
    remarks += _unpaired_remarks(comparison, old, new, rules)
    now = set(keys_of(new))
    gone = [full_label(key) for key in keys_of(old) if key not in now and not key.is_external]
    remarks += [_unseen(gone, rules)] if gone else []
    remarks += _finding_remarks(outcome, manifest)
    if masking_verdict(outcome.findings) in rules.masking:
        remarks.append(Remark("failure", "finding", f"gradient masking: {masking_verdict(outcome.findings)}"))
    remarks += _time_remarks(outcome.seconds, float(old["seconds"].iloc[0]), rules)
    return _report(outcome, remarks, comparison)


def first_verdict(outcome: RunOutcome, leaderboard: Path, baseline: Path, rules: GateRules) -> RegressionReport:
    """As `check_regression`, where the baseline may not have this model and suite yet, or be no leaderboard yet."""
    try:
        return check_regression(outcome, leaderboard, baseline, rules)
    except BenchError as error:
        remark = Remark("note", "baseline", f"new in the baseline: {str(error).partition(';')[0]}")
        return _report(outcome, [remark])


def _report(outcome: RunOutcome, remarks: list[Remark], comparison: SuiteComparison | None = None) -> RegressionReport:
    return RegressionReport(
        outcome.plan.entry.card.name, outcome.plan.suite.name, outcome.seconds, remarks, comparison=comparison,
        metrics=outcome.metrics, run_id=outcome.run_id,
    )  # fmt: skip


def weights_remarks(entry: ModelEntry) -> list[Remark]:
    """A failure where the weights file is not the one that its card names."""
    path = entry.weights.path
    if entry.build is not None or not path.is_file() or sha256_file(path) == entry.card.weights.sha256:
        return []
    text = f"the weights {path} changed without a new card; restore the file or publish a new card"
    return [Remark("failure", "digest", text)]


def unchecked(looked_at: Sequence[tuple[str, str, str]], baseline: Path, rules: GateRules) -> RegressionReport | None:
    """Runs of the baseline that were not compared, as one more verdict; None where there is none.

    Args:
        looked_at: (data set, model, suite) of what is compared.
    """
    rows = read_leaderboard(baseline)
    left = sorted(set(zip(rows["dataset"], rows["model"], rows["suite"], strict=True)) - set(looked_at))
    if not left:
        return None
    models, suites = {one[:2] for one in looked_at}, {one[2] for one in looked_at}
    gone = {f"model {data}/{model}": None for data, model, _ in left if (data, model) not in models}
    gone |= {f"suite {suite}": None for _, _, suite in left if suite not in suites}
    gone |= {
        f"{data}/{model} under {suite}": None for data, model, suite in left
        if (data, model) in models and suite in suites
    }  # fmt: skip
    return RegressionReport("baseline", "not compared", 0.0, [_unseen(list(gone), rules)], not_compared=left)


def _unseen(names: Sequence[str], rules: GateRules) -> Remark:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    text = f"of the baseline not compared: {', '.join(names[:_MOST_NAMED])}{more}"
    return Remark("failure" if rules.strict else "note", "baseline", text)


def _digest_remarks(outcome: RunOutcome, manifest: Manifest) -> Iterator[Remark]:
    plan, before, now = outcome.plan, manifest.config, outcome.manifest.config
    trained_on = (now.training_sha256, before.training_sha256)
    for what, new, old in (("", now.data_sha256, before.data_sha256), ("training ", *trained_on)):
        if old not in ("", new):
            text = f"the {what}images differ from the baseline's ({new[:12]}, were {old[:12]}); nothing can be compared"
            yield Remark("failure", "digest", text)
    if now.program_sha256 != before.program_sha256:
        yield Remark("note", "digest", "the program that makes the net differs from the baseline's")
    card = plan.entry.card
    if now.model_sha256 == before.model_sha256:
        if plan.answers is not None and manifest.answers and not same_answers(manifest.answers, plan.answers):
            own = plan.entry.build is not None or card.program is not None
            yield Remark(
                "note" if own else "failure", "digest",
                "the weights are the baseline's, and yet the net answers otherwise on clean images: its code differs",
            )  # fmt: skip
        return
    changed = f"the weights differ from the baseline's ({now.model_sha256[:12]}, were {before.model_sha256[:12]})"
    if plan.entry.build is not None:  # named by its source: there is no card that anybody could have written
        yield Remark("note", "digest", changed)
    elif card.model_copy(update={"weights": manifest.card.weights}) == manifest.card:
        yield Remark("failure", "digest", f"{changed}, but the card says nothing new about how they came to be")
    else:
        yield Remark("note", "digest", f"{changed}, with a new card")


def _metric_remarks(comparison: SuiteComparison, rules: GateRules) -> Iterator[Remark]:
    for one, p_value in zip(comparison.comparisons, comparison.adjusted, strict=True):
        if one.direction == "descriptive":
            continue
        loss = one.difference if one.direction == "lower" else -one.difference
        allowed = _allowed((one.first, one.second), one.direction, one.unit, rules)
        values = f"from {_number(one.first, one.unit)} to {_number(one.second, one.unit)}"
        if loss < 0 and p_value <= ALPHA:
            suspicious = loss < -allowed
            more = "; suspicious unless something was done for it: read the findings" if suspicious else ""
            text = f"{full_label(one.key)} improved {values}{more}"
            yield Remark("warning" if suspicious else "note", "metric", text)
        if loss > allowed and p_value <= ALPHA:
            verb, examples = ("fell", _lost(one)) if one.direction == "higher" else ("rose", "")
            text = f"{full_label(one.key)} {verb} {values} ({one.test}, p {p_value:.2g}){examples}"
            yield Remark("failure", "metric", text)


def _lost(one: Comparison) -> str:
    ids = ", ".join(map(str, one.lost[:8])) + (", ..." if len(one.lost) > 8 else "")
    return f"; lost examples {ids}" if one.lost else ""


def _defined_remarks(comparison: SuiteComparison, rules: GateRules) -> Iterator[Remark]:
    """Metrics that are defined on fewer images than in the baseline: their means say nothing of the others."""
    adjusted = holm([one.p_value for one in comparison.defined])
    for one, p_value in zip(comparison.defined, adjusted, strict=True):
        if -one.difference > rules.tolerance and p_value <= ALPHA:
            counts = " to ".join(f"{share * one.n_examples:.0f}" for share in (one.first, one.second))
            text = f"{full_label(one.key)}: the images on which it is defined fell from {counts} of {one.n_examples}"
            yield Remark("failure", "metric", f"{text} ({one.test}, p {p_value:.2g}){_lost(one)}")


def _allowed(values: tuple[float, float], direction: Direction, unit: Unit, rules: GateRules) -> float:
    """How much worse a metric may become, of its values in the baseline and now."""
    if unit == "share":
        return rules.tolerance
    before = values[0]
    if any(read_from_one(seen, direction, unit) for seen in (values, values[:1])):
        return rules.tolerance * max(1.0 - before, _LEAST_LACK)
    return rules.tolerance * abs(before) if math.isfinite(before) else 0.0


def _unpaired_remarks(
    comparison: SuiteComparison, old: pd.DataFrame, new: pd.DataFrame, rules: GateRules
) -> Iterator[Remark]:
    """Metrics whose means over the examples cannot be tested: worse beyond the tolerance, and the intervals do not
    touch, or infinitely worse, or no number any more. What else is infinite for an example is not compared.
    """
    compared = {one.key for one in comparison.comparisons}
    before = dict(zip(keys_of(old), old.to_dict("records"), strict=True))
    for key, now in zip(keys_of(new), new.to_dict("records"), strict=True):
        if key in compared or key not in before or now["direction"] == "descriptive":
            continue
        was = before[key]
        loss = (1.0 if now["direction"] == "lower" else -1.0) * (now["value"] - was["value"])
        # where there are no intervals, too few images tell nothing
        apart = now["ci_low"] > was["ci_high"] or now["ci_high"] < was["ci_low"]
        worse = loss > _allowed((was["value"], now["value"]), now["direction"], now["unit"], rules)
        lost = key in comparison.infinite and math.isfinite(was["value"]) and math.isnan(now["value"])
        if lost or (worse and (apart or math.isinf(loss))):
            seen = [_number(one["value"], one["unit"]) for one in (was, now)]
            text = f"{full_label(key)} went from {' to '.join(seen)}{', intervals apart' * apart}"
            yield Remark("failure", "metric", text)
        elif key in comparison.infinite:
            text = f"not compared, since it is infinite for an image: {full_label(key)}"
            yield Remark("failure" if rules.strict else "note", "metric", text)


def _finding_remarks(outcome: RunOutcome, manifest: Manifest) -> Iterator[Remark]:
    """A warning, such as a sign of gradient masking, that the baseline did not have."""
    before = {finding.id: finding for finding in manifest.result.findings}
    for finding in outcome.findings:
        known = before.get(finding.id)
        said = f"{finding.id}: {finding.evidence}; {finding.advice}"
        if known is None:
            severity: Severity = "failure" if finding.severity == "warning" else "note"
            yield Remark(severity, "finding", f"new finding {said}")
        elif _gravity(finding) > _gravity(known):
            yield Remark("failure", "finding", f"graver than in the baseline, finding {said}")


def _gravity(finding: Finding) -> tuple[bool, int]:
    """A warning weighs more than a note, and masked more than suspicious."""
    verdict = masking_verdict([finding])
    return finding.severity == "warning", _MASKING_VERDICTS.index(verdict) if verdict in _MASKING_VERDICTS else 0


def _time_remarks(seconds: float, before: float, rules: GateRules) -> Iterator[Remark]:
    # a tiny run may have taken 0.00 s
    if rules.time_factor is not None and before > 0 and seconds > rules.time_factor * before:
        text = f"took {seconds:.1f} s, {seconds / before:.1f} times the baseline's {before:.1f} s"
        yield Remark("failure" if rules.fail_on_time else "warning", "time", text)


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "share" else near_one(value) or f"{value:.4g}"
