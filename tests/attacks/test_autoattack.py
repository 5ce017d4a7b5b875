from __future__ import annotations

import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.adapters.pyautoattack import Version
from bench.attacks.apgd.attack import apgd_ce
from bench.attacks.fab.attack import fab_targeted
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.core.errors import BenchError
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset
from tests.attacks.linear import Summing, linear_problem


def attack(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, classes: int = 10, batch: int = 256,
    steps: int = 100, queries: int = 5000, version: Version = "standard",
) -> AttackResults:  # fmt: skip
    """The version's attacks, each on what those before it left standing."""
    with torch.no_grad():
        results = AttackResults.start(model(images).argmax(1), labels)
    examples = Examples(model, images, labels, torch.arange(len(labels)), num_classes=classes, batch_size=batch)
    components = {
        "apgd-ce": {"iterations": steps}, "apgd-dlr": {"iterations": steps}, "pyautoattack:fab": {"iterations": steps},
        "apgd-t": {"iterations": steps}, "fab-t": {"iterations": steps}, "square": {"queries": queries},
    }  # fmt: skip
    for name, keywords in components.items():
        if version == "plus" or name not in ("apgd-dlr", "pyautoattack:fab"):
            run_attack(named_attack(name, keywords), examples, norm, [eps], results=results)
    return results


def net(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(classes)
    channels, height, width = shape
    layers = (nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * height * width, classes))
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", NORMS)
def test_the_components_take_a_net_that_first_sums_the_image(norm: Norm) -> None:
    images, labels = torch.full((3, 1, 3, 3), 0.4), torch.zeros(3, dtype=torch.int64)
    radii = torch.full((3,), 9.0, dtype=torch.float64)
    found = [
        apgd_ce(Summing(), images, labels, norm=norm, eps=radii, ids=labels, iterations=6),
        fab_targeted(Summing(), images, labels, norm=norm, eps=radii, iterations=6, targets=2),
    ]
    assert all((Summing()(result.images).argmax(1) != labels).all() for result in found)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 11])
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_every_component_works_for_any_number_of_classes(classes: int, version: Version) -> None:
    model, images = net(classes, (3, 10, 10)), torch.rand(6, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    results = attack(model, images, labels, "linf", eps=0.3, classes=classes, steps=5, queries=5, version=version)
    assert results.broken("linf", 0.3).any(), "an untrained net is easy to break"
    assert results.rejected == 0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 14, 14), (3, 7, 18), (1, 4, 30)])
def test_batches_of_one_of_any_shape_work(norm: Norm, shape: tuple[int, int, int]) -> None:
    model = net(3, shape)
    images = torch.rand(1, *shape, generator=torch.Generator().manual_seed(2))
    labels = model(images).argmax(1)
    results = attack(model, images, labels, norm, eps=0.01, classes=3, steps=3, queries=3)
    assert results.rejected == 0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_components_do_not_depend_on_the_batch_size(norm: Norm) -> None:
    model, images, labels = linear_problem(15)
    eps = float(model.exact_distance(images, norm).median())
    whole, parts = (
        attack(model, images, labels, norm, eps=eps, classes=2, batch=batch, steps=6, queries=8) for batch in (256, 7)
    )
    assert torch.equal(whole.broken(norm, eps), parts.broken(norm, eps))
    assert whole.broken(norm, eps).any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_exactly_the_breakable_images_of_a_linear_classifier_break(norm: Norm) -> None:
    model, images, labels = linear_problem(30)
    exact = model.exact_distance(images, norm)
    eps = float(exact.median())
    broken = attack(model, images, labels, norm, eps=eps, classes=2, steps=20, queries=10).broken(norm, eps)
    assert not broken[exact > eps].any()
    assert broken[exact < 0.98 * eps].all()


def test_only_standing_examples_are_given_and_the_generator_is_left_alone(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 30)), fashion_test.labels[:30]
    results = AttackResults.start(standard(images).argmax(1), labels)
    right = int((~results.broken("linf", 0.03)).sum())
    given = []

    class Counted(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            given.append(len(batch))
            return standard(batch)

    examples = Examples(Counted(), images, labels, torch.arange(30), num_classes=10)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for name in ("apgd-ce", "pyautoattack:apgd-dlr"):
        run_attack(named_attack(name, {"iterations": 10}), examples, "linf", [0.03], results=results)
        assert max(given) == right
        right = int((~results.broken("linf", 0.03)).sum())
        given.clear()
    assert torch.equal(before, torch.get_rng_state())


def test_the_prepared_model_takes_empty_batches_and_gives_the_same_gradients_in_parts() -> None:
    model = net(4, (3, 8, 8)).requires_grad_(False)
    images = torch.rand(10, 3, 8, 8).requires_grad_()
    whole, parts = PreparedModel(model, 4, 256), PreparedModel(model, 4, 3)
    assert whole(images[:0]).shape == (0, 4)
    gradients = [torch.autograd.grad(prepared(images).square().sum(), images)[0] for prepared in (whole, parts)]
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].is_contiguous() and whole.gradients == 10


def test_a_net_without_gradients_is_refused_with_a_way_out(fashion_test: ImageDataset) -> None:
    class Detached(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().flatten(1)[:, 300:310]

    images, labels = fashion_test.pixels(slice(0, 8)), fashion_test.labels[:8]
    labels = Detached()(images).argmax(1)
    with pytest.raises(BenchError, match=r"apgd-ce .* failed on this model: .*blackbox"):
        attack(Detached(), images, labels, "linf", eps=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "norm", "eps"),
    [("standard", "linf", 0.02), ("at_linf", "linf", 0.1), ("at_linf", "l2", 1.5), ("lga", "l2", 0.5)],
)
def test_whatever_plain_autoattack_breaks_breaks(
    request: pytest.FixtureRequest, fashion_test: ImageDataset, fixture: str, norm: Norm, eps: float
) -> None:
    """The golden test: 100 images, the standard version; at most one image of 500 may stand through chance."""
    model: nn.Module = request.getfixturevalue(fixture)
    images, labels = fashion_test.pixels(slice(0, 100)), fashion_test.labels[:100]
    plain = AutoAttack(model, norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm], eps=eps, seed=0)
    found, _ = plain.run_standard_evaluation(images, labels)
    theirs = model(found).argmax(1) != labels
    ours = attack(model, images, labels, norm, eps=eps).broken(norm, eps)
    assert int((theirs & ~ours).sum()) <= 0.002 * len(labels)
    assert int(ours.sum()) >= int(theirs.sum())
