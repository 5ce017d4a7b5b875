"""Errors that are meant for people: the command line prints them as one line and exits with code 2."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.core.memory import is_out_of_memory

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class BenchError(Exception):
    """Something the user can mend. The message is one line: what is wrong, then what to do.

    It is complete for a caller from Python and names no flag of the command line. Control characters, which a name in
    a file of anybody's may hold, become spaces.

    Args:
        option: the parameter, or several, that would help, by the name that the command line's option has, e.g.
            `data_dir`. The command line appends the flag where the command that ran has that option.
    """

    def __init__(self, message: str, *, option: str | tuple[str, ...] = ()) -> None:
        super().__init__(_CONTROL.sub(" ", message))
        self.options = (option,) if isinstance(option, str) else option

    def named_options(self) -> tuple[str, ...]:
        """Its options, else those of the error that it was raised from."""
        cause = self.__cause__
        return self.options or (cause.named_options() if isinstance(cause, BenchError) else ())


def bench_command(*words: str, **options: object) -> str:
    """A command to copy, e.g. `bench_command("run", model=["a", "b"])`: `bench run --model a --model b`.

    None and False are left out, True is a flag alone, and each value is quoted for a shell.
    """
    line = ["bench", *words]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None and one is not False:
                line += [flag] if one is True else [flag, str(one)]
    return shlex.join(line)


def in_one_line(error: BaseException, most: int = 200) -> str:
    """What another package's error says, with its kind, for the middle of a message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most].rstrip(".")


def reason_of(error: BaseException, most: int = 160) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class StoppedError(BaseException):
    """The work at hand is not wanted any more; no Exception, so that nothing takes it for one of a model's."""


def is_interrupt(error: BaseException) -> bool:
    """Whether the work was stopped, by Ctrl-C or by us; the user's own code may raise anything else, subclasses too."""
    return type(error) in (KeyboardInterrupt, StoppedError)


def goes_on(error: BaseException) -> bool:
    """Whether it is left as it is: it is for people already, the work was stopped, or memory is short."""
    return isinstance(error, BenchError) or is_interrupt(error) or is_out_of_memory(error)


@contextmanager
def others_code(line: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn an error of code that is not ours, which may be of any kind, into the line that `line` makes of it."""
    try:
        yield
    except BaseException as error:
        if goes_on(error):
            raise
        raise BenchError(line(error)) from error
