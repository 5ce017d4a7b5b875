from __future__ import annotations

import pytest
from torch import nn

from bench.attacks.pgd import attacked_model


@pytest.mark.parametrize("train_mode", [False, True])
def test_every_modules_mode_and_every_parameters_gradient_are_put_back_also_after_an_error(train_mode: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.Sequential(nn.Linear(2, 2)))
    net.train()
    net[1].eval()
    net[3].eval()
    net[3][0].train()
    net[0].requires_grad_(False)

    def condition() -> list[object]:
        return [*(one.training for one in net.modules()), *(one.requires_grad for one in net.parameters())]

    before = condition()
    with pytest.raises(ValueError, match="no"), attacked_model(net, train_mode=train_mode):
        assert {one.training for one in net.modules()} == {train_mode}
        assert not any(one.requires_grad for one in net.parameters())
        raise ValueError("no")
    assert condition() == before
