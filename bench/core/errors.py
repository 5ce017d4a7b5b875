"""Errors that are meant for people: the command line prints them as one line and exits with code 2."""

from __future__ import annotations


class BenchError(Exception):
    """Something the user can mend. The message is one line: what is wrong, then what to do."""


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C; code of the user's own may raise anything else, subclasses too."""
    return type(error) is KeyboardInterrupt
