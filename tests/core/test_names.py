from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench.core.errors import BenchError
from bench.core.names import SAFE_NAME, natural_key, require_safe_name, safe_name, select_names, unknown_name

KNOWN = ["standard", "at_linf", "at_l2", "ir_gradient"]


def test_an_unknown_name_suggests_the_nearest_ones() -> None:
    assert "did you mean at_linf" in str(unknown_name("at_lnf", KNOWN, "model"))


def test_a_name_near_nothing_lists_what_is_known() -> None:
    assert "known: at_l2, at_linf" in str(unknown_name("zzzzzzzz", KNOWN, "model"))


def test_a_long_list_of_names_is_cut() -> None:
    line = str(unknown_name("zzz", [f"{number:03}" for number in range(1000)], "model"))
    assert "039 and 960 more" in line and "040" not in line


def test_wildcards_and_all_expand_each_name_once() -> None:
    assert select_names(["at_*", "at_l2", "standard"], KNOWN, "model") == ["at_linf", "at_l2", "standard"]
    assert select_names(["all"], KNOWN, "model") == KNOWN


def test_numbers_in_names_are_sorted_by_their_value() -> None:
    names = ["net10", "net", "net2", "a/9", "a/10", "net2b"]
    assert sorted(names, key=natural_key) == ["a/9", "a/10", "net", "net2", "net2b", "net10"]


def test_a_wildcard_that_matches_nothing_is_refused() -> None:
    with pytest.raises(BenchError, match="unknown model"):
        select_names(["vit_*"], KNOWN, "model")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\x00b"])
def test_a_name_that_could_lead_out_of_its_folder_is_refused(name: str) -> None:
    with pytest.raises(BenchError):
        require_safe_name(name, "model id")


@pytest.mark.parametrize(
    "text",
    ["net (1)", "my net", "_net", "сеть", "网络", "é", "...", "", "a" * 300, "[x]", "a\nb", "\x1b[31m", "\udce9"],
)
def test_a_plain_name_is_made_of_any_text(text: str) -> None:
    name = safe_name(text)
    assert require_safe_name(name, "name") == name == safe_name(text) and len(name) < 100


def test_names_that_are_plain_stay_and_letters_that_are_lost_still_count() -> None:
    assert safe_name("my_net.v2-make") == "my_net.v2-make" and safe_name("_net-make") == "net-make"
    assert len({safe_name(text) for text in ("сеть-make", "нить-make", "make", "a" * 300, "a" * 301)}) == 5


def test_what_a_safe_name_is_is_written_once() -> None:
    sources = sorted(Path(bench.__file__).parent.rglob("*.py"))
    again = [path.name for path in sources if SAFE_NAME in path.read_text()]
    assert again == ["names.py"]
