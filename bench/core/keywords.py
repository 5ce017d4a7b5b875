"""Parameters that a suite gives to a function, checked against the function's signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.toml_files import Section, explain

REQUIRED = inspect.Parameter.empty
_ALIKE = {"steps": "iterations", "iterations": "steps"}
"""What one attack calls so, another calls otherwise."""
_NO_TYPE = (PydanticUserError, TypeError, NameError)
"""What pydantic raises where an annotation is no type."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A parameter that may be given: its type, and its default, REQUIRED where it has none."""

    hint: Any
    default: Any = REQUIRED

    @property
    def description(self) -> str:
        """What its annotation says of it."""
        found = [getattr(one, "description", None) for one in getattr(self.hint, "__metadata__", ())]
        return next((one for one in found if one), "")


class _Keywords(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def keywords_of(function: Callable[..., Any], skip: int, offered: Collection[str]) -> dict[str, Keyword]:
    """What a function can be given by keyword, less its first `skip` parameters and those `offered` to all.

    Raises:
        ValueError: its signature cannot be read.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001  (an annotation may hold anything)
        hints = {}
    found = {}
    for name, one in list(inspect.signature(function).parameters.items())[skip:]:
        if name not in offered and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            hint = hints.get(name, type(one.default) if isinstance(one.default, bool | int | float | str) else Any)
            found[name] = Keyword(hint, one.default)
    return found


def checked_keywords(what: str, keywords: Mapping[str, Keyword], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values as `what` is called with them: lists become tuples and tables sections where it says so.

    Raises:
        BenchError: one is unknown, of another type, or missing.
    """
    for name in given:
        if name not in keywords:
            if (other := _ALIKE.get(name)) in keywords:
                raise BenchError(f"unknown parameter of {what} {name!r}; did you mean {other}?")
            raise unknown_name(name, keywords, f"parameter of {what}")
    missing = [name for name, one in keywords.items() if one.default is REQUIRED and name not in given]
    if missing:
        raise BenchError(f"{what} needs the parameter {missing[0]}, which is not given.")
    hints = {name: keywords[name].hint for name in given}
    try:
        model = _model(hints)
    except _NO_TYPE:  # only then each by itself: a model takes a millisecond or two
        model = _model({name: _type_or_any(hint) for name, hint in hints.items()})
    try:
        values = model(**given)
    except ValidationError as error:
        raise BenchError(f"{what}: {explain(error)}.") from error
    return dict(zip(given, (getattr(values, name) for name in model.model_fields), strict=True))


def _model(hints: Mapping[str, Any]) -> type[_Keywords]:
    """Of values with these annotations; raises one of _NO_TYPE where an annotation is none."""
    fields: dict[str, Any] = {}
    for number, (name, hint) in enumerate(hints.items()):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        lenient = False if typing.get_origin(inner) is tuple else None
        fields[f"keyword_{number}"] = (hint, Field(alias=name, strict=lenient))
    return create_model("Keywords", __base__=_Keywords, **fields)


def _type_or_any(hint: Any) -> Any:
    try:
        _model({"value": hint})
    except _NO_TYPE:
        return Any
    return hint
