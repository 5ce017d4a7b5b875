"""A suite's keywords of an attack, checked against the attack's signature."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from bench.attacks.registry import Attack, Keyword, find_attack
from bench.attacks.user_files import UserFile
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.toml_files import Section, explain


class _Keywords(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True)
class NamedAttack:
    """An attack with its keywords, checked, and the name of its rows."""

    attack: Attack
    name: str
    keywords: Mapping[str, Any]


def named_attack(
    attack: str, keywords: Mapping[str, Any], name: str | None = None, file: UserFile | None = None
) -> NamedAttack:
    """An attack by name with keywords; raises BenchError. `file` is as in bench.attacks.registry.find_attack."""
    found = find_attack(attack, file)
    return NamedAttack(found, name or attack, checked_keywords(found, keywords))


def checked_keywords(attack: Attack, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords as the attack is called with them: lists become tuples and tables sections where it says so.

    Raises:
        BenchError: one is unknown, of another type, or missing.
    """
    for name in given:
        if name not in attack.parameters:
            raise unknown_name(name, attack.parameters, f"keyword of attack {attack.name}")
    missing = [name for name, one in attack.parameters.items() if one.default is Parameter.empty and name not in given]
    if missing:
        raise BenchError(f"attack {attack.name} needs the keyword {missing[0]}, which the suite does not give.")
    fields: dict[str, Any] = {
        f"keyword_{number}": _field(name, attack.parameters[name]) for number, name in enumerate(given)
    }
    try:
        values = create_model("Keywords", __base__=_Keywords, **fields)(**given)
    except ValidationError as error:
        raise BenchError(f"attack {attack.name}: {explain(error)}.") from error
    return dict(zip(given, (getattr(values, name) for name in fields), strict=True))


def _field(name: str, keyword: Keyword) -> tuple[Any, Any]:
    hint = keyword.hint
    try:
        create_model("Probe", __base__=_Keywords, value=(hint, ...))
    except (PydanticUserError, TypeError, NameError):
        hint = Any  # an annotation that is no type
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    lenient = False if typing.get_origin(inner) is tuple else None
    return hint, Field(alias=name, strict=lenient)
