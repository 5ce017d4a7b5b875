from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.attacks.cascade.stages import Stage
from bench.data import ImageDataset
from tests.attacks.linear import Thresholds
from tests.attacks.test_cascade import attack


def test_from_outside_comes_what_no_gradient_within_the_ball_shows() -> None:
    images, labels = torch.zeros(3, 1, 6, 6), torch.zeros(3, dtype=torch.int64)
    outside = Stage(steps=40, outside=3, norms=("l1",))
    nearest = 4.0 / (10 + 1 / (36 * 0.2))  # of pixel 5 alone
    inside = attack(Thresholds(), images, labels, "l1", eps=1.01 * nearest, stages=(Stage(steps=20),))
    assert not inside.broken("l1", 1.01 * nearest).any()
    for share, broken in ((1.01, True), (0.99, False)):
        found = attack(Thresholds(), images, labels, "l1", eps=share * nearest, stages=(outside,))
        assert (found.broken("l1", share * nearest) == broken).all()
    twice = attack(Thresholds(), images, labels, "l1", eps=1.01 * nearest, stages=(outside, outside))
    once = attack(Thresholds(), images, labels, "l1", eps=1.01 * nearest, stages=(outside,))
    assert twice.gradient_evaluations == once.gradient_evaluations, "what is broken is not attacked again"
    with pytest.raises(ValidationError, match="outside takes norms"):
        Stage(steps=1, outside=3)


def test_what_comes_from_outside_depends_on_no_batch(at_linf: nn.Module, fashion_test: ImageDataset) -> None:
    images, labels, ids = fashion_test.pixels(slice(0, 8)), fashion_test.labels[:8], torch.arange(8)
    stages = (Stage(steps=20, outside=3, norms=("l1",)),)
    whole = attack(at_linf, images, labels, "l1", eps=8.0, stages=stages)
    small = attack(at_linf, images, labels, "l1", eps=8.0, stages=stages, batch=5)
    parts = [slice(0, 3), slice(3, 8)]
    units = [attack(at_linf, images[i], labels[i], "l1", eps=8.0, stages=stages, ids=ids[i]) for i in parts]
    together = torch.cat([unit.distances["l1"] for unit in units])
    for other in (small.distances["l1"], together):
        torch.testing.assert_close(whole.distances["l1"], other, rtol=1e-2, atol=0)
    assert whole.broken("l1", 8.0).any() and not whole.broken("l1", 8.0).all()
