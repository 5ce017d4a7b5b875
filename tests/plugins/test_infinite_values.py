"""A metric of a plug-in that is infinite for some image: told of alone, while the suite's other metrics are judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from bench.comparison.evidence import _protocol_of
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.leaderboard.table import read_leaderboard
from bench.protocols import EvaluationContext, UnitResult
from tests.conftest import Bench
from tests.plugins.test_plugins import SUITE, example

__all__ = ["example"]
Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def given(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """What the metric `lipschitz`, of which less is better, will be on the first image, and on all others, by name."""
    values = {"first": 0.5, "others": 0.5}
    evaluated, usual = example.Clean.evaluate, example.Clean.example_values

    def evaluate(self: object, context: EvaluationContext) -> UnitResult:
        result: UnitResult = evaluated(self, context)
        is_first = result.records["example_id"] == 0
        result.records["lipschitz"] = np.where(is_first, values["first"], values["others"])
        return result

    def example_values(self: object, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        found = records.set_index("example_id")["lipschitz"]
        return [*usual(self, dataset, records), ExampleValues(MetricKey("lipschitz"), found, "lower", "number")]

    _protocol_of.cache_clear()
    monkeypatch.setattr(example.Clean, "evaluate", evaluate)
    monkeypatch.setattr(example.Clean, "example_values", example_values)
    yield values


@pytest.fixture
def check(bench: Bench, tmp_path: Path, given: dict[str, float]) -> Check:
    (tmp_path / "suite.toml").write_text(SUITE)
    fixed = ("check", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--baseline", tmp_path)
    return lambda *more: bench(*fixed, "--time-factor", 0, *more)


def remarks(out: str) -> list[str]:
    return [one["text"] for verdict in json.loads(out)["verdicts"] for one in verdict["remarks"]]


@pytest.mark.parametrize(("now", "said"), [(np.inf, "inf"), (-np.inf, "nan")])
def test_a_metric_that_became_infinite_is_worse_and_the_others_are_judged(
    check: Check, given: dict[str, float], example: ModuleType, now: float, said: str
) -> None:
    assert check("--update")[0] == 0
    given["first"] = now
    example.make_zoo(confused=True)
    code, out, _ = check("--json")
    assert code == 1
    assert [text for text in remarks(out) if "lipschitz" in text] == [f"lipschitz went from 0.5 to {said}"]
    assert any(text.startswith("stripe errors rose from 0 to 1") for text in remarks(out))


@pytest.mark.parametrize(("before", "now"), [(np.inf, np.inf), (np.inf, -np.inf), (np.inf, 0.5)])
def test_one_that_was_infinite_is_one_line_and_no_regression(
    check: Check, given: dict[str, float], before: float, now: float
) -> None:
    given["first"] = before
    assert check("--update")[0] == 0
    given["first"] = now
    code, out, err = check("--json")
    assert code == 0, err
    assert remarks(out) == ["not compared, since it is infinite for an image: lipschitz"]


def test_one_that_is_infinite_both_ways_has_no_mean_and_stops_nothing(check: Check, given: dict[str, float]) -> None:
    given |= {"first": -np.inf, "others": np.inf}
    assert check("--update")[0] == 0
    code, out, _ = check("--json", "--strict")
    assert code == 1 and remarks(out) == ["not compared, since it is infinite for an image: lipschitz"]


def test_two_models_are_compared_in_what_is_finite(
    bench: Bench, check: Check, given: dict[str, float], tmp_path: Path
) -> None:
    given["first"] = np.inf
    assert check("--update")[0] == 0
    code, out, err = bench("compare", *["prototypes"] * 2, "--leaderboard", tmp_path)
    assert code == 0, err
    assert "stripe_errors" in out and "lipschitz" in out.split("not compared")[1]


def test_a_method_of_which_one_seed_is_infinite_has_a_mean_and_no_spread(
    bench: Bench, check: Check, given: dict[str, float], example: ModuleType, tmp_path: Path
) -> None:
    for name, first in (("prototypes", np.inf), ("second", 0.5)):
        example.make_zoo(name=name)
        given["first"] = first
        run = ("run", "--model", f"stripes/{name}", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path)
        assert bench(*run)[0] == 0
    assert np.isinf(read_leaderboard(tmp_path)["value"]).sum() == 1
    for more in ((), ("--by", "method"), ("--ranks",), ("--format", "markdown"), ("--format", "latex")):
        code, _, err = bench("leaderboard", "--leaderboard", tmp_path, *more)
        assert code == 0, err
