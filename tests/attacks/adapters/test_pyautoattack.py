from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults


class NoAnswerFarOff(nn.Module):
    """NaN where no image is as near as `reach` in L2."""

    def __init__(self, images: Tensor, reach: float) -> None:
        super().__init__()
        self.images, self.reach = images, reach
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 4)).requires_grad_(False)
        self.layers[3].weight *= 6

    def forward(self, images: Tensor) -> Tensor:
        nearest = torch.cdist(images.flatten(1), self.images.flatten(1)).amin(1)
        return torch.where((nearest > self.reach)[:, None], torch.nan, self.layers(images))


def test_points_without_an_answer_count_in_the_ball_only() -> None:
    """Points that FAB meets outside of it took the place of what it had found inside."""
    torch.manual_seed(2)
    images, found = torch.rand(24, 1, 8, 8) * 0.6 + 0.2, []
    for reach in (torch.inf, 0.42, 0.38):
        net = NoAnswerFarOff(images, reach).eval()
        labels = net(images).argmax(1)
        results = AttackResults.start(labels, labels)
        run = named_attack("pyautoattack:fab", {"iterations": 10})
        run_attack(run, Examples(net, images, labels, torch.arange(24), num_classes=4), "l2", [0.4], results=results)
        assert results.outside == results.rejected == 0
        found.append(int(results.broken("l2", 0.4).sum()))
    assert found[0] > 0 and found[1] >= found[0] and found[2] > found[1]
