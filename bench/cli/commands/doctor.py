"""`bench doctor`: what is installed, which devices and data sets are at hand, what is wrong and how to mend it."""

from __future__ import annotations

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, Json, LeaderboardDir, Registry
from bench.cli.output.rendering import marked, output, table
from bench.core.errors import BenchError


def doctor(
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    data_dir: DataDir = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Check the installation: versions, devices, data sets, models, suites, leaderboard."""
    from bench.reporting.diagnostics import diagnose

    checks = list(diagnose(leaderboard, data_dir, registry))
    healthy = all(check.ok for check in checks)
    if as_json:
        from bench.cli.output.json_output import print_json

        print_json("doctor", healthy=healthy, checks=checks)
    else:
        rows = [[one.subject, "ok" if one.ok else marked("[red]wrong[/]"), one.detail] for one in checks]
        output().print(table(["subject", "", "detail"], rows))
    if not healthy:
        raise BenchError("something is wrong; the lines marked above say what and how to mend it.")
