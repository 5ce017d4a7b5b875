"""What goes wrong with one of several runs: it is kept and told at the end, while the others go on."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.core.errors import BenchError, in_one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that came to nothing.

    Attributes:
        suite: empty where the model, or its data set, cannot be judged under any.
    """

    model: str
    suite: str
    error: Exception

    @property
    def reason(self) -> str:
        return str(self.error) if isinstance(self.error, BenchError) else in_one_line(self.error)

    @property
    def what(self) -> str:
        return f"{self.model} under {self.suite}" if self.suite else self.model


class Failures:
    """Those of one command.

    Attributes:
        fast: the first failure ends everything, as an error.
        found: what has failed.
        skipped: (suite, data set) -> why the data set cannot have the suite, which only `all` or a wildcard had named.
    """

    def __init__(self, *, fast: bool = True) -> None:
        self.fast = fast
        self.found: list[Failure] = []
        self.skipped: dict[tuple[str, str], str] = {}

    @contextmanager
    def of(self, model: str, suite: str = "") -> Iterator[None]:
        """What fails in here is this model's failure; Ctrl-C is none."""
        try:
            yield
        except Exception as error:
            if all(one.error is not error for one in self.found):
                self.found.append(Failure(model, suite, error))
            if self.fast:
                raise
            if not isinstance(error, BenchError):
                logger.exception("%s failed", model)
            _let_go(error)

    def raise_lone(self, others: int) -> None:
        """Raise the only failure where there are no `others` that go on: nothing is left to be listed."""
        if len(self.found) == 1 and not others:
            raise self.found[0].error


def _let_go(error: BaseException | None) -> None:
    """Drop the local variables of the frames that an error names: they hold tensors, for as long as the error lives."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
