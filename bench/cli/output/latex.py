"""Boards and comparisons as LaTeX: booktabs tables; what shares a metric or a norm stands under one heading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bench.cli.output.rendering import printable
from bench.leaderboard.boards import Column
from bench.leaderboard.controls import MARK
from bench.leaderboard.labels import shared_labels
from bench.leaderboard.metrics import MetricKey

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is; the ends of an interval, `47.3 [44.2, 50.4]`, in small."""
    shown = re.sub(r"[\\~^&%$#_{}]", lambda found: _SPECIAL[found[0]], printable(text))
    shown = shown.replace("±", "$\\pm$").replace(MARK, "$^\\dagger$")
    return re.sub(r" (\[[-+0-9., ]+\])$", r" {\\scriptsize \1}", shown)


def bold(text: str) -> str:
    value, space, ends = text.partition(" [")
    return f"\\textbf{{{escaped(value)}}}" + (escaped(f" [{ends}") if space else "")


def _formulas(text: str) -> str:
    """Signs and powers of ten as formulas have them."""
    shown = re.sub(r"([0-9.]+)e-0*([0-9]+)", r"$\1\\cdot 10^{-\2}$", escaped(text))
    return re.sub(r"(?<![\w.{])([-+])(?=[0-9])", r"$\1$", shown)


def heading(text: str) -> str:
    """A label with its norm as formulas have it."""
    shown = re.sub(r"^1 - ", "$1 -$ ", escaped(text))
    shown = re.sub(r"\bL-inf\b", r"$L_\\infty$", shown)
    return re.sub(r"\bL([012])\b(?!\$)", r"$L_\1$", shown)


def grouped(columns: Sequence[tuple[MetricKey, str]]) -> list[tuple[str, list[str]]]:
    """Neighbours that share all but a radius or a subject: their heading, and what is left of each label.

    Args:
        columns: keys and the labels that they go by.

    Returns:
        headings, empty above a column that stands alone, and the labels below it.
    """
    found: list[tuple[str, list[str]]] = []
    place = 0
    while place < len(columns):
        heading_of, below = max(
            (_run(columns[place:], *start) for start in shared_labels(*columns[place])),
            key=lambda run: len(run[1]),
            default=("", []),
        )
        found.append((heading_of, below) if len(below) > 1 else ("", [columns[place][1]]))
        place += len(found[-1][1])
    return found


def _run(columns: Sequence[tuple[MetricKey, str]], shared: str, first: str) -> tuple[str, list[str]]:
    """The labels below a heading of as many columns from the first on as share it, each with another label."""
    below = [first]
    for column in columns[1:]:
        own = next((rest for one, rest in shared_labels(*column) if one == shared and rest not in below), None)
        if own is None:
            break
        below.append(own)
    return shared, below


def board_table(title: str, head: Sequence[str], columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """One table, `head` before the metrics' columns; rows are LaTeX already."""
    groups = grouped([(column.key, column.heading) for column in columns])
    names = [*head, *(name for _, below in groups for name in below)]
    above, rules, place = [" & " * (len(head) - 1)], [], len(head) + 1
    for shared, below in groups:
        above.append(f"\\multicolumn{{{len(below)}}}{{c}}{{{heading(shared)}}}" if shared else "")
        rules += [f"\\cmidrule(lr){{{place}-{place + len(below) - 1}}}"] if shared else []
        place += len(below)
    lines = [f"{' & '.join(above)} \\\\", " ".join(rules)] if rules else []
    return tabular(title, [*lines, _line(map(heading, names))], map(_line, rows), numbers=len(names) - 1)


def comparison_table(title: str, head: Sequence[str], keys: Sequence[MetricKey], rows: Sequence[Sequence[str]]) -> str:
    """One table with a row a metric, whose first cell is its label; a heading above rows that belong together."""
    lines: list[str] = []
    left = iter(rows)
    for shared, below in grouped([(key, row[0]) for key, row in zip(keys, rows, strict=True)]):
        if lines:
            lines.append("\\addlinespace")
        if shared:
            lines.append(f"\\multicolumn{{{len(head)}}}{{l}}{{{heading(shared)}}} \\\\")
        indent = "\\quad " if shared else ""
        lines += [_line([indent + heading(name), *map(_formulas, next(left)[1:])]) for name in below]
    return tabular(title, [_line(map(escaped, head))], lines, numbers=len(head) - 1)


def tabular(title: str, head: Iterable[str], body: Iterable[str], *, numbers: int) -> str:
    """A booktabs table of a column of names and so many of numbers; its title is a comment."""
    begin, end = f"\\begin{{tabular}}{{l{'r' * numbers}}}", "\\end{tabular}"
    lines = [f"% {printable(title)}", begin, "\\toprule", *head, "\\midrule", *body, "\\bottomrule", end]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
