"""What runs noticed, by kind: the verdicts on gradient masking, and everything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.leaderboard.evidence.finished_runs import Run
from bench.leaderboard.findings import MASKING, Finding

_GRAVE = ("masked", "suspicious", "not judged")
_NO_SIGN = re.compile(r"(?:, )?[a-z_]+ -?0\.0 %")


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Runs that noticed the same.

    Attributes:
        name: the verdict on gradient masking, or the finding's id.
        verdict: whether it is a verdict on gradient masking.
        warns: whether a number may be wrong.
        advice: what to do; empty where the rows differ in it.
        rows: the run, its evidence, and the advice where it is the row's own.
    """

    name: str
    verdict: bool
    warns: bool
    advice: str
    rows: Sequence[tuple[Run, str, str]]


def finding_groups(runs: Sequence[Run]) -> list[FindingGroup]:
    """What weighs most first: verdicts, then warnings, then notes; of these what most runs noticed."""
    noticed: dict[tuple[bool, str], list[tuple[Run, Finding]]] = {}
    for run in sorted(runs, key=lambda run: (run.model, str(run.shared["suite"]))):
        for found in run.findings:
            verdict = found.id == MASKING
            noticed.setdefault((verdict, run.masking if verdict else found.id), []).append((run, found))
    groups = [_group(name, rows, verdict=verdict) for (verdict, name), rows in noticed.items()]
    return sorted(groups, key=_order)


def _group(name: str, rows: Sequence[tuple[Run, Finding]], *, verdict: bool) -> FindingGroup:
    advice = {found.advice for _, found in rows}
    shared = advice.pop() if len(advice) == 1 else ""
    warns = name in _GRAVE if verdict else any(found.severity != "note" for _, found in rows)
    told = [
        (run, _signs(found.evidence) if verdict else found.evidence, "" if shared else found.advice)
        for run, found in rows
    ]
    return FindingGroup(name, verdict, warns, advice=shared, rows=told)


def _order(group: FindingGroup) -> tuple[bool, int, bool, int, str]:
    gravity = _GRAVE.index(group.name) if group.name in _GRAVE else len(_GRAVE)
    return not group.verdict, gravity, not group.warns, -len(group.rows), group.name


def _signs(evidence: str) -> str:
    """A verdict's evidence without the verdict, and without the signs that nothing was seen of."""
    _, _, rest = evidence.partition("; ")
    head, colon, signs = rest.partition(": ")
    seen = _NO_SIGN.sub("", signs).removeprefix(", ")
    if seen == signs:
        return rest or evidence
    return f"{head}{colon}{seen}; every other sign 0 %" if seen else f"{head}{colon}every sign 0 %"
