from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from bench.core.bounds import OneRadius, PixelRadius, SeveralRadii, Steps
from bench.core.errors import BenchError
from bench.core.toml_files import LARGEST_FILE, Section, read_toml, validate

ODD = {
    "lists in lists": ("a = " + "[" * 5000 + "]" * 5000, "nested deeper"),
    "tables in tables": ("[" + ".".join(["a"] * 5000) + "]", "nested deeper"),
    "a whole number of many digits": ("a = " + "9" * 5000, "not valid TOML"),
    "a whole number beyond 64 bits": (f"a = [1, {2**63}]", "beyond 64 bits"),
    "a date": ("a = 2020-01-01", "date or time"),
    "a file of many bytes": ("a = 1 #" + "x" * LARGEST_FILE, "larger than 4 MiB"),
}


@pytest.mark.parametrize("what", ODD)
def test_what_no_file_of_ours_can_mean_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    content, reason = ODD[what]
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(BenchError, match=reason) as caught:
        read_toml(tmp_path / "x.toml", "suite")
    assert len(str(caught.value)) < 400


class _Numbers(Section):
    whole: int = 1
    real: float = 1.0
    yes: bool = True
    word: str = ""
    steps: Steps = 1
    pixels: PixelRadius = 0.5
    one: OneRadius = Field(default_factory=dict)
    several: SeveralRadii = Field(default_factory=dict)


@pytest.mark.parametrize(
    "given",
    [
        {"whole": "1"}, {"whole": True}, {"whole": 1.0}, {"real": "1"}, {"real": True}, {"real": float("nan")},
        {"real": float("inf")}, {"yes": 1}, {"yes": "true"}, {"word": 1}, {"steps": 0}, {"steps": 10**9},
        {"pixels": 1.5}, {"pixels": True}, {"one": {"l2": 1e39}}, {"one": {"linf": 1.01}}, {"one": {"l1": "5"}},
        {"several": {"l1": [1e308]}}, {"several": {"l2": [0.1] * 101}}, {"several": {"l2": []}}, {"more": 1},
    ],
)  # fmt: skip
def test_values_of_another_type_and_numbers_out_of_bounds_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(BenchError, match=next(iter(given))):
        validate(_Numbers, given, "suite x")


def test_a_whole_number_will_do_for_a_real_one() -> None:
    found = validate(_Numbers, {"real": 2, "one": {"linf": 1, "l2": 1e4}, "several": {"l1": [30]}}, "suite x")
    assert found.real == 2.0 and found.one == {"linf": 1.0, "l2": 1e4} and found.several == {"l1": [30.0]}


class _Norms(Section):
    norms: tuple[Literal["linf", "l2"], ...] = Field(min_length=1, strict=False)


def test_a_list_of_one_wrong_item_is_not_said_to_be_empty() -> None:
    with pytest.raises(BenchError, match=r"^here: norms\.0: input should be 'linf' or 'l2'\.$"):
        validate(_Norms, {"norms": ["l7"]}, "here")
    with pytest.raises(BenchError, match=r"^here: norms: tuple should have at least 1 item"):
        validate(_Norms, {"norms": []}, "here")
