from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from bench.core.errors import BenchError
from bench.core.toml_files import Section, validate


class Norms(Section):
    norms: tuple[Literal["linf", "l2"], ...] = Field(min_length=1, strict=False)


def test_a_list_of_one_wrong_item_is_not_said_to_be_empty() -> None:
    with pytest.raises(BenchError, match=r"^here: norms\.0: input should be 'linf' or 'l2'\.$"):
        validate(Norms, {"norms": ["l7"]}, "here")
    with pytest.raises(BenchError, match=r"^here: norms: tuple should have at least 1 item"):
        validate(Norms, {"norms": []}, "here")
