"""docs/json.md against what the commands print: every field that is documented, and no other, of the type it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.reporting import diagnostics
from tests.conftest import Bench

PAGE = Path(__file__).parents[3] / "docs" / "json.md"
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,),
    "null": (type(None),),
}  # fmt: skip
Fields = dict[str, str]


def _tables() -> dict[str, Fields]:
    """Command -> path -> type, with what every document has, and comparisons written out."""
    tables: dict[str, list[Fields]] = {}
    chapter = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            chapter = line[3:]
        elif line.startswith("| field"):
            tables.setdefault(chapter, []).append({})
        elif line.startswith("| `"):
            path, kind = line.split("|")[1:3]
            tables[chapter][-1][path.strip(" `")] = kind.strip()
    (head,), comparison = tables.pop(""), tables["compare"].pop()
    found = {}
    for name, (own,) in tables.items():
        fields = head | own
        for path in [path for path, kind in fields.items() if kind == "a comparison"]:
            del fields[path]
            fields |= {f"{path}.{inner}": kind for inner, kind in comparison.items()}
        found[name] = fields
    return found


def _leaves(value: Any, path: str, objects: set[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and path not in objects:
        for name, one in value.items():
            yield from _leaves(one, f"{path}.{name}" if path else name, objects)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one, f"{path}[]", objects)
    else:
        yield path, value


def _held(printed: str) -> set[str]:
    """The fields of a document, all of them documented and of their type."""
    document = json.loads(printed, parse_constant=pytest.fail)  # neither NaN nor Infinity
    fields = _tables()[document["command"]]
    seen = set()
    for path, value in _leaves(document, "", {path for path, kind in fields.items() if kind == "object"}):
        assert path in fields, f"{path} of {document['command']} is not documented"
        allowed = [one for kind in fields[path].split(" or ") for one in KINDS[kind]]
        assert type(value) in allowed, f"{path} is {value!r}, not {fields[path]}"
        seen.add(path)
    return seen


def _missing(command: str, *printed: str) -> set[str]:
    """What is documented of a command and stands in none of its documents."""
    return set(_tables()[command]) - set().union(*map(_held, printed))


def test_run_check_compare_and_leaderboard_print_what_is_documented(
    bench: Bench, tiny_suite: Path, tmp_path: Path
) -> None:
    board = ("--leaderboard", tmp_path)
    judged = ("--suite", tiny_suite, "--examples", 5)
    ran = [bench("run", "--model", name, *judged, "--json", *board)[1] for name in ("lga", "standard")]
    failures = {f"failures[].{name}" for name in ("model", "suite", "reason")}  # of none
    assert _missing("run", *ran) == failures
    arguments = ("--model", "standard", *judged, "--baseline", tmp_path)
    code, checked, _ = bench("check", *arguments, "--time-factor", 1e-9, "--json")
    assert code == 0 and json.loads(checked)["passed"]
    assert _missing("check", checked) - failures == {"verdicts[].metrics[].gained[]", "verdicts[].metrics[].lost[]"}
    strict = json.loads(bench("check", *arguments, "--time-factor", 0, "--json", "--strict")[1])
    assert not strict["passed"] and {one["model"] for one in strict["verdicts"]} == {"fashion_mnist/standard"}
    assert strict["not_compared"] == [{"dataset": "fashion_mnist", "model": "lga", "suite": "tiny"}]
    compared = [bench("compare", *pair, "--json", *board)[1] for pair in (("lga", "standard"), ("standard", "lga"))]
    unseen = {path for path in _missing("compare", *compared) if not path.startswith("comparisons[].unpaired[]")}
    assert unseen == {"skipped[]", "comparisons[].doubts[]"}
    shown = [bench("leaderboard", *board, *more)[1] for more in (["--json"], ["--format", "json", "--by", "method"])]
    assert _missing("leaderboard", *shown) == set()
    runs = {json.loads(one)["runs"][0]["run_id"] for one in ran}
    assert {row["run_id"] for row in json.loads(shown[0])["boards"][0]["rows"]} == runs


def test_models_suites_and_datasets_print_what_is_documented(bench: Bench, tmp_path: Path) -> None:
    assert _missing("models", bench("models", "--json")[1], bench("models", "show", "standard", "--json")[1]) == set()
    (tmp_path / "bad.toml").write_text("layout = 3")
    assert _missing("datasets", bench("datasets", "--data-dir", tmp_path, "--json")[1]) == set()
    suites = [bench("suites", "--json")[1], bench("suites", "show", "cross_norm", "--json")[1]]
    assert _missing("suites", *suites) <= {"suites[].extends[]"}
    verified = bench("models", "verify", "standard", "--examples", 5, "--json")[1]
    assert _missing("models verify", verified) == set()


def test_doctor_prints_what_is_documented_also_where_something_is_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [diagnostics.Check("torch", True, "2"), diagnostics.Check("models", False, "damaged")]
    monkeypatch.setattr(diagnostics, "diagnose", lambda *_: iter(found))
    code, printed, _ = bench("doctor", "--json")
    assert code == 2 and not json.loads(printed)["healthy"]
    assert _missing("doctor", printed) == set()
