from __future__ import annotations

import pytest
import torch

from bench.training import boundary_tilt
from bench.training.boundary_tilt import Weights, attack, input_gradients, logits, make_data


def some_weights(count: int = 3) -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = ((count, 2, 128), (count, 1, 128), (count, 128, 2), (count, 1, 2))
    return Weights(*(torch.randn(shape, generator=generator) for shape in shapes))


def test_the_clouds_are_those_of_the_paper() -> None:
    data = make_data()
    assert (float(data.points.min()), float(data.points.max())) == (-1.0, 1.0)
    assert data.means[0].tolist() == pytest.approx([0.497, 0.023], abs=0.002)
    assert data.means[1].tolist() == pytest.approx([-0.532, -0.063], abs=0.002)
    between = boundary_tilt._angle(data.means[0] - data.means[1], data.major)
    assert float(between) == pytest.approx(10.5, abs=0.2)


def test_written_out_gradients_are_autograds() -> None:
    weights, labels = some_weights(), torch.tensor([[0, 1, 1, 0]]).expand(3, -1)
    points = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    inputs = points.clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(logits(weights, inputs).flatten(0, 1), labels.flatten(), reduction="sum")
    (expected,) = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(input_gradients(weights, points, None, labels.float()), expected, rtol=1e-3, atol=1e-5)


def test_the_attack_stays_in_its_ball_and_raises_the_loss() -> None:
    weights, labels = some_weights(), torch.tensor([[0, 1, 1, 0]]).expand(3, -1)
    points = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    eps = torch.tensor([0.0, 0.1, 0.3]).view(3, 1, 1)
    moved = attack(weights, points, labels.float(), eps)
    lengths = (moved - points).norm(dim=-1)
    assert torch.equal(moved[0], points[0])
    assert float((lengths - eps.squeeze(-1)).max()) < 1e-6 and float(moved.abs().max()) <= 1

    def loss(at: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits(weights, at).transpose(1, 2), labels, reduction="none")

    assert bool((loss(moved)[1:] > loss(points)[1:]).all())


def test_adversarial_training_turns_the_boundary_towards_the_class_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs in place of ten: the order of the strengths is there already, the angles are not yet the paper's."""
    monkeypatch.setattr(boundary_tilt, "_EPOCHS", 2)
    study = boundary_tilt.run_tilt(range(1))
    nets = {net.strength: net for net in study.nets}
    for name in ("tilt_from_means", "perturbation_angle", "minor_offset", "nearest_distance"):
        values = [getattr(nets[strength], name) for strength in ("standard", "weak", "strong")]
        assert values[0] > values[1] > 0, name
        assert values[0] > values[2] > 0, name
    assert min(net.accuracy for net in study.nets) > 0.99
    assert set(study.adversarial) == {"standard", "weak", "strong"}


@pytest.mark.slow
def test_angles_are_those_of_an_independent_run() -> None:
    """Against another implementation's mean over five seeds (Bridging, section 2): within three of its deviations."""
    study = boundary_tilt.run_tilt(range(5))
    expected = {"standard": (47.0, 36.5, 0.509), "weak": (20.6, 10.1, 0.141), "strong": (10.6, 0.4, 0.064)}
    for strength, (tilt, from_means, offset) in expected.items():
        nets = [net for net in study.nets if net.strength == strength]
        assert sum(net.tilt for net in nets) / 5 == pytest.approx(tilt, abs=2.0)
        assert sum(net.tilt_from_means for net in nets) / 5 == pytest.approx(from_means, abs=2.0)
        assert sum(net.minor_offset for net in nets) / 5 == pytest.approx(offset, abs=0.03)
