"""As much of Ray as the executor uses, in this process and at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """As in ray.exceptions."""


class Lost(RayError):
    """A worker's death."""


@dataclass
class Reference:
    """To something that is computed when it is asked for; never, where there is no room for that."""

    ask: Callable[[], Any]
    room: bool = True

    def future(self) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            if self.room:
                future.set_result(self.ask())
        except Exception as error:  # noqa: BLE001  (of whatever a test lets go wrong)
            future.set_exception(error)
        return future


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

            return Reference(ask, self.ray.room)

        return SimpleNamespace(remote=remote)


@dataclass
class FakeRay:
    """Without `room` no actor ever answers. `disturb(actor, method, arguments)` may raise."""

    cpus: int = 2
    room: bool = True
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

    def remote(self, kind: type) -> Any:
        def make() -> Actor:
            self.actors.append(Actor(self, len(self.actors), kind()))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor.number)
