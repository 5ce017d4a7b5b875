from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bench.studies.computations import Computations
from bench.studies.effects import _correlation
from bench.studies.study import Bound, Correlation, MetricName
from bench.studies.values import MissingInputError, Values


def test_a_correlation_counts_models_and_its_sign() -> None:
    random = np.random.default_rng(0)
    models = [f"m{number}" for number in range(7)]
    first, second = np.arange(7.0), -np.arange(7.0) + random.normal(0, 1.5, 7)
    rows = pd.DataFrame(
        [
            {"suite": "s", "model": model, "metric": metric, "subject": "", "attack": "", "norm": "", "eps": np.nan, "value": value,
             "ci_low": value, "ci_high": value, "n_examples": 10}
            for metric, values in (("a", first), ("b", second))
            for model, value in zip(models, values, strict=True)
        ]
    )  # fmt: skip
    claim = Correlation(
        id="c", text="", statistic="correlation", first=MetricName(suite="s", metric="a"),
        second=MetricName(suite="s", metric="b"), models=models, sign="negative",
    )  # fmt: skip
    effect = _correlation(Values(Path(), rows), claim)
    assert effect.value == pytest.approx(-float(spearmanr(first, second).statistic))
    assert effect.low < effect.value < effect.high and effect.count.startswith("7 models")
    with pytest.raises(MissingInputError, match="4 models have both metrics"):
        _correlation(Values(Path(), rows[rows["model"].isin(models[:4])]), claim)


def test_the_bound_holds_on_every_image_of_a_real_net() -> None:
    effect = Computations("fashion_mnist")(Bound(id="b", text="", statistic="bound", model="lga", radius=4.0))
    assert "on 100.0 % of the images" in effect.reason
    assert -1 < effect.low <= effect.value <= effect.high
