"""Ctrl-C and the signals that end as it does; what is said then, and the exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
"""A scheduler's or `kill`'s, that of a terminal that closes, and that of Windows' consoles."""

_came: list[int] = []
_kept: list[str] = []


def end_as_ctrl_c() -> None:
    """Let those signals end the command as Ctrl-C does: what is done is written down. One that is ignored stays so."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt


def exit_code() -> int:
    """128 and the number of the signal, as a shell has it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_came[-1] if _came else signal.SIGINT)


def keep(what: str) -> None:
    """Say `what` is kept, should the command be interrupted now."""
    _kept.append(what)


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Say `what` is kept where the command is interrupted in here."""
    try:
        yield
    except KeyboardInterrupt:
        keep(what)
        raise


def last_words() -> str:
    """One line for a command that was interrupted."""
    by = f" by {signal.Signals(_came[-1]).name}" if _came else ""
    kept = "; ".join(_kept)
    return f"interrupted{by}: {kept}." if kept else f"interrupted{by}."


def forget() -> None:
    """Begin another command."""
    _came.clear()
    _kept.clear()
