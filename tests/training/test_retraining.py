from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.attributions.pixel_scores import free_scores, pixel_ranks
from bench.data import ImageDataset
from bench.training.retraining import (
    Mask,
    MaskedImages,
    RetrainSchedule,
    _View,
    example_order,
    fresh_net,
    learning_rate,
    retrain,
)

PARAMETERS: dict[str, Any] = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [0.286], "std": [0.353]}
SCHEDULE = RetrainSchedule("patch_cnn", PARAMETERS, 2, 50, learning_rate=4e-3, decay=True)
MASKS = [Mask(78, 784), Mask(549, 784), Mask(0, 235)]
CPU = torch.device("cpu")


def data(dataset: ImageDataset, start: int, stop: int, **changes: Any) -> MaskedImages:
    part = slice(start, stop)
    ids = torch.arange(start, stop)
    places = pixel_ranks(free_scores(dataset.pixels(part), ids, "random"), ids)
    return MaskedImages(dataset.images[part], places, dataset.labels[part], torch.tensor([0.29]), **changes)


def masked(images: MaskedImages, chosen: Tensor, mask: Mask) -> Tensor:
    places = images.ranks[chosen][:, None]
    kept = (places >= mask.first_kept) & (places < mask.last_kept)
    pixels = torch.ones(len(chosen), 1, 28, 28) if images.shapes_only else images.images[chosen] / 255.0
    return torch.where(kept, pixels, 0.29)


@pytest.mark.parametrize("shapes_only", [False, True])
def test_masked_batches_are_those_that_comparisons_give(fashion_test: ImageDataset, shapes_only: bool) -> None:
    from bench.nets.stacked_nets import Cells

    images = data(fashion_test, 0, 20, shapes_only=shapes_only)
    view = _View(images, MASKS, fresh_net(SCHEDULE, 0), cells=Cells(), device=CPU)
    chosen = torch.tensor([3, 11, 19])
    found = view.images(chosen[None])
    for mask, batch in zip(MASKS, found, strict=True):
        torch.testing.assert_close(batch * 0.353 + 0.286, masked(images, chosen, mask), rtol=0, atol=1e-6)


def test_training_side_by_side_ends_where_training_each_alone_ends(fashion_test: ImageDataset) -> None:
    training, test = data(fashion_test, 0, 600), data(fashion_test, 2000, 2400)
    together = retrain(MASKS, [0, 1], SCHEDULE, training, test=test, device=CPU).float().mean(2)
    for (row, seed), (column, mask) in itertools.product(enumerate([0, 1]), enumerate(MASKS)):
        net = fresh_net(SCHEDULE, seed)
        optimizer = torch.optim.Adam(net.parameters())
        for epoch in range(2):
            order = example_order(seed, epoch, 600)
            for step in range(12):
                chosen = order[50 * step : 50 * step + 50]
                optimizer.param_groups[0]["lr"] = learning_rate(SCHEDULE, 12 * epoch + step, 24)
                loss = F.cross_entropy(net(masked(training, chosen, mask)), training.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        alone = (net(masked(test, torch.arange(400), mask)).argmax(1) == test.labels).float().mean()
        assert float(alone) > 0.3
        assert abs(float(together[row, column]) - float(alone)) <= 0.01


def test_a_net_does_not_feel_which_others_are_trained_beside_it(fashion_test: ImageDataset) -> None:
    training, test = data(fashion_test, 0, 300), data(fashion_test, 2000, 2200)
    few = retrain(MASKS[:1], [1], SCHEDULE, training, test=test, device=CPU)
    many = retrain(MASKS, [0, 1], SCHEDULE, training, test=test, device=CPU)
    assert float((few[0, 0] != many[1, 0]).float().mean()) <= 0.01
    assert float((many[0, 0] != many[1, 0]).float().mean()) > 0.02  # the other seed is another net


def test_pixels_that_are_masked_are_not_learnt_from(fashion_test: ImageDataset) -> None:
    """With nothing but fill left, every image looks the same and the net is right by chance alone."""
    training, test = data(fashion_test, 0, 500), data(fashion_test, 2000, 2400)
    (correct,) = retrain([Mask(784, 784)], [0], SCHEDULE, training, test=test, device=CPU)
    assert float(correct.float().mean()) == pytest.approx(0.1, abs=0.06)


def test_half_precision_products_end_at_much_the_same_accuracy(fashion_test: ImageDataset) -> None:
    training, test = data(fashion_test, 0, 600), data(fashion_test, 2000, 2400)
    exact = retrain(MASKS[:1], [0, 1], SCHEDULE, training, test=test, device=CPU).float().mean()
    schedule = RetrainSchedule("patch_cnn", PARAMETERS, 2, 50, learning_rate=4e-3, decay=True, precision="bfloat16")
    rough = retrain(MASKS[:1], [0, 1], schedule, training, test=test, device=CPU).float().mean()
    assert abs(float(exact - rough)) < 0.05
