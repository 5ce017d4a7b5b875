"""The `bench` command: its subcommands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any

import typer

from bench.cli import interrupts
from bench.cli.commands import (
    check,
    compare,
    datasets,
    doctor,
    leaderboard,
    models,
    recipes,
    report,
    reproduce,
    run,
    saliency,
    suites,
    train,
    tune,
)
from bench.cli.commands.images import plot, show, verify
from bench.cli.guard import run_in_child, runs_foreign_code
from bench.cli.options import EXIT_FAILED
from bench.cli.output.rendering import printable
from bench.core.errors import BenchError, is_interrupt
from bench.core.memory import is_out_of_memory, limit_openmp_spinning
from bench.core.version import code_version

EXIT_INTERRUPTED = 130
"""As typer says it; the process exits with `interrupts.exit_code()`."""
EXIT_READER_GONE = 141
"""128 + SIGPIPE, as a shell reports of other programs."""

_FREE_TEXT = ("--title", "--description")

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Adversarial robustness and gradient interpretability of image classifiers, with evidence for every image.",
)
app.command("run")(run.run)
app.command("train", cls=train.TrainCommand)(train.train)
app.command("tune")(tune.tune)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(leaderboard.app, name="leaderboard")
app.command("report")(report.report)
app.command("plot")(plot.plot)
app.command("saliency")(saliency.saliency)
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("check")(check.check)
app.add_typer(models.app, name="models")
app.add_typer(suites.app, name="suites")
app.add_typer(datasets.app, name="datasets")
app.add_typer(recipes.app, name="recipes")
app.command("doctor")(doctor.doctor)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"ribench {code_version()}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is read, resumed and written.")] = False,
    version: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    import logging

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line and exit with the code that the design promises."""
    limit_openmp_spinning()
    interrupts.end_as_ctrl_c()
    arguments = sys.argv[1:]
    # a shell asks what could come next, or is to be taught to; typer ends the process itself then
    if "_BENCH_COMPLETE" in os.environ or {"--show-completion", "--install-completion"} & set(arguments[:1]):
        app(prog_name="bench")
    if hasattr(os, "fork") and runs_foreign_code(arguments):
        sys.exit(run_in_child(lambda: run_command(arguments), EXIT_FAILED))
    sys.exit(run_command(arguments))


def run_command(arguments: list[str]) -> int:
    """Run one command; the exit code: 0 done, 1 negative verdict, 2 error, 128 + a signal's number, 141 reader gone."""
    interrupts.forget()
    try:
        _refuse_empty_values(arguments)
        outcome = app(arguments, prog_name="bench", standalone_mode=False)
    except BenchError as error:
        return _fail(with_flags(str(error), error.named_options(), arguments))
    except (BrokenPipeError, SystemExit) as error:
        # click turns a broken pipe into exit code 1
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            return _reader_gone()
        # no command of ours ends so; exit code 0 of a model's code must not look like a verdict
        return _fail(f"the code of a model, or of a package that it needs, ended the process (exit {error.code}).")
    except Exception as error:  # noqa: BLE001  (a bug, shown whole)
        code = _known_failure(error)
        if code is None:
            traceback.print_exc()
            # Python's own exit code 1 would be a verdict
            return _fail("RIBench itself has failed; please report it with the lines above.")
        return code
    except BaseException as error:  # noqa: BLE001  (of the user's own code)
        if is_interrupt(error):
            return _interrupted()
        return _fail(f"the code of a model, or of a package that it needs, raised {type(error).__name__}: {error}")
    if outcome == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this code, without a word
        return _interrupted()
    return outcome if isinstance(outcome, int) else 0


def _refuse_empty_values(arguments: list[str]) -> None:
    """Raise BenchError for an option without a value, which a shell's variable that is not set leaves.

    Of a path it would be the working directory.
    """
    for before, word in pairwise(["", *arguments]):
        flag, sign, value = word.partition("=")
        flag = before if not word else flag if sign and not value else ""
        if flag.startswith("--") and flag not in _FREE_TEXT:
            raise BenchError(f"the value of {flag} is empty; give one, or leave the option out.")


def with_flags(message: str, options: tuple[str, ...], arguments: list[str]) -> str:
    """The message, and in brackets the flags of those options, as far as the command that ran has them."""
    command: Any = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    flags = {parameter.name: parameter.opts[0] for parameter in command.params if parameter.opts[0].startswith("--")}
    flags |= {flag[2:].replace("-", "_"): flag for flag in flags.values()}
    found = " or ".join(flags[name] for name in options if name in flags)
    return f"{message.removesuffix('.')} ({found})." if found else message


def _reader_gone() -> int:
    """The reader of the output has gone, as `head` does: print nothing, and exit with a code that is no verdict."""
    # keep Python from complaining once more at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return EXIT_READER_GONE


def _known_failure(error: Exception) -> int | None:
    """The exit code of typer's own errors, of a full disk and of a device out of memory; None for a bug."""
    if type(error).__name__ == "Abort":
        return _interrupted()
    format_message = getattr(error, "format_message", None)
    if callable(format_message):
        command = getattr(getattr(error, "ctx", None), "command_path", "bench")
        message = format_message().replace("Value error, ", "").strip()  # pydantic's words, which typer leaves in
        message += "" if message.endswith((".", "?", "!", ")")) else "."
        return _fail(f"{message} See `{command} --help`.") if message.strip(".") else EXIT_FAILED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        _reader_gone()  # what is left of the output cannot be written either
        return _fail(f"the output cannot be written: {error.strerror}; make room, or write elsewhere.")
    if is_out_of_memory(error):
        return _fail("there is not enough memory for this; use a smaller batch, fewer images, or another --device.")
    return None


def _fail(message: str) -> int:
    # a name or value out of a file may hold characters that a terminal would obey
    sys.stderr.write(f"error: {printable(' '.join(message.split()))}\n")
    return EXIT_FAILED


def _interrupted() -> int:
    with suppress(OSError):  # the terminal has gone
        sys.stderr.write(f"{interrupts.last_words()}\n")
    return interrupts.exit_code()


if __name__ == "__main__":
    main()
