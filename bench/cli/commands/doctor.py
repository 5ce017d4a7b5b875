"""`bench doctor`: what is installed, which devices and data sets are at hand, what is wrong and how to mend it."""

from __future__ import annotations

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, LeaderboardDir, Registry
from bench.core.errors import BenchError


def doctor(
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD, data_dir: DataDir = None, registry: Registry = None
) -> None:
    """Check the installation: versions, devices, data sets, models, suites, leaderboard."""
    from bench.cli.output.rendering import marked, output, table
    from bench.reporting.diagnostics import diagnose

    rows, healthy = [], True
    for check in diagnose(leaderboard, data_dir, registry):
        healthy = healthy and check.ok
        rows.append([check.subject, "ok" if check.ok else marked("[red]wrong[/]"), check.detail])
    output().print(table(["subject", "", "detail"], rows))
    if not healthy:
        raise BenchError("something is wrong; the lines marked above say what and how to mend it.")
