"""Copies what the studies' verdicts begin with into leaderboard/README.md: `python docs/make_findings.py`.

A test holds what is committed against what this would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LEADERBOARD = Path(__file__).parents[1] / "leaderboard"
PAGE = LEADERBOARD / "README.md"
_BLOCK = re.compile(r"(<!-- findings: .*? -->\n).*(<!-- end of findings -->)", re.DOTALL)
_CITATION = re.compile(r"(.*\(.*arXiv [\d.]+\))(.*)")
_COUNTS = re.compile(r"\d[^.]* of \d+ claims")
_FINDING = re.compile(r"^(\d+\. .* interval \[[^]]*\])", re.MULTILINE)


def main() -> None:
    """Write the findings anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The README as the verdicts would have it."""
    text = PAGE.read_text(encoding="utf-8")
    return _BLOCK.sub(lambda block: block[1] + "\n".join(findings()) + "\n" + block[2], text)


def findings() -> Iterator[str]:
    """For each study how many claims stand, and the sentences that its verdict begins with, up to the interval."""
    named: set[str] = set()
    for verdict in sorted(LEADERBOARD.glob("studies/*/verdict.md")):
        first, *_ = verdict.read_text(encoding="utf-8").split("\n## ")
        paper = first.splitlines()[0].removeprefix("# ").partition(": ")[2]
        citation = _CITATION.fullmatch(paper)
        cited, on = citation.groups() if citation else (paper, "")
        paper, named = f"The same paper{on}" if cited in named else paper, named | {cited}
        name = verdict.parent.name
        counts = _COUNTS.search(first)
        about = f"{paper}. {counts[0]}." if counts else f"{paper}."
        yield from ("", f"### [{name}](studies/{name}/verdict.md)", "", about, "")
        yield from (f"{one}." for one in _FINDING.findall(first))


if __name__ == "__main__":
    main()
