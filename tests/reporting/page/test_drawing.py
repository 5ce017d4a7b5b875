from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.reporting.page.content import Number, anchor
from bench.reporting.page.svg import Axes, Point, Series, _ticks, plot, swatch
from bench.reporting.page.tradeoffs import Spot, front
from tests.reporting.page.pages import parse

spots = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).map(
        lambda pair: Spot("m", Number(pair[0] / 5), Number(pair[1] / 5))
    ),
    min_size=1,
)


def dominates(first: Spot, second: Spot) -> bool:
    x, y, other_x, other_y = first.x.value, first.y.value, second.x.value, second.y.value
    return x >= other_x and y >= other_y and (x, y) != (other_x, other_y)


@given(spots)
def test_the_front_holds_exactly_what_nothing_dominates(found: list[Spot]) -> None:
    best = front(found)
    assert [one.x.value for one in best] == sorted(one.x.value for one in best)
    for one in found:
        assert any(one is other for other in best) != any(dominates(other, one) for other in found)


names = st.text(alphabet="a2fd-_/. é", max_size=5)


@given(names, names)
def test_different_names_get_different_anchors_that_are_plain(first: str, second: str) -> None:
    assert (anchor("model", first) == anchor("model", second)) == (first == second)
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in anchor(first))


def test_shares_are_printed_in_per_cent_and_other_numbers_as_they_are() -> None:
    assert Number(0.12345, percent=True).text == "12.3"
    assert Number(-0.0124).text == "-0.012"
    assert Number(12345.6).text == "12,346"


def test_points_get_their_tips_and_colours_become_variables() -> None:
    tips = ["one <b>", "two & three", "four"]
    points = [Point(place, place * 2.0, tip, (place - 1, place + 1)) for place, tip in enumerate(tips)]
    series = Series("the <key>", 3, points)
    svg = parse(str(plot("f", "a title", "a description", [series], axes=Axes(("x", "y")))))
    assert [point.find("title")[0].text for point in svg.with_class("point")] == tips
    assert svg.with_class("series")[0].attributes["data-model"] == "the <key>"
    styles = " ".join(node.attributes.get("style", "") for node in svg.walk())
    assert "var(--series-3)" in styles and "var(--grid)" in styles and "var(--muted)" in styles
    assert "#" not in styles
    assert "font-family" not in styles


def test_points_lie_where_the_ticks_say() -> None:
    points = [Point(2.0, 0.0, "low"), Point(10.0, 100.0, "high", y_interval=(50.0, 100.0))]
    svg = parse(str(plot("f", "t", "a", [Series("a", 0, points)], axes=Axes(("x", "y"), x=(0, 10), y=(0, 100)))))
    texts = {node.text: node.attributes for node in svg.find("text")}
    low, high = svg.with_class("point")
    assert [low.attributes["x"], high.attributes["x"]] == [texts["2"]["x"], texts["10"]["x"]]
    assert float(high.attributes["y"]) + 3.5 == pytest.approx(float(texts["100"]["y"]))
    (bar,) = svg.with_class("bar")
    middle = (
        float(texts["50"]["y"]) - 3.5
        if "50" in texts
        else (float(low.attributes["y"]) + float(high.attributes["y"])) / 2
    )
    assert f"V{high.attributes['y']}" in bar.find("path")[0].attributes["d"]
    assert f"{middle:g}V" in bar.find("path")[0].attributes["d"]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@example(879609.9999999999, 1e-6)
def test_ticks_are_few_round_and_within(low: float, width: float) -> None:
    found = _ticks(low, low + width)
    assert 2 <= len(found) <= 8
    rounding = 1e-6 * width + 1e-15 * abs(low)  # of numbers that large beside so narrow an axis
    assert all(low - rounding <= one <= low + width + rounding for one in found)


def test_two_drawings_share_no_id() -> None:
    series = Series("a", 0, [Point(0, 0, "zero"), Point(1, 1, "one")])
    ids = []
    for name in ("first", "second"):
        svg = parse(str(plot(name, "a title", "a description", [series], axes=Axes(("x", "y")))))
        ids += [node.attributes["id"] for node in svg.walk() if "id" in node.attributes]
        targets = [node.attributes["href"][1:] for node in svg.walk() if "href" in node.attributes]
        assert targets and set(targets) <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_hundred_models_are_told_apart() -> None:
    assert len({swatch(slot, joined=False) for slot in range(132)}) == 132
