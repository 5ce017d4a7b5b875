"""What an operation mode, as those of LRP and its like, gets to see of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.attributions.operations import OperationMode


def operations_seen(call: Callable[[], object]) -> list[str]:
    """The names of the operations of a call."""
    seen: list[str] = []

    class Look(OperationMode):
        def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            seen.append(name)
            return func(*args, **kwargs)

    with Look():
        call()
    return seen
