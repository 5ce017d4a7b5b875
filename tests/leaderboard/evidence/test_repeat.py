from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.leaderboard.evidence.finished_runs import read_runs
from bench.leaderboard.evidence.repeat import Repeat, repeat
from bench.leaderboard.table import read_leaderboard
from tests.reporting.page.pages import add_run, metric


def test_a_command_names_everything_that_decides_the_numbers(tmp_path: Path) -> None:
    add_run(tmp_path, "a b", [metric("clean_accuracy", 0.9)], examples=77, seed=3)
    (run,) = read_runs(read_leaderboard(tmp_path), tmp_path)
    here = repeat(run, {"cross_norm": "5" * 64}, {"fashion_mnist/a b": "a" * 64})
    assert here.command == "bench run --model 'fashion_mnist/a b' --suite cross_norm --examples 77 --seed 3 --fresh"
    assert here.note == ""


def test_a_command_says_what_must_be_there_first(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", [metric("clean_accuracy", 0.9)])
    (run,) = read_runs(read_leaderboard(tmp_path), tmp_path)
    changed = repeat(run, {"cross_norm": "0" * 64}, {"fashion_mnist/alpha": "b" * 64})
    assert "--suite cross_norm.toml" in changed.command
    assert "write the suite table" in changed.note and "the registry now holds other weights" in changed.note
    assert "is not in this registry" in repeat(run, {"cross_norm": "5" * 64}, {}).note


def test_numbers_from_others_images_are_not_made_again_by_the_run(tmp_path: Path) -> None:
    found = [metric("union_accuracy", 0.2, attack=attack, norm="all") for attack in ("sweep", "external:them")]
    add_run(tmp_path, "alpha", found)
    (run,) = read_runs(read_leaderboard(tmp_path), tmp_path)
    again = repeat(run, {"cross_norm": "5" * 64}, {"fashion_mnist/alpha": "a" * 64})
    assert again.note == "numbers of external:them come from others' images: enter those again with bench verify"


def own_model(folder: Path, card: dict[str, Any], **request: Any) -> Repeat:
    """How to repeat a run of a model that no registry has."""
    whole = {"schema_version": 1, "id": "mine", "method": "external", "dataset": "fashion_mnist", "description": ""}
    whole |= {"weights": {"sha256": "a" * 64, "parameters": 9}, **card}
    changes = {"card": whole, "request": request}
    add_run(folder, "mine", [metric("clean_accuracy", 0.9)], manifest=changes)
    (run,) = read_runs(read_leaderboard(folder), folder)
    assert run.manifest is not None, run.problem
    return repeat(run, {"cross_norm": "5" * 64}, {})


PROGRAM = {"kind": "python", "file": "net.py", "factory": "make", "sha256": "b" * 64}
REST = "--dataset fashion_mnist --suite cross_norm --examples 100 --seed 0 --fresh"


def test_an_own_model_is_named_as_its_run_named_it(tmp_path: Path) -> None:
    named = {"model": "nets/net.py:make", "weights": "my weights.pt", "trust_weights": True}
    found = own_model(tmp_path, {"architecture": "program", "program": PROGRAM}, named=named)
    assert found.command == f"bench run --model nets/net.py:make --weights 'my weights.pt' --trust-weights {REST}"
    assert "net.py had digest bbbbbbbbbbbb" in found.note


@pytest.mark.parametrize(
    "card",
    [{"architecture": "program", "program": PROGRAM}, {"architecture": "timm", "description": "timm:resnet18"}],
)
def test_a_run_that_does_not_say_how_its_model_was_named_has_no_command(tmp_path: Path, card: dict[str, Any]) -> None:
    found = own_model(tmp_path, card)
    assert found.command == "" and found.note.endswith("its manifest.json has the model's card")


def test_a_registered_program_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zoo").mkdir()
    named = {"registry": "zoo", "program": "nets/net.py"}
    found = own_model(tmp_path, {"architecture": "program", "program": PROGRAM}, named=named)
    begin, end = "bench run --model fashion_mnist/mine --registry zoo --program nets/net.py --suite", "--suite"
    assert found.command == begin + REST.partition(end)[2]


def test_a_registry_that_is_not_here_is_not_named(tmp_path: Path) -> None:
    found = own_model(tmp_path, {"architecture": "small_cnn", "description": "d"}, named={"registry": "elsewhere"})
    assert "--registry" not in found.command and "is not in this registry: name its registry" in found.note


def test_a_net_in_memory_has_no_command(tmp_path: Path) -> None:
    found = own_model(tmp_path, {"architecture": "Sequential"})
    assert found.command == "" and "bench.evaluate" in found.note
