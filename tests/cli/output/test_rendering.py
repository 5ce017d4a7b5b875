"""Names out of files: whatever they hold, terminals, Markdown, LaTeX, CSV, XML and GitHub get text and nothing else."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.cli.output.board_formats import as_csv, as_latex, as_markdown, as_table
from bench.cli.output.check_output import announce, markdown_summary, show_summary, write_junit
from bench.cli.output.rendering import output, table, warn
from bench.comparison.gate import RegressionReport, Remark
from bench.leaderboard.boards import Board, Cell, Column, Row
from bench.leaderboard.metrics import MetricKey
from tests.conftest import Bench

HOSTILE = "a\x1b[31m|b\x9b\0\n::stop-commands::x [/nope] \\x {y} <b> ##[error]"


@pytest.fixture
def verdicts() -> list[RegressionReport]:
    return [
        RegressionReport(HOSTILE, HOSTILE, 1.0, [Remark("failure", "metric", HOSTILE), Remark("note", "time", HOSTILE)])
    ]


def board(model: str, column: str) -> Board:
    one = Column(MetricKey("wobble"), column, "higher", "share")
    rows = tuple(Row(name, name, (Cell(value),), "run") for name, value in ((model, 0.5), ("other", 0.25)))
    return Board(HOSTILE, {"suite": "tiny"}, (one,), rows, sort=one)


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_the_terminal_gets_no_control_characters_no_markup_and_no_commands_of_github(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verdicts: list[RegressionReport]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    output().print(HOSTILE)
    output().print(table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], right=["b"]))
    show_summary(verdicts)
    warn([HOSTILE])
    shown = "".join(capsys.readouterr())
    assert is_plain(shown) and "[/nope]" in shown
    assert not [line for line in shown.splitlines() if line.strip().startswith("::") or "##[" in line]


def test_github_gets_one_line_an_annotation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verdicts: list[RegressionReport]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    announce(verdicts)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::notice"]
    assert all(line.isprintable() for line in lines)


def test_a_summary_that_cannot_be_written_is_a_warning(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verdicts: list[RegressionReport],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary.md"))
    announce(verdicts)
    assert "cannot write the job's summary" in capsys.readouterr().err


def test_markdown_keeps_its_columns_and_obeys_no_html(verdicts: list[RegressionReport]) -> None:
    for text in (markdown_summary(verdicts), as_markdown([board(HOSTILE, HOSTILE)])):
        rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1
        assert is_plain(text) and "<b>" not in text.replace("\\<b\\>", "")


def test_latex_gets_no_command_and_no_line_out_of_a_comment() -> None:
    text = as_latex([board(HOSTILE, HOSTILE)])
    assert is_plain(text) and text.startswith("% ") and text.count("\n") == 9
    assert "\\x" not in text.split("\n", 1)[1]
    assert "\\textbf{50.0}" in text


def test_csv_gets_no_formula() -> None:
    text = as_csv([board("=1+1", "@SUM(A1)")])
    assert list(csv.reader(io.StringIO(text)))[:2] == [["suite", "model", "'@SUM(A1)"], ["tiny", "'=1+1", "0.5"]]


def test_xml_stays_xml(verdicts: list[RegressionReport], tmp_path: Path) -> None:
    write_junit(verdicts, tmp_path / "junit.xml")
    case = ElementTree.parse(tmp_path / "junit.xml").getroot().find("testcase")
    assert case is not None and "[/nope]" in str(case.get("name"))


def test_a_table_in_a_narrow_terminal_tears_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = ["metric", "bridging_at_linf_005", "ir_smoothgrad_seed1", "difference, 95 %", "examples", "p"]
    cells = ["12.3", "45.6", "+33.3 [+30.1, +36.5]", "+333 -12", "1.2e-45*"]
    output().print(table(columns, [["attribution_stability/spearman/integrated_gradients", *cells]], right=columns[1:]))
    shown = capsys.readouterr().out
    assert all(cell in shown for cell in cells) and len(shown.splitlines()) <= 12
    assert "attribution" in shown and max(map(len, shown.splitlines())) <= 80


def test_an_interval_is_a_number_too_and_is_not_torn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [["stability correct, spearman, gradient", "L-inf", "16/255", "0.9949", "[0.9948, 0.9951]"]]
    output().print(table(["metric", "norm", "radius", "value", "95 % interval"], rows, right=("radius", "value")))
    shown = capsys.readouterr().out
    columns = ["claim", "verdict", "effect", "95 % interval"]
    verdicts = ["undecided", "undecided (control failed)"]
    claims = [["adversarial_insertion_ixg_softplus", verdict, "-0.0462", "[-0.1673, +0.0780]"] for verdict in verdicts]
    output().print(table(columns, claims, right=("effect",)))
    judged = capsys.readouterr().out
    assert "undecided " in judged and "[-0.1673, +0.0780]" in judged and max(map(len, judged.splitlines())) <= 80
    assert "[0.9948, 0.9951]" in shown and "95 % interval" in shown and max(map(len, shown.splitlines())) <= 80


def test_a_union_is_shown_beside_the_radii_that_it_is_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    heads = bench("leaderboard", "--dataset", "cifar10", "--suite", "cross_norm", "--no-ranks")[1].splitlines()
    assert "union of L-inf 8/255, L2 0.5, L1 12" in " ".join(heads[:3])
    (columns,) = (line.split() for line in heads if "clean" in line and "union" in line)
    assert columns == ["model", "clean", "L-inf", "8/255", "L2", "0.5", "L1", "12", "union"], (
        "the middle of 4, 8, 12 is 8"
    )


@pytest.mark.parametrize(("models", "width", "shown"), [(0, 50, 2), (0, 49, 1), (3, 58, 2), (3, 57, 1)])
def test_a_narrow_terminal_gets_the_central_columns_and_is_told_of_the_others(
    models: int, width: int, shown: int
) -> None:
    columns = tuple(
        Column(MetricKey(name), name, "higher", "share", central=name == "first") for name in ("first", "second")
    )
    row = Row("net", "net", (Cell(0.5), Cell(0.25)), models=models)
    made = as_table(Board("title", {}, columns, (row,), sort=columns[0]), wide=False, width=width)
    assert sum(str(column.header) in ("first", "second") for column in made.columns) == shown
    assert ("1 more columns with --wide" in str(made.caption)) == (shown == 1)


def test_a_board_too_wide_for_the_terminal_loses_columns_and_tears_none() -> None:
    names = [f"agreement/spearman/gradient/method_{number}" for number in range(6)]
    columns = tuple(Column(MetricKey(name), name, "higher", "share") for name in names)
    wide = Board("title", {}, columns, (Row("bridging_at_l2_050", "net", (Cell(0.5),) * 6),), sort=columns[5])
    made = as_table(wide, wide=False, width=60)
    assert [str(column.header) for column in made.columns] == ["model", names[0], names[1], names[5]]
    assert "3 more columns with --wide" in str(made.caption)


def test_names_are_folded_at_their_joints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    output().print(table(["model", "method"], [["fashion_mnist/at", "bridging_at_linf_005"]]))
    assert "bridging_" in capsys.readouterr().out.splitlines()[3].split()[-1]


def test_what_a_program_reads_is_not_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    sentence = "word " * 60
    output().print(table(["suite", "description"], [["tiny", sentence]]))
    assert sentence.strip() in capsys.readouterr().out
