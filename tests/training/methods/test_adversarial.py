from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.training.methods import Adversarial, Trades
from tests.training.methods.nets import batch, batch_norm_net, net


def test_adversarial_training_sees_harder_images_than_clean_ones() -> None:
    model, data = net("relu"), batch()
    method = Adversarial(norm="linf", eps=0.2, steps=5)
    assert float(method.loss_terms(model, data)["adversarial_cross_entropy"]) > float(
        F.cross_entropy(model(data.images), data.labels)
    )
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_net_is_attacked_in_the_mode_asked_for() -> None:
    for mode, unmoved in (("eval", True), ("train", False)):
        model, data = batch_norm_net(), batch()
        once = batch_norm_net()
        adversarial = Adversarial(norm="linf", eps=0.1, steps=2, attack_mode=mode)
        adversarial.loss_terms(model, data)
        once(data.images)
        assert int(model[1].num_batches_tracked) == int(once[1].num_batches_tracked) + (0 if unmoved else 2)


def test_the_radius_of_adversarial_training_grows_with_the_share_of_training_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.training.methods import adversarial

    met: list[float] = []

    def remembers(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, **settings: Any) -> torch.Tensor:
        met.append(settings["eps"])
        return images

    monkeypatch.setattr(adversarial, "pgd", remembers)
    data = batch()
    method = Adversarial(norm="linf", eps=0.3, eps_warmup_share=0.5)
    for done in (0.0, 0.25, 0.5, 0.9):
        method.loss_terms(net(), dataclasses.replace(data, progress=done))
    Adversarial(norm="linf", eps=0.3).loss_terms(net(), dataclasses.replace(data, progress=0.0))
    assert met == pytest.approx([0.0, 0.15, 0.3, 0.3, 0.3])


def test_trades_raises_the_divergence_inside_the_ball() -> None:
    model, data = net("relu"), batch()
    method = Trades(eps=0.2, beta=1.0)
    adversarial = method._attack(model, data)
    assert float((adversarial - data.images).abs().max()) <= 0.2 + 1e-6
    assert float(adversarial.min()) >= 0.0 and float(adversarial.max()) <= 1.0
    gentle = Trades(eps=1e-4, beta=1.0).loss_terms(model, data)["divergence"]
    assert float(method.loss_terms(model, data)["divergence"]) > 10 * float(gentle)
