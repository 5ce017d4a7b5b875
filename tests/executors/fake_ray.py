"""As much of Ray as the executor uses, in this process and at once: actors answer when their answer is waited for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """As in ray.exceptions."""


class Lost(RayError):
    """A worker's death."""


@dataclass(eq=False)
class Reference:
    ask: Callable[[], Any]
    number: int = field(default_factory=itertools.count().__next__)


@dataclass
class Actor:
    """Calls go to an object of the real class, or to `disturb`, which may raise."""

    ray: FakeRay
    number: int
    target: Any

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Reference:
            def ask() -> Any:
                self.ray.disturb(self.number, name, arguments)
                values = [one.ask() if isinstance(one, Reference) else one for one in arguments]
                return getattr(self.target, name)(*values)

            return Reference(ask)

        return SimpleNamespace(remote=remote)


@dataclass
class FakeRay:
    """With `room` 0 nobody ever answers, as where a cluster has no room. `disturb(actor, method, arguments)` may raise."""

    cpus: int = 2
    room: int = 1000
    disturb: Callable[[int, str, tuple[Any, ...]], None] = lambda number, name, arguments: None
    actors: list[Actor] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(RayError=RayError))

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(self.cpus)}}]

    def put(self, value: Any) -> Reference:
        return Reference(lambda: value)

    def get(self, reference: Reference) -> Any:
        return reference.ask()

    def remote(self, kind: type) -> Any:
        def make(*arguments: Any) -> Actor:
            self.actors.append(Actor(self, len(self.actors), kind(*arguments)))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def wait(
        self, references: Sequence[Reference], *, num_returns: int, timeout: float
    ) -> tuple[list[Reference], list[Reference]]:
        longest_waiting = sorted(references, key=lambda one: one.number)
        ready = longest_waiting[: min(num_returns, self.room)]
        return ready, [one for one in references if one not in ready]

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor.number)
