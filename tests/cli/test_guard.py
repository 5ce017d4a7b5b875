"""What a command returns where the code of a model ends its process; each in a process of its own, without torch."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from bench.cli.guard import runs_foreign_code

START = """
import atexit, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts in the background
from bench.cli.guard import run_in_child
{before}
def command():
{body}
print("alive", flush=True)
sys.exit(run_in_child(command, 2))
"""


def start(body: str, before: str = "") -> subprocess.Popen[str]:
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    program = START.format(body=indented, before=before)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 0", 0),
        ("return 1", 1),
        ("os._exit(0)", 2),
        ("os._exit(1)", 2),
        ("os.execv('/bin/true', ['true'])", 2),
        ("atexit.register(os._exit, 0)\nreturn 1", 1),
        ("os.kill(os.getpid(), 9)", -9),
    ],
)
def test_the_exit_code_is_the_commands_own(body: str, code: int) -> None:
    process = start(body)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert ("ended the process" in err) == (code == 2) and "Traceback" not in err


WAIT = """try:
    print("waiting", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    return 130
return 0"""
SLOW_PARENT = """
close = os.close
def slowly(descriptor, parent=os.getpid()):
    time.sleep(0.5 if os.getpid() == parent else 0.0)
    close(descriptor)
os.close = slowly
"""
"""The signal comes before the parent of the command is ready for it."""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, -15, ""), (signal.SIGKILL, -9, "")],
)
@pytest.mark.parametrize("before", ["", SLOW_PARENT], ids=["later", "at once"])
def test_signals_reach_the_command_and_nothing_outlives_it(
    number: signal.Signals, code: int, said: str, before: str
) -> None:
    process = start(WAIT, before)
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["alive\n", "waiting\n"]
    began = time.monotonic()
    process.send_signal(number)
    # the pipe ends when the last process that holds it does
    assert process.communicate(timeout=20)[0] == said and time.monotonic() - began < 10
    assert process.returncode == code


@pytest.mark.parametrize(
    ("arguments", "guarded"),
    [
        (["check", "--model", "net.py:make"], True),
        (["check", "--model=a b/net.py:make"], True),
        (["run", "--model", "net.pt2"], True),
        (["run", "--model", "onnx:net"], True),
        (["run", "--model", "mine", "--program", "net.py"], True),
        (["run", "--model", "mine", "--program=net.py"], True),
        (["run", "--model", "timm:resnet18", "--weights", "w.bin", "--trust-weights"], True),
        (["check", "--model", "standard", "--suite", "mine.toml"], False),
        (["doctor"], False),
    ],
)
def test_a_command_line_that_names_a_program_is_known(arguments: list[str], guarded: bool) -> None:
    assert runs_foreign_code(arguments) == guarded
