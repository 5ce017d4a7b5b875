"""The one place where an error becomes a line: it appends the flag of the option that would help."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.main import with_flags
from tests.conftest import Bench


@pytest.mark.parametrize(
    ("options", "arguments", "line"),
    [
        (("leaderboard",), ["leaderboard"], "Name another (--leaderboard)."),
        (("download", "data_dir"), ["-v", "run", "--model", "a"], "Name another (--download or --data-dir)."),
        (("model_id",), ["models", "add", "x"], "Name another (--model-id)."),
        (("leaderboard",), ["suites"], "Name another."),  # has no such option
        ((), ["run"], "Name another."),
    ],
)
def test_a_message_gets_the_flags_that_the_command_has(
    options: tuple[str, ...], arguments: list[str], line: str
) -> None:
    assert with_flags("Name another.", options, arguments) == line


def test_an_error_from_below_names_no_flag_and_the_command_line_adds_it(bench: Bench, tmp_path: Path) -> None:
    line = bench.refused("leaderboard", "--leaderboard", tmp_path)
    assert line.endswith("make one with `bench run`, or name another folder (--leaderboard).")


@pytest.mark.parametrize(
    "given",
    [["run", "--model", "a", "--leaderboard", ""], ["models", "--registry="], ["models", "--registry", "", "list"]],
)
def test_an_empty_path_is_not_the_working_directory(bench: Bench, given: list[str]) -> None:
    assert "is empty; give one, or leave the option out." in bench.refused(*given)


def test_a_mistake_in_a_subcommands_options_names_that_subcommands_help(bench: Bench) -> None:
    assert bench.refused("run", "--modle", "standard").endswith("See `bench run --help`.")
    assert bench.refused("models", "list", "--datset", "mnist").endswith("See `bench models list --help`.")
    assert bench.refused("rnu").endswith("See `bench --help`.")
    assert bench.refused("run", "--seed", "-1").endswith("equal to 0. See `bench run --help`.")
    assert "Invalid value for '--format': 'foo' is not one of" in bench.refused("leaderboard", "--format", "foo")


def test_a_picture_that_cannot_be_written_is_refused_before_the_table_is_printed(bench: Bench) -> None:
    code, out, err = bench("compare", "standard", "at_linf", "--images", "x.foo")
    assert (code, out) == (2, "") and "the picture x.foo must end in .png" in err
