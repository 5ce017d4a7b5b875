from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bench.core.errors import BenchError
from bench.leaderboard.metrics import MetricKey
from bench.studies.names import MetricName, expand
from bench.studies.study import Claim, Study, find_study, read_study
from tests.studies.test_claims import claim, of

LONE = {"name": "a", "tuning": "a", "strengths": ["a"]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gates": ["nowhere"]}, "gates that are no claims"),
        ({"gates": ["one"]}, "gates rest on each other"),
        ({"kind": "null"}, "a null claim needs a margin"),
        ({"kind": "difference_of_differences"}, "needs `than`"),
        ({"than": {"of": of("m"), "better": "a", "worse": "b"}}, "needs `than`"),
        ({"ours": True, "published": "42"}, "what is ours has no published value"),
        ({"statistic": "front", "matched": of("m"), "better": LONE, "worse": LONE}, "one of the two methods needs two"),
    ],
)
def test_claims_that_cannot_be_meant_are_refused(changed: dict[str, Any], message: str) -> None:
    scale = {"suites": {"s": "s"}, "models": ["a"], "seconds": {"s": 1.0}}
    content = {
        "schema_version": 1, "name": "n", "paper": "p", "dataset": "d", "differences": [], "figures": [],
        "scales": {"quick": scale}, "claims": [claim("one") | changed],
    }  # fmt: skip
    with pytest.raises(ValidationError, match=message):
        Study.model_validate(content)


def test_a_claim_whose_test_is_of_no_effect_takes_no_margin() -> None:
    tilt = {"id": "t", "text": "", "statistic": "tilt", "quantity": "perturbation_angle"}
    assert TypeAdapter(Claim).validate_python(tilt).margin == 0
    with pytest.raises(ValidationError, match="a tilt claim is held against 0 and takes no margin"):
        TypeAdapter(Claim).validate_python(tilt | {"margin": 9.0})


def test_the_claims_on_the_docs_page_can_be_declared_so() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "reproduce-a-paper.md").read_text()
    declared = tomllib.loads(page.split("```toml")[1].split("```")[0])["claims"]
    claims = TypeAdapter(list[Claim]).validate_python(declared)
    assert [one.kind for one in claims] == ["null", "claim", "difference_of_differences", "claim"]


def test_a_metric_less_another_keeps_its_own_name() -> None:
    name = MetricName.model_validate(of("taps/cosine/gradient", minus=of("taps_clean/cosine/gradient")))
    assert name.key == MetricKey("taps/cosine", "gradient") and name.minus is not None
    assert name.minus.key == MetricKey("taps_clean/cosine", "gradient")


def test_a_name_and_a_plus_is_the_net_and_its_seeds() -> None:
    known = {"ir", "ir_seed1", "ir_seed2", "ir_at", "ir_at_seed1"}
    assert expand(["ir+"], known) == ["ir", "ir_seed1", "ir_seed2"]
    assert expand(["ir_at+", "ir+"], known) == ["ir_at", "ir_at_seed1", "ir", "ir_seed1", "ir_seed2"]
    assert expand(["none+"], known) == ["none"]


def test_a_scale_that_the_study_has_on_other_data_is_said_to_be_there() -> None:
    with pytest.raises(BenchError, match="study ir has quick; the scale paper is on cifar10 and mnist") as caught:
        find_study("ir").scale("paper")
    assert caught.value.options == ("dataset",)
    with pytest.raises(BenchError, match="unknown scale of study ir 'standard'; known: quick"):
        find_study("ir").scale("standard")


def test_the_page_says_which_study_has_which_scale() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "howto" / "reproduce-a-paper.md").read_text()
    table = page.split("Which study has which scale:")[1].split("| scale |")[0].strip()
    rows = [[re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:4]] for line in table.splitlines()[2:]]
    said = {(study, dataset): scales for studies, sets, scales in rows for study in studies for dataset in sets}
    studies = [read_study(path) for path in (root / "suites" / "studies").glob("*.toml")]
    assert said == {(study.name.partition("-")[0], study.dataset): list(study.scales) for study in studies}
