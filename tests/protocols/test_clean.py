from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.clean import Clean


def test_clean_says_of_each_image_whether_it_is_right(standard: nn.Module, fashion_test: ImageDataset) -> None:
    protocol = Clean.from_parameters({}, "test")
    device = torch.device("cpu")
    context = EvaluationContext(standard, "net", fashion_test, 20, stop=120, seed=0, device=device, batch_size=32)
    records = protocol.evaluate(context).records
    with torch.no_grad():
        said = standard(fashion_test.pixels(slice(20, 120))).argmax(1)
    assert records["example_id"].tolist() == list(range(20, 120)) and records["prediction"].tolist() == said.tolist()
    (metric,) = protocol.metrics("fashion_mnist", records)
    assert metric.value == pytest.approx(float((said == fashion_test.labels[20:120]).float().mean()))


def test_clean_takes_no_parameters() -> None:
    with pytest.raises(BenchError, match="steps"):
        Clean.from_parameters({"steps": 3}, "test")
