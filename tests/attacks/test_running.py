from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.attacks import AttackResult
from bench.attacks.registry import NamedAttack, described
from bench.attacks.running import Examples, fewest_changes
from bench.attacks.verification import AttackResults
from bench.core.errors import BenchError
from tests.attacks.problem import run_strangers, small_examples


def step(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor) -> AttackResult:
    """The best image of the ball: the net is linear."""
    points = images.clone().requires_grad_(True)
    logits = model(points)
    (gradient,) = torch.autograd.grad((logits.sum(1) - 2 * logits.gather(1, labels[:, None])[:, 0]).sum(), points)
    return AttackResult(images + eps.to(images.dtype).view(-1, 1, 1, 1) * gradient.sign())


def between(exact: Tensor, share: float) -> float:
    """A radius that such a share of the examples is nearer than, and that is none's own distance."""
    ordered, place = exact.sort().values, int(share * len(exact))
    return float(ordered[place - 1] + ordered[place]) / 2


def test_what_a_strangers_attack_finds_is_verified_and_counted() -> None:
    examples, exact = small_examples()
    radii = [between(exact, share) for share in (0.25, 0.75)]
    results = run_strangers(step, radii)
    for eps in radii:
        assert torch.equal(results.broken("linf", eps), exact <= eps)
    assert results.rejected == 0 and results.claims == int((exact <= radii[1]).sum())
    assert results.gradient_evaluations == len(examples) + int((exact > radii[0]).sum()), "what stands is attacked"


def test_images_alone_are_a_result_and_an_attack_takes_only_what_it_needs() -> None:
    def images_alone(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor) -> Tensor:
        found = step(model, images, labels, eps=eps).images
        assert found is not None
        return found

    _, exact = small_examples()
    eps = between(exact, 0.5)
    assert torch.equal(run_strangers(images_alone, [eps]).broken("linf", eps), exact <= eps)


def test_a_claim_outside_of_the_ball_is_rejected_and_changes_no_verdict() -> None:
    def too_far(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor) -> AttackResult:
        return step(model, images, labels, eps=100 * eps)

    def white(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return torch.full_like(images, 7.0)

    _, exact = small_examples()
    eps = between(exact, 0.5)
    far = run_strangers(too_far, [eps / 10])
    assert far.broken("linf", eps / 10).tolist() == (exact <= eps / 10).tolist(), "pulled back into the ball"
    assert far.outside == far.rejected == int((exact > eps / 10).sum())
    assert not (run_strangers(white, [eps / 10]).broken("linf", eps / 10) & (exact > eps / 10)).any()


def test_a_minimum_attacks_images_count_in_every_ball_that_holds_them() -> None:
    _, exact = small_examples()
    radii = [between(exact, share) for share in (0.2, 0.5, 0.8)]

    def nearest(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor, ids: Tensor) -> AttackResult:
        assert eps.dtype == torch.float64 and set(eps.tolist()) == {radii[-1]}
        return step(model, images, labels, eps=exact[ids] * 1.001)

    results = run_strangers(nearest, radii, kind="minimum")
    assert [int(results.broken("linf", eps).sum()) for eps in radii] == [
        int((exact * 1.001 <= eps).sum()) for eps in radii
    ]
    assert results.rejected == results.outside == 0, "an image beyond the largest radius claims nothing"


def test_a_curve_gives_images_for_each_radius() -> None:
    _, exact = small_examples()
    radii = [between(exact, share) for share in (0.2, 0.8, 0.5)]

    def curve(model: nn.Module, images: Tensor, labels: Tensor, *, radii: Tensor) -> AttackResult:
        assert radii.tolist() == sorted(radii.tolist(), reverse=True)
        found = [step(model, images, labels, eps=eps.expand(len(images))).images for eps in radii]
        return AttackResult(torch.stack([one for one in found if one is not None]))

    results = run_strangers(curve, radii, kind="curve")
    for eps in radii:
        assert torch.equal(results.broken("linf", eps), exact <= eps)


def test_random_numbers_are_the_attacks_own_whatever_it_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def reckless(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        noise = torch.rand_like(images)
        drawn.append((noise.clone(), random.random(), np.random.rand()))  # noqa: NPY002
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        return images + 0.01 * noise

    states = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.rand
        run_strangers(reckless, [0.1])
        states.append(torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate())
    assert all(states)
    assert torch.equal(drawn[0][0], drawn[1][0]) and drawn[0][1:] == drawn[1][1:]


def test_what_an_attack_writes_into_its_images_and_labels_stays_there() -> None:
    def vandal(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        images.fill_(0.9)
        labels.zero_()
        return images

    examples, exact = small_examples()
    before = examples.images.clone(), examples.labels.clone()
    eps = float(exact.min()) / 2
    results = run_strangers(vandal, [eps], examples=examples)
    assert torch.equal(examples.images, before[0]) and torch.equal(examples.labels, before[1])
    assert not results.broken("linf", eps).any() and results.outside == results.claims > 0


def fail(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    raise ZeroDivisionError("by\nnothing")


def leave(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    raise SystemExit(0)


def train(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    for parameter in model.parameters():
        parameter.zero_()
    return images


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "exception": (fail, r"failed on this model: ZeroDivisionError: by nothing; mend it"),
    "exit": (leave, r"SystemExit"),
    "nothing": (lambda model, images, labels: None, "returns a NoneType"),
    "one image less": (lambda model, images, labels: images[1:], r"of shape \(23, 1, 6, 6\), not \(24, 1, 6, 6\)"),
    "double": (lambda model, images, labels: images.double(), "of torch.float64, not of torch.float32"),
    "NaN": (lambda model, images, labels: images / 0 * 0, "NaN or infinite pixels"),
    "elsewhere": (lambda model, images, labels: images.to("meta"), "on meta, not on the model's cpu"),
    "an argument too many": (lambda model, images, labels, more: images, "TypeError.*more"),
    "changed weights": (train, "changes the model"),
}


class Moody(nn.Module):
    """Falls for no noise in eval mode, for any in train mode; counts its calls, and keeps statistics as it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("statistics", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.statistics += float(self.training)
        right = images.flatten(1).sum(1) * 0 + (-1.0 if self.training else 1.0)
        return torch.stack([right, -right], 1)


def moody_examples() -> Examples:
    labels = torch.zeros(4, dtype=torch.int64)
    return Examples(Moody().eval(), torch.rand(4, 1, 2, 2), labels, torch.arange(4), num_classes=2)


def test_what_an_attack_leaves_in_train_mode_is_judged_in_eval_mode() -> None:
    def left(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model(images)
        model.train()
        return images

    assert not run_strangers(left, [0.1], examples=moody_examples()).broken("linf", 0.1).any()


def test_statistics_that_an_attack_changes_are_the_models_but_not_what_it_counts_itself() -> None:
    def training(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model.train()(images)
        return images

    with pytest.raises(BenchError, match="attack mine changes the model"):
        run_strangers(training, [0.1], examples=moody_examples())


def test_an_attack_in_l0_changes_neither_the_images_nor_the_model() -> None:
    def vandal(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        images[:, :, 0, 0] = 1.0 - images[:, :, 0, 0]
        return images

    def changes_of(function: Callable[..., Any]) -> Tensor:
        run = NamedAttack(described(function, "mine", norms=("l0",), kind="minimum", trusted=False), "mine", {})
        return fewest_changes(run, examples, AttackResults.start(examples.labels, examples.labels))[0]

    examples, _ = small_examples()
    before = examples.images.clone()
    assert set(changes_of(vandal).tolist()) <= {1.0, torch.inf} and torch.equal(examples.images, before)
    with pytest.raises(BenchError, match="attack mine changes the model"):
        changes_of(train)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_attack_gets_one_line_that_names_it(name: str) -> None:
    function, said = BAD[name]
    with pytest.raises(BenchError, match=said) as error:
        run_strangers(function, [0.1])
    assert "attack mine" in str(error.value) and "\n" not in str(error.value)
