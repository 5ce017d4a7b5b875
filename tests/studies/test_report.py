"""What verdicts look like in writing."""

from __future__ import annotations

import pytest

from bench.studies.report import effect_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0000"),
        (0.00162, "0.0016"),
        (-0.0538, "-0.0538"),
        (-3.02e-6, "-0.0000030"),
        (4.5e-5, "0.000045"),
        (None, ""),
    ],
)
def test_an_effect_too_small_for_four_decimals_is_not_written_as_none(number: float | None, text: str) -> None:
    assert effect_text(number) == text
