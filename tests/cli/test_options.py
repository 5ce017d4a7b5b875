"""Options that commands share: the same ones everywhere, and help that loses nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bench.cli.commands.tune import _parse_grid
from bench.cli.main import app
from bench.cli.option_groups import ExecutorOptions, OwnModel
from bench.cli.options import parse_assignments
from bench.core.errors import BenchError
from bench.runs.plan import RunRequest, plan_runs
from tests.conftest import Bench


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


def plain(text: str) -> str:
    """Text without what a terminal does to it: line breaks, frames, and the marks of code."""
    return re.sub(r"[^\w\[\]<>=*{}:/'\"]+", "", text.replace("`", ""))


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_the_help_shows_every_word_of_every_option(bench: Bench, words: tuple[str, ...]) -> None:
    command = dict(commands())[words]
    code, out, _ = bench(*words, "--help")
    assert code == 0
    for text in (command.help, *(parameter.help for parameter in command.params)):
        assert plain(text or "") in plain(out), text


@pytest.mark.parametrize(
    ("group", "takers"),
    [
        (OwnModel, [("run",), ("saliency",), ("check",), ("verify",), ("models", "add")]),
        (ExecutorOptions, [("run",), ("check",), ("reproduce",)]),
    ],
)
def test_a_group_of_options_is_whole_wherever_it_is(group: Any, takers: list[tuple[str, ...]]) -> None:
    names = {field.name for field in fields(group)} - {"model_id"}  # `train` has one of its own
    for words, command in commands():
        given = {parameter.name for parameter in command.params} & names
        assert given == (names if words in takers else set()), words


@pytest.mark.parametrize(
    "words", [words for words, command in commands() if hasattr(command, "commands")], ids=" ".join
)
def test_an_option_before_a_subcommand_is_refused_where_it_would_be_lost(
    bench: Bench, tmp_path: Path, words: tuple[str, ...]
) -> None:
    group = dict(commands())[words]
    subcommand = next(iter(group.commands))
    for flag in (
        parameter.opts[0] for parameter in group.params if parameter.name in ("dataset", "as_json", "directory")
    ):
        given = [flag] if flag == "--json" else [flag, str(tmp_path)]
        line = f"{flag} must stand after `{subcommand}`: `bench {' '.join(words)} {subcommand} ...`."
        assert line in bench.refused(*words, *given, subcommand, "x")


@pytest.mark.parametrize("group", ["suites", "recipes", "datasets", "models"])
def test_what_a_group_lists_it_lists_by_name_too(bench: Bench, group: str) -> None:
    assert bench(group, "list") == bench(group)


@pytest.mark.parametrize("seed", ["99999999999999999999", str(1 << 63), "-1"])
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_seed_that_no_row_can_hold_is_refused_before_any_work(
    bench: Bench, tmp_path: Path, command: str, seed: str
) -> None:
    line = bench.refused(command, "--model", "standard", "--suite", "cross_norm_quick", f"--seed={seed}",
                         "--leaderboard", tmp_path / "board")  # fmt: skip
    assert "--seed" in line and not (tmp_path / "board").exists()


def test_a_seed_from_python_is_bounded_too(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"^seed 9223372036854775808 is out of range"):
        plan_runs(RunRequest(["standard"], ["cross_norm_quick"], tmp_path / "board", seed=1 << 63))


def test_settings_are_read_as_toml_has_them_and_nothing_else_is_read_out_of_them() -> None:
    given = ["epochs=3", "eps=0.1", "weight=-.5", "decay=true", "architecture=lenet", "more={depth = 28}"]
    given += ["word=a b", "two=1\nb = 2"]
    assert parse_assignments(given) == {
        "epochs": 3, "eps": 0.1, "weight": -0.5, "decay": True, "architecture": "lenet", "more": {"depth": 28},
        "word": "a b", "two": "1\nb = 2",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, "9" * 5000, str(2**63), "2020-01-01"])
def test_a_setting_that_nothing_can_hold_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(BenchError, match="--set epochs: "):
        parse_assignments([f"epochs={value}"])


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("tune", ("--grid", "eps=abc", "--grid", "eps=0.5")),
        ("tune", ("--grid", "eps=0.5,0.5", "--set", "eps=1")),
        ("train", ("--set", "eps=1", "--set", " eps =2")),
        ("train", ("--set", "compile=false", "--compile")),
    ],
)
def test_a_parameter_given_twice_is_refused(bench: Bench, tmp_path: Path, command: str, given: tuple[str, ...]) -> None:
    line = bench.refused(command, "--recipe", "at_l2", "--output", tmp_path / "t", *given)
    assert "' is given twice; give it once." in line
    assert not (tmp_path / "t").exists()


def test_a_grid_takes_lists_and_a_value_that_comes_twice_once() -> None:
    assert _parse_grid(["milestones=[100]", "eps=.5,0.5,1"]) == {"milestones": [[100]], "eps": [0.5, 1]}
