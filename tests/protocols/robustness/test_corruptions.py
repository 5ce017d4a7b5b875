from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from bench.attacks.corruptions import SEVERITIES, Corruption, corrupt
from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.robustness.corruptions import Corruptions


@pytest.mark.parametrize("corruption", get_args(Corruption))
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_corruptions_keep_shape_and_box_and_grow_with_severity(
    corruption: Corruption, channels: int, fashion_test: ImageDataset
) -> None:
    images, ids = fashion_test.pixels(slice(0, 20)).repeat(1, channels, 1, 1), torch.arange(20)
    changes = []
    for severity in SEVERITIES:
        corrupted = corrupt(images, ids, corruption, severity)
        assert corrupted.shape == images.shape and corrupted.dtype == torch.float32
        assert corrupted.min() >= 0 and corrupted.max() <= 1
        changes.append(float((corrupted - images).abs().mean()))
    assert changes[0] > 0.002 and changes == sorted(changes)


@pytest.mark.parametrize("corruption", get_args(Corruption))
@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (1, 28), (3, 40), (64, 2)])
def test_images_of_any_size_can_be_corrupted(corruption: Corruption, sides: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *sides)
    for severity in (1, 5):
        corrupted = corrupt(images, torch.arange(2), corruption, severity)
        assert corrupted.shape == images.shape and bool(torch.isfinite(corrupted).all())


@pytest.mark.parametrize("corruption", ["gaussian_noise", "shot_noise", "impulse_noise"])
def test_noise_belongs_to_the_example_not_to_the_batch(corruption: Corruption) -> None:
    images, ids = torch.full((6, 1, 8, 8), 0.5), torch.arange(6)
    whole = corrupt(images, ids, corruption, 3)
    assert torch.equal(whole[4:], corrupt(images[4:], ids[4:], corruption, 3))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, corrupt(images, ids, corruption, 3, seed=1))


def test_accuracies_fall_with_severity_and_agree_with_the_records(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = Corruptions.from_parameters({"corruptions": ["gaussian_noise", "rotation"]}, "test")
    context = EvaluationContext(
        standard, "net", fashion_test, 0, stop=60, seed=0, device=torch.device("cpu"), batch_size=32
    )
    records = protocol.evaluate(context).records
    assert len(records) == 60 * 2 * 5
    metrics = {(m.key.metric, m.key.subject): m for m in protocol.metrics("fashion_mnist", records)}
    assert metrics["corruption_accuracy", "rotation/5"].value < metrics["clean_accuracy", ""].value
    assert metrics["corruption_accuracy", "rotation/5"].value < metrics["corruption_accuracy", "rotation/1"].value
    overall = metrics["corruption_accuracy", "all"]
    assert overall.value == pytest.approx(1 - records["broken"].mean())
    assert overall.ci_low < overall.value < overall.ci_high and overall.n_examples == 60
