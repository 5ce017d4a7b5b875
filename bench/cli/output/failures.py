"""What a command says of runs that failed while the others went on, and of suites that it left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cli.output.rendering import messages

if TYPE_CHECKING:
    from bench.runs.failures import Failures


def tell_skipped(failures: Failures) -> None:
    """A line for each suite that was left out."""
    for (suite, where), reason in failures.skipped.items():
        messages().print(f"note skipped {suite} on {where}: {reason}", style="yellow", soft_wrap=True)


def tell_failures(failures: Failures, finished: int) -> None:
    """The list at the end, a line each."""
    for failure in failures.found:
        messages().print(f"failed {failure.what}: {failure.reason}", style="red", soft_wrap=True)
    if failures.found:
        messages().print(f"error: {len(failures.found)} failed, {finished} runs are done.", style="red")
