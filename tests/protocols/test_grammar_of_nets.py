"""Every protocol on nets out of a grammar; hundreds: `pytest -m slow -k grammar`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.protocols import PROTOCOLS, EvaluationContext, UnitResult
from tests.grammar import NanNear, data_for, numbered, prepared, random_net
from tests.protocols.grammar_suites import SUITES

COUNT = 8
EITHER = {
    92: "HopSkipJump walks where rounding sends it",
    318: "max-pooling over equal values has more than one gradient",
}
"""Nets of the slow run for which two ways of computing differ and both are right."""
ATTACKED = [name for name in SUITES if not name.startswith(("attribution", "insertion", "corruptions"))]


def judged(name: str, net: nn.Module, data: ImageDataset, batch_size: int = 64) -> UnitResult | None:
    """The whole data set as one unit; None where the net is refused in one clear line."""
    protocol = PROTOCOLS[name].from_parameters(SUITES[name], "a test")
    context = EvaluationContext(
        net, "net", data, 0, stop=len(data), seed=0, device=torch.device("cpu"), batch_size=batch_size,
        examples=len(data),
    )  # fmt: skip
    try:
        return protocol.evaluate(context)
    except BenchError as error:
        assert str(error).endswith(".") and "\n" not in str(error), str(error)
        return None


def assert_same(found: UnitResult | None, expected: UnitResult | None, what: str) -> None:
    """The same verdicts, and numbers as far as rounding goes."""
    assert (found is None) == (expected is None), what
    if found is None or expected is None:
        return
    for name, values in expected.records.items():
        others = found.records[name]
        if pd.api.types.is_float_dtype(values):
            # a pixel near a tie may change sides
            close = np.isclose(others, values, rtol=1e-3, atol=2e-3, equal_nan=True)
            assert np.mean(~close) <= 0.05, f"{name}: {what}"
        elif name not in ("adversarial_prediction", "found_in_norm", "prediction_after"):
            assert others.equals(values), f"{name}: {what}"


@pytest.mark.parametrize("seed", numbered(8, 440))
def test_records_depend_neither_on_preparation_nor_on_batches(seed: int) -> None:
    if seed in EITHER:
        pytest.skip(EITHER[seed])
    net = random_net(seed)
    name, data = list(SUITES)[seed % len(SUITES)], data_for(net, net.kind, COUNT, seed)
    expected = judged(name, net, data)
    for model, batch in ((net, (1, 7)[seed // 2 % 2]), (prepared(net), 64)):
        assert_same(judged(name, model, data, batch), expected, f"{name}, batches of {batch}: {net}")
    if expected is not None:
        ids = {finding.id for finding in expected.findings}
        assert not ids & {"random_outputs", "batch_dependent", "probabilities", "bad_gradients"}, f"{ids} {net}"


@pytest.mark.parametrize("seed", numbered(8, 220))
def test_randomness_and_dependence_on_the_batch_are_found_under_every_suite(seed: int) -> None:
    family = ("random", "batch")[seed // 2 % 2]
    net = random_net(seed, family)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        name, data = list(SUITES)[seed % len(SUITES)], data_for(net, net.kind, 5, seed)
        found = judged(name, net, data, 3)
    expected = {"random": "random_outputs", "batch": "batch_dependent"}[family]
    assert found is None or expected in {finding.id for finding in found.findings}, f"{name}: {net}"


@pytest.mark.parametrize("seed", numbered(6, 240))
def test_answers_that_are_no_numbers_are_broken_under_every_attacking_suite(seed: int) -> None:
    net = random_net(seed)
    name, data = ATTACKED[seed % len(ATTACKED)], data_for(net, net.kind, 5, seed)
    found = judged(name, NanNear(net, (torch.nan, torch.inf)[seed // 6 % 2]), data)
    assert found is not None
    rows = found.records
    if name == "minimum_norm":
        assert np.isfinite(rows["distance"]).all(), f"{name}: {net}"
    else:
        verdicts = rows[rows["attack"] == name] if name in ("autoattack", "blackbox") else rows
        assert verdicts["broken"].all(), f"{name}: {net}"
