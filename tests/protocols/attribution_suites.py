"""Tiny suites of the attribution protocols, and running one on a model without a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from bench.catalog.suites import read_suite
from bench.data import ImageDataset
from bench.leaderboard.labels import name
from bench.protocols import EvaluationContext, Protocol, UnitResult, protocol_for

HEAD = """
schema_version = 1
name = "{name}"
version = 1
protocol = "{name}"
examples = 24

[parameters]
"""

STABILITY = (
    HEAD.format(name="attribution_stability")
    + """
radii = [0.015686, 0.062745]
draws = 2
measures = ["cosine", "spearman", "top_k", "centre_shift"]
attributions = [{ name = "gradient" }, { name = "smoothgrad", samples = 2 }]
"""
)
ATTACK = (
    HEAD.format(name="attribution_attack")
    + """
radii = [0.031372]
check_every = 2
measures = ["cosine", "top_k", "centre_shift"]
attributions = [{ name = "gradient" }]
attacks = [{ kind = "frame", steps = 4 }, { kind = "top_k", steps = 4 }, { kind = "random_sign" }]
"""
)
INSERTION = (
    HEAD.format(name="insertion")
    + """
steps = 7
attack = { kind = "frame", steps = 2 }
radii = [0.031372]
attributions = [{ name = "gradient" }]
"""
)
AGREEMENT = (
    HEAD.format(name="attribution_agreement")
    + """
measures = ["spearman", "top_k"]
attributions = [{ name = "gradient" }, { name = "input_x_gradient" }, { name = "grad_cam" }]
"""
)
KEYS = ["example_id", "attribution", "attack", "eps", "game", "check", "other", "stage"]
ALL = {"stability": STABILITY, "attack": ATTACK, "insertion": INSERTION, "agreement": AGREEMENT}


def make(tmp_path: Path, content: str) -> Protocol:
    path = tmp_path / "suite.toml"
    path.write_text(content)
    return protocol_for(read_suite(path))


def run(
    protocol: Protocol,
    model: nn.Module,
    data: ImageDataset,
    start: int = 0,
    stop: int = 24,
    batch_size: int = 256,
    seed: int = 0,
) -> UnitResult:
    context = EvaluationContext(
        model, "net", data, start, stop=stop, seed=seed, device=torch.device("cpu"), batch_size=batch_size
    )
    return protocol.evaluate(context)


def values(protocol: Protocol, records: pd.DataFrame) -> dict[tuple[str, str, float | None], float]:
    metrics = protocol.metrics("fashion_mnist", records)
    assert all(metric.ci_low <= metric.value <= metric.ci_high for metric in metrics)
    return {(name(metric.key), metric.key.attack, metric.key.eps): metric.value for metric in metrics}


def numbers(records: pd.DataFrame) -> pd.DataFrame:
    """The values of records, in an order that does not depend on how they were computed."""
    keys = [name for name in KEYS if name in records]
    return records.sort_values(keys, ignore_index=True).select_dtypes("number").drop(columns=["example_id"])


def require_same_numbers(whole: pd.DataFrame, cut: pd.DataFrame) -> None:
    """The same up to rounding: float32 sums differ in their last digit with the batch, and a pixel near a tie may
    change sides."""
    assert len(cut) == len(whole)
    difference = (numbers(whole) - numbers(cut)).abs().to_numpy(dtype=np.float64)
    scale = np.nanmax(np.abs(numbers(whole).to_numpy(dtype=np.float64)), axis=0)
    assert np.nanquantile(difference / np.maximum(scale, 1), 0.99) < 0.02
    assert np.nanmean(difference / np.maximum(scale, 1)) < 1e-3
