"""Figures that a page quotes from a study's verdict, held against the verdict.

Seen are effects with their interval, p-values, other decimals, whole numbers of per cent or points, and counts of
claims by their verdict. Rounded figures are found with the digits that they have. Not seen are other whole numbers
(seeds, nets, radii in 255ths), numbers in words, a claim's verdict in words, and of which claim a figure is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_VERDICT = re.compile(r"\]\(\S*?studies/([\w.-]+)/verdict\.md\)")
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.) ?)")
_NUMBER = r"(?<![\w.])-?(?:\d*\.)?\d+"
_EFFECT = re.compile(rf"({_NUMBER})(?:, 95 % interval)? \[({_NUMBER}), ({_NUMBER})\]")
_P = re.compile(r"\bp (?:of |= |< )?(\d*\.\d+)")
_COUNT = re.compile(r"\b\d+ (?:supported|suggestive|not supported|undecided|claims)\b")
_FIGURE = re.compile(r"(?<![\w.])(-?(?:\d*\.\d+|\d+(?= ?%| points)))( ?%| points)?")


def quoting(page: str) -> Iterator[tuple[str, str]]:
    """Study and text of each part of a page that is about a verdict.

    A paragraph, list item or table row is about the verdict that it links; with several links each is what the text
    after it is about, the first one also what stands before it.
    """
    for block in _BLOCK.split(page):
        before, *parts = _VERDICT.split(block)
        for study, text in zip(parts[::2], parts[1::2], strict=True):
            yield study, " ".join(re.sub(r"`[^`]*`|\]\([^)]*\)", "", before + text).split())
            before = ""


def misquoted(text: str, verdict: str, shares: Sequence[str] = ()) -> list[str]:
    """The figures in a text that its verdict does not have.

    Args:
        shares: other numbers from 0 to 1 that may be quoted, in per cent.
    """
    verdict = " ".join(verdict.split())
    effects, numbers, p_values = _EFFECT.findall(verdict), re.findall(_NUMBER, verdict), _P.findall(verdict)
    counts = set(_COUNT.findall(verdict))
    wrong = [count for count in _COUNT.findall(text) if count not in counts]
    for quoted in _EFFECT.findall(text):
        if not any(all(map(_is, quoted, effect)) for effect in effects):
            wrong.append("{} [{}, {}]".format(*quoted))
    rest = _EFFECT.sub("", text)
    wrong += [f"p {p}" for p in _P.findall(rest) if not any(_is(p, value) for value in p_values)]
    for figure, unit in _FIGURE.findall(_P.sub("", rest)):
        hundredths = [f"{100 * float(number):.6f}" for number in (*numbers, *shares)] if unit else []
        if not any(_is(figure, value) for value in (*numbers, *hundredths)):
            wrong.append(figure + unit)
    return wrong


def _is(quoted: str, value: str) -> bool:
    """Whether a figure is the value, rounded to the decimals that it has."""
    decimals = len(quoted.partition(".")[2])
    return abs(float(quoted) - float(value)) <= 0.5 * 10.0**-decimals + 1e-9
