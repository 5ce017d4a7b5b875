"""What `bench check` says: a table, annotations and a summary on GitHub, a JUnit file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import typer
from rich.text import Text

from bench.cli.output.rendering import literal, markdown, marked, output, printable, table, warn
from bench.comparison.gate import RegressionReport
from bench.core.files import write_atomically
from bench.leaderboard.labels import full_label
from bench.runs.failures import Failure

_LEVELS = {"failure": "error", "warning": "warning", "note": "notice"}


def show_summary(verdicts: Sequence[RegressionReport]) -> None:
    """A table of the verdicts; below it what changed, one remark a line."""
    rows: list[list[str | Text]] = []
    for verdict in verdicts:
        state = marked("[green]passed[/]" if verdict.passed else "[bold red]worse[/]")
        rows.append([verdict.model, verdict.suite, state, f"{verdict.seconds:.1f}"])
    output().print(table(["model", "suite", "verdict", "seconds"], rows, right=("seconds",)))
    said = [
        f"{remark.severity}: {remark.text} ({one.model}, {one.suite})" for one in verdicts for remark in one.remarks
    ]
    for line in said or ["as the baseline"] * bool(verdicts):
        output().print(literal(line), soft_wrap=True)


def announce(verdicts: Sequence[RegressionReport], errors: Sequence[Failure] = (), *, annotate: bool = True) -> None:
    """Annotations, on standard output, and the job summary, where GitHub Actions runs this.

    Args:
        errors: what could not run.
    """
    if annotate and os.environ.get("GITHUB_ACTIONS") == "true":
        told = [("error", error.what, error.reason) for error in errors]
        told += [
            (_LEVELS[remark.severity], f"{verdict.model} under {verdict.suite}", remark.text)
            for verdict in verdicts
            for remark in verdict.remarks
        ]
        for level, where, text in told:
            title = _data(where).replace(":", "%3A").replace(",", "%2C")
            typer.echo(f"::{level} title={title}::{_data(text)}")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(markdown_summary(verdicts, errors))
        except OSError as error:  # the verdict is there, whether or not it can be written here
            warn([f"cannot write the job's summary {summary}: {error.strerror}"])


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def markdown_summary(verdicts: Sequence[RegressionReport], errors: Sequence[Failure] = ()) -> str:
    worse = sum(not verdict.passed for verdict in verdicts)
    counts = [f"{worse} of {len(verdicts)} worse"] * bool(worse) + [f"{len(errors)} could not run"] * bool(errors)
    head = f"## bench check: {', '.join(counts) or 'no regression'}\n"
    lines = [head, "| model | suite | verdict | seconds | what changed |", "|---|---|---|---:|---|"]
    lines += [
        f"| {markdown(error.model)} | {markdown(error.suite)} | **could not run** | | {markdown(error.reason)} |"
        for error in errors
    ]
    for verdict in verdicts:
        said = "<br>".join(markdown(f"{remark.severity}: {remark.text}") for remark in verdict.remarks)
        state = "passed" if verdict.passed else "**worse**"
        lines.append(
            f"| {markdown(verdict.model)} | {markdown(verdict.suite)} | {state} | {verdict.seconds:.1f} "
            f"| {said or 'as the baseline'} |"
        )
    return "\n".join(lines) + "\n"


def write_junit(verdicts: Sequence[RegressionReport], path: Path, errors: Sequence[Failure] = ()) -> None:
    """One test case a model and suite; raises BenchError where the file cannot be written.

    Args:
        errors: what could not run.
    """
    failures = sum(not verdict.passed for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    root = ElementTree.Element(
        "testsuite", name="bench check", tests=str(len(verdicts) + len(errors)), failures=str(failures),
        errors=str(len(errors)), time=f"{seconds:.3f}",
    )  # fmt: skip
    for error in errors:
        names = {"classname": printable(error.suite) or "bench check", "name": printable(error.model)}
        case = ElementTree.SubElement(root, "testcase", names)
        ElementTree.SubElement(case, "error", message=printable(error.reason))
    for verdict in verdicts:
        names = {"classname": printable(verdict.suite), "name": printable(verdict.model)}
        case = ElementTree.SubElement(root, "testcase", names, time=f"{verdict.seconds:.3f}")
        failed = [printable(remark.text) for remark in verdict.remarks if remark.severity == "failure"]
        if failed:
            ElementTree.SubElement(case, "failure", message=failed[0]).text = "\n".join(failed)
        notes = [remark for remark in verdict.remarks if remark.severity != "failure"]
        others = [f"{remark.severity}: {printable(remark.text)}" for remark in notes]
        others += [f"{printable(full_label(one.key))} {one.value:.6g}" for one in verdict.metrics]
        if others:
            ElementTree.SubElement(case, "system-out").text = "\n".join(others)
    ElementTree.indent(root)
    write_atomically(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
