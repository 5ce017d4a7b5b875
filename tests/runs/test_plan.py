from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from bench.api.in_memory import entry_of_net
from bench.core.errors import BenchError
from bench.runs import ready
from bench.runs.plan import RunRequest, plan_runs
from bench.runs.units import ready_model


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded, each time."""
    names: list[str] = []
    load = ready.load_model
    monkeypatch.setattr(ready, "load_model", lambda entry, device: names.append(entry.card.id) or load(entry, device))
    return names


def request(suite: Path, folder: Path, *models: str, **changes: object) -> RunRequest:
    return RunRequest(models, [str(suite)], folder, device="cpu", **changes)  # type: ignore[arg-type]


def test_the_net_that_was_checked_is_judged_so_that_it_is_built_once(
    tmp_path: Path, tiny_suite: Path, loaded: list[str]
) -> None:
    plans = plan_runs(RunRequest(["standard"], [str(tiny_suite), "union"], tmp_path, device="cpu"))
    assert {id(ready_model(plan)) for plan in plans} == {id(plans[0].net)} and loaded == ["standard"]


def test_of_several_models_none_is_kept_until_its_run(tmp_path: Path, tiny_suite: Path, loaded: list[str]) -> None:
    plans = plan_runs(request(tiny_suite, tmp_path, "standard", "at_linf"))
    assert [plan.net for plan in plans] == [None, None]
    ready_model(plans[1])
    assert loaded == ["standard", "at_linf", "at_linf"]


def test_a_net_of_the_users_own_is_made_anew_since_it_may_remember(
    tmp_path: Path, tiny_suite: Path, standard: nn.Module
) -> None:
    entry = entry_of_net(standard, "fashion_mnist", "mine", None, adaptation={})
    (plan,) = plan_runs(request(tiny_suite, tmp_path, entries=[entry]))
    assert plan.net is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "seed -1 is out of range"), ({"seed": 1 << 63}, "is out of range"),
        ({"batch_size": 0}, "0 is not a number of images"), ({"batch_size": 1 << 31}, "is not a number of images"),
        ({"examples": 0}, "0 images of fashion_mnist cannot be had; use 1 to 10000"), ({"examples": 10_001}, "10001 images"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_refused_by_name(
    tmp_path: Path, tiny_suite: Path, changes: dict[str, int], words: str
) -> None:
    with pytest.raises(BenchError, match=words) as caught:
        plan_runs(request(tiny_suite, tmp_path / "board", "standard", **changes))
    assert caught.value.options == tuple(changes) and not (tmp_path / "board").exists()


def test_what_was_asked_for_stands_beside_what_suits_suite_and_machine(tmp_path: Path, tiny_suite: Path) -> None:
    (plan,) = plan_runs(request(tiny_suite, tmp_path, "standard", batch_size=7))
    assert (plan.request.examples, plan.examples) == (None, 20)
    assert (plan.request.batch_size, plan.batch_size, plan.request.device) == (7, 7, "cpu")
    (automatic,) = plan_runs(request(tiny_suite, tmp_path, "standard"))
    assert automatic.request.batch_size is None and automatic.batch_size > 7
    assert automatic.config == plan.config, "a batch size decides nothing"
