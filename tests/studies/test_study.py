from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bench.leaderboard.metrics import MetricKey
from bench.studies.names import MetricName, expand
from bench.studies.study import Claim, Study
from tests.studies.test_claims import claim, of


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gates": ["nowhere"]}, "gates that are no claims"),
        ({"gates": ["one"]}, "gates rest on each other"),
        ({"kind": "null"}, "a null claim needs a margin"),
        ({"kind": "difference_of_differences"}, "needs `than`"),
        ({"than": {"of": of("m"), "better": "a", "worse": "b"}}, "needs `than`"),
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
