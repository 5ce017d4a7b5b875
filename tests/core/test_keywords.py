from __future__ import annotations

from typing import Annotated, Any, Required

import pytest
from pydantic import Field

from bench.core.errors import BenchError
from bench.core.keywords import REQUIRED, Keyword, checked_keywords, keywords_of


def attack(
    model: object, images: object, *, eps: float, steps: Annotated[int, Field(gt=0, description="how many")] = 5,
    sizes: tuple[int, ...] = (1,), model_name: str = "", free=0.5, needed: str,
) -> None:  # fmt: skip
    """A function with parameters of all kinds."""


KEYWORDS = keywords_of(attack, 2, ("eps",))


def checked(**given: Any) -> dict[str, Any]:
    return checked_keywords("attack mine", KEYWORDS, {"needed": "x", **given})


def test_what_a_function_is_called_with_anyway_is_no_parameter_of_a_suite() -> None:
    assert list(KEYWORDS) == ["steps", "sizes", "model_name", "free", "needed"]
    assert KEYWORDS["steps"].default == 5 and KEYWORDS["steps"].description == "how many"
    assert KEYWORDS["needed"].default is REQUIRED and KEYWORDS["sizes"].description == ""


def test_only_what_is_given_comes_back_and_lists_become_tuples() -> None:
    assert checked(sizes=[2, 3], model_name="m") == {"needed": "x", "sizes": (2, 3), "model_name": "m"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"step": 3}, "unknown parameter of attack mine 'step'; did you mean steps?"),
        ({"steps": 0}, "attack mine: steps: input should be greater than 0."),
        ({"steps": "3"}, "attack mine: steps: input should be a valid integer."),
        ({"free": "much"}, "attack mine: free: input should be a valid number."),
    ],
)
def test_what_cannot_be_given_is_refused_in_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(BenchError) as caught:
        checked(**given)
    assert str(caught.value) == line


def test_what_others_call_steps_is_suggested() -> None:
    for asked, known in (("steps", "iterations"), ("iterations", "steps")):
        with pytest.raises(BenchError, match=f"unknown parameter of attack mine '{asked}'; did you mean {known}"):
            checked_keywords("attack mine", {"eps_iter": Keyword(int, 1), known: Keyword(int, 1)}, {asked: 5})


def test_a_parameter_without_a_default_must_be_given() -> None:
    with pytest.raises(BenchError, match="attack mine needs the parameter needed, which is not given"):
        checked_keywords("attack mine", KEYWORDS, {})


def test_a_value_whose_annotation_is_no_type_may_be_anything_and_the_others_are_checked() -> None:
    keywords = {"free": Keyword(Required[int]), "steps": Keyword(Annotated[int, Field(gt=0)])}
    given = {"free": object(), "steps": 2}
    assert checked_keywords("attack mine", keywords, given) == given
    with pytest.raises(BenchError, match="steps: input should be greater than 0"):
        checked_keywords("attack mine", keywords, given | {"steps": 0})
