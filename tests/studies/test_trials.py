"""How many settings were tried for each method, which a comparison of fronts rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.studies.plan import StudyPlan, StudyRequest
from bench.studies.reproduce import _trials, reproduce
from bench.studies.study import Study
from tests.studies.test_claims import Made, method, of


def tried(folder: Path, **settings: list[int]) -> None:
    """A tuning.csv with a trial of each recipe for each setting."""
    keys = [(recipe, setting) for recipe, own in settings.items() for setting in own]
    rows = [{"recipe": recipe, "changed": f'{{"weight": {setting}}}', "seed": 0} for recipe, setting in keys]
    path = folder / "fashion_mnist" / "tuning.csv"
    path.parent.mkdir(parents=True)
    digests = {"recipe_sha256": "c" * 64, "data_sha256": "d" * 64}
    pd.DataFrame(rows).assign(**digests, minutes=1.5).to_csv(path, index=False)


def nothing(*_: object) -> Any:
    """What watches the runs, of which there are none."""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRequest:
    """A study with one front, its values made up: method a is above b at equal x."""
    made: dict[Any, Any] = {}
    methods = {
        "better": method("a", [(0.9, 0.25), (0.85, 0.35)], made),
        "worse": method("b", [(0.92, 0.1), (0.8, 0.35), (0.7, 0.55)], made),
    }
    front = {"id": "front", "text": "", "statistic": "front", "of": of("m"), "matched": of("x"), **methods}
    content = {
        "schema_version": 1, "name": "n", "paper": "p", "dataset": "fashion_mnist", "differences": [], "figures": [],
        "scales": {"quick": {"suites": {}, "models": ["nowhere"], "seconds": {}}}, "claims": [front],
    }  # fmt: skip
    monkeypatch.setattr("bench.studies.reproduce.shipped", lambda kind: tmp_path / "shipped" / kind)
    monkeypatch.setattr("bench.studies.reproduce.Values", lambda *_: Made(made))
    monkeypatch.setattr("bench.studies.reproduce._write", lambda *_, **__: None)
    (tmp_path / "registry").mkdir()
    study = Study.model_validate(content)
    return StudyRequest(study, "quick", tmp_path / "out", tmp_path / "board", registry=tmp_path / "registry")


def test_a_trial_in_two_registries_counts_once_and_others_add_up(asked: StudyRequest, tmp_path: Path) -> None:
    assert _trials(asked) == {}
    tried(tmp_path / "shipped" / "models", a=[1, 2], b=[1, 2, 3])
    assert _trials(asked) == {"a": 2, "b": 3}
    tried(tmp_path / "registry", a=[2, 4])
    assert _trials(asked) == {"a": 3, "b": 3}
    tried(asked.models_folder, b=[3, 5], c=[1])
    assert _trials(asked) == {"a": 3, "b": 4, "c": 1}


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        ([1, 2], "supported"),  # what the shipped models were chosen by, once more
        ([4], "supported"),  # as many as b had
        ([4, 5], "suggestive"),
    ],
)
def test_all_registries_trials_reach_the_verdict(
    asked: StudyRequest, tmp_path: Path, again: list[int], verdict: str
) -> None:
    tried(tmp_path / "shipped" / "models", a=[1, 2], b=[1, 2, 3])
    tried(tmp_path / "registry", a=again)
    (front,) = reproduce(asked, StudyPlan([]), watch=nothing).judgements
    assert front.verdict == verdict
    assert ("a had more tuning trials" in front.reason) == (verdict == "suggestive")
    assert f"{2 + len(set(again) - {1, 2})} of a against 3 of b" in front.reason
