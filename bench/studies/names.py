"""How a study's file names what it is about: a metric, and a model or the training seeds of one."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from bench.core.threat import as_number
from bench.core.toml_files import Section
from bench.leaderboard.metrics import MetricKey
from bench.leaderboard.migration import migrated_name


class MetricName(Section):
    """One metric of a suite, as the leaderboard names it; what an older leaderboard called it names it too."""

    suite: str
    metric: str
    subject: str = ""
    attack: str = ""
    norm: str = ""
    eps: Annotated[float | None, BeforeValidator(as_number)] = None
    minus: MetricName | float | None = None
    """The same model's metric that this one is to have moved from, image by image: TAPS less clean TAPS; or a number,
    as an accuracy less that of chance."""

    @property
    def offset(self) -> float:
        """The number that `minus` takes away, itself or within the metric that it names."""
        return self.minus if isinstance(self.minus, float) else 0.0 if self.minus is None else -self.minus.offset

    @property
    def key(self) -> MetricKey:
        if self.subject:
            return MetricKey(self.metric, self.subject, self.attack, self.norm, eps=self.eps)
        metric, subject, attack, *_ = migrated_name(self.metric, self.attack)
        return MetricKey(metric, subject, attack, self.norm, eps=self.eps)


Group = str | Annotated[list[str], Field(min_length=1)]
"""A model, or training seeds of one: ids, patterns as `ir_gradient_seed*`, or `ir_gradient+`: it and its seeds."""


def expand(names: str | Sequence[str], known: Collection[str]) -> list[str]:
    """Ids as they are, patterns as the known ids that fit, `name+` as the id and its training seeds; each once."""
    given = [names] if isinstance(names, str) else names
    names = [one for name in given for one in ((name[:-1], f"{name[:-1]}_seed*") if name.endswith("+") else (name,))]
    found = (fnmatch.filter(sorted(known), name) if "*" in name else [name] for name in names)
    return list(dict.fromkeys(name for part in found for name in part))
