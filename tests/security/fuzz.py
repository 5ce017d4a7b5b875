"""What the tests of files from elsewhere share: whole files, and values and damage that hypothesis draws."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bench.catalog.locations import shipped
from bench.core.errors import BenchError
from bench.leaderboard.evidence.manifest import Result
from bench.leaderboard.findings import Finding
from bench.leaderboard.rows import COLUMNS
from tests.leaderboard.evidence.manifests import as_content, whole_manifest

MODEL = shipped("models") / "fashion_mnist" / "standard"
SUITE = shipped("suites") / "cross_norm.toml"
CARD = tomllib.loads((MODEL / "card.toml").read_text())
SUITE_CONTENT = tomllib.loads(SUITE.read_text())
SUITES = [tomllib.loads(path.read_text()) for path in sorted(SUITE.parent.glob("*.toml"))]
FINDING = Finding("private", "note", "private", "private")
MANIFEST = as_content(whole_manifest(status="finished", result=Result(counters={"claims": 1}, findings=[FINDING])))
ROW = dict.fromkeys(COLUMNS, "x") | {
    "suite_version": 1, "eps": 0.1, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n_examples": 3, "seed": 0,
    "seconds": 1.0, "direction": "higher", "unit": "share", "prominence": "usual",
}  # fmt: skip
fuzz = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.text(max_size=20),
    st.just("../../etc/passwd"),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)


def answers(call: Callable[[], object]) -> object:
    """The call's value, or the BenchError it raised, which must be one line; anything else fails the test."""
    try:
        return call()
    except BenchError as error:
        assert str(error) and "\n" not in str(error)
        return error


def places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into nested dicts and lists."""
    found = [at] if at else []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return found + [place for key, value in items for place in places(value, (*at, key))]


def with_value(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


def damaged(draw: Any, content: bytes) -> bytes:
    """Some bytes of it overwritten, taken out or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=6)) + content[at + draw(st.integers(0, 6)) :]
    return content
