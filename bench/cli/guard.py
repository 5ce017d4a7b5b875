"""Commands that run a program of the user's: their exit code counts only if this package itself has set it.

A net may end its process at any time, with any exit code: `os._exit(0)` in a forward pass would tell CI that nothing
became worse. So the command runs in a child process, which hands its exit code to the parent before it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_PROGRAM_SUFFIXES = (".pt2", ".onnx", ".pt", ".ts", ".torchscript")
_PROGRAM_PREFIXES = ("torchscript:", "export:", "onnx:")
_PROGRAM_OPTIONS = ("--program", "--trust-weights")


def runs_foreign_code(arguments: Sequence[str]) -> bool:
    """Whether a command line names a program of the user's; asked before anything slow is imported."""
    values = [part for argument in arguments for part in (argument, argument.partition("=")[2])]
    beginnings = (*_PROGRAM_PREFIXES, *_PROGRAM_OPTIONS)
    return any(one.startswith(beginnings) or one.endswith(_PROGRAM_SUFFIXES) or ".py:" in one for one in values)


def run_in_child(command: Callable[[], int], failed: int) -> int:
    """Run a command in a child process, signals passed on to it; the exit code that it returned.

    Args:
        failed: the exit code where the child ended without returning one.
    """
    from_child, to_parent = os.pipe()
    lifeline, ours = os.pipe()  # its end tells the child that the parent has been killed
    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # one that comes now waits until it can be passed on
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(from_child)
        os.close(ours)
        threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
        code = command()
        with suppress(OSError):  # the reader has gone
            sys.stdout.flush()
        os.write(to_parent, bytes([code]))
        sys.exit(code)
    os.close(to_parent)
    os.close(lifeline)
    for number in passed_on:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, _: _pass_on(number, child))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _, status = os.waitpid(child, 0)
    returned = os.read(from_child, 1)
    if returned:
        return returned[0]
    if os.WIFSIGNALED(status):
        with suppress(OSError):  # SIGKILL has no other handler
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    ended = os.waitstatus_to_exitcode(status)
    sys.stderr.write(f"error: the code of a model, or of a package that it needs, ended the process (exit {ended}).\n")
    return failed


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _pass_on(number: int, child: int) -> None:
    """Hand a signal to the child, unless it is a Ctrl-C at the terminal, which reaches both."""
    if number == signal.SIGINT and _in_foreground():
        return
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _in_foreground() -> bool:
    with suppress(OSError), Path("/dev/tty").open("rb", buffering=0) as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False
