"""Writes leaderboard/ranks.json, so that `bench leaderboard` in a fresh checkout need not test all models against each
other: `python docs/make_ranks.py`, after runs were added. What it lacks, or has of other evidence, is tested as ever.

A test holds what is committed against what this would write.
"""

from __future__ import annotations

from bench.comparison.ranks import SHIPPED, shipped_ranks
from bench.core.files import json_lines, write_atomically
from bench.leaderboard.boards import make_boards
from bench.leaderboard.table import of_newest_versions, read_leaderboard


def main() -> None:
    """Write the ranks anew."""
    write_atomically(SHIPPED, content().encode())


def content() -> str:
    """The ranks of the boards that `bench leaderboard` shows, by what they rest on."""
    rows = of_newest_versions(read_leaderboard(SHIPPED.parent))
    return json_lines(dict(sorted(shipped_ranks(make_boards(rows), rows, SHIPPED.parent).items())))


if __name__ == "__main__":
    main()
