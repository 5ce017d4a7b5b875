from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.attributions import manipulations
from bench.attributions.activations import SoftplusTwin, has_relu, smooth
from bench.attributions.heat_maps import divided_by_mean, heat_maps, mass_centres
from bench.attributions.manipulate import Manipulated, heat_maps_and_logits, make_goal, manipulate
from bench.attributions.manipulations import (
    FrameTarget,
    MapAttack,
    MassCentre,
    RandomSign,
    TargetImage,
    TargetRegion,
    TopK,
    emptiest_quarter,
    frame_map,
)
from bench.attributions.registry import AttributionMethod, MapRequest, attribute, find_method, our_methods
from bench.attributions.similarity import PreparedMaps, similarities

EPS = 8 / 255
ATTACKS = [FrameTarget, TargetImage, TopK, MassCentre, TargetRegion]


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    kind: MapAttack,
    method: AttributionMethod | None = None,
    eps: float = EPS,
    ids: Tensor | None = None,
    seed: int = 0,
    check_every: int = 2,
) -> Manipulated:
    method, ids = method or find_method("gradient"), torch.arange(len(images)) if ids is None else ids
    request = MapRequest(images, labels, ids, seed)
    maps, logits = heat_maps_and_logits(model, request, method)
    donors = maps.roll(1, 0).detach()
    goal = make_goal(kind, maps.detach(), logits.detach(), donors, top_share=0.1)
    return manipulate(model, request, method, kind, goal=goal, eps=eps, check_every=check_every)


def maps_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return heat_maps(attribute(model, images, labels, find_method("gradient")))


@pytest.mark.parametrize("kind", [*ATTACKS, RandomSign])
def test_every_image_stays_in_its_ball_and_keeps_its_prediction(
    kind: type[MapAttack], standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images[0][:32], fashion_images[1][:32]
    found = attack(standard, images, labels, kind(steps=6))
    assert (found.images.double() - images.double()).abs().max() <= EPS * (1 + 1e-6)
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert torch.equal(standard(found.images).argmax(1), standard(images).argmax(1))
    changed = (found.images != images).flatten(1).any(1)
    assert changed.float().mean() > 0.5  # a weak attack may find nothing stronger than the clean image
    assert found.claims >= int(changed.sum()) and found.rejected_claims == 0
    assert found.kept[changed].all()


def measure(kind: type[MapAttack], model: nn.Module, images: Tensor, clean: Tensor, labels: Tensor) -> float:
    """What the attack is after, smaller is stronger, in its authors' own measure."""
    before, after = maps_of(model, clean, labels), maps_of(model, images, labels)
    if kind is TopK:
        return float(similarities(PreparedMaps(before), PreparedMaps(after), ["top_k"])["top_k"].mean())
    if kind is MassCentre:
        return -float((mass_centres(before) - mass_centres(after)).norm(dim=1).mean())
    target = {
        FrameTarget: frame_map(before, 5 / 32),
        TargetRegion: emptiest_quarter(before),
        TargetImage: before.roll(1, 0),
    }[kind]
    return -float(similarities(PreparedMaps(after), PreparedMaps(target), ["cosine"])["cosine"].mean())


@pytest.mark.parametrize("name", ["standard", "lga"])
@pytest.mark.parametrize("kind", ATTACKS)
def test_every_attack_reaches_its_aim_better_than_random_signs(
    kind: type[MapAttack], name: str, standard: nn.Module, lga: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images[0][:20], fashion_images[1][:20]
    model = {"standard": standard, "lga": lga}[name]
    found = attack(model, images, labels, kind(steps=10))
    control = attack(model, images, labels, RandomSign())
    reached, without = (
        measure(kind, model, found.images, images, labels=labels),
        measure(kind, model, control.images, images, labels=labels),
    )
    untouched = measure(kind, model, images, images, labels=labels)
    assert reached < without - 0.02 and reached < untouched - 0.02


def test_a_larger_ball_and_more_steps_are_stronger(standard: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    images, labels = fashion_images[0][:20], fashion_images[1][:20]
    values = [
        measure(
            TopK, standard, attack(standard, images, labels, TopK(steps=steps), eps=eps).images, images, labels=labels
        )
        for steps, eps in ((2, 2 / 255), (10, 2 / 255), (10, 8 / 255))
    ]
    assert values[0] > values[1] > values[2]


def test_an_attack_does_not_depend_on_the_batch_and_its_noise_goes_with_the_example(
    lga: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images[0][:12], fashion_images[1][:12]
    for kind in (FrameTarget(steps=3), MassCentre(steps=3), RandomSign()):
        whole = attack(lga, images, labels, kind, ids=torch.arange(50, 62)).images
        chosen = torch.tensor([9, 2])
        part = attack(lga, images[chosen], labels[chosen], kind, ids=50 + chosen).images
        assert ((part - whole[chosen]).abs() < 1e-4).float().mean() > 0.99  # float32 sums differ in their last digit
    signs = [attack(lga, images, labels, RandomSign(), seed=seed).images for seed in (0, 0, 1)]
    assert torch.equal(signs[0], signs[1]) and not torch.equal(signs[0], signs[2])


@pytest.mark.parametrize("name", [name for name, one in our_methods().items() if one.differentiable][1:])
def test_other_differentiable_maps_can_be_attacked(
    name: str, standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images[0][:12], fashion_images[1][:12]
    few = {"smoothgrad": {"samples": 2}, "integrated_gradients": {"steps": 3}}
    method = find_method(name).given(**few.get(name, {}))
    found = attack(standard, images, labels, TopK(steps=6), method=method)
    before, after = (PreparedMaps(heat_maps(attribute(standard, x, labels, method))) for x in (images, found.images))
    control = PreparedMaps(
        heat_maps(
            attribute(standard, attack(standard, images, labels, RandomSign(), method=method).images, labels, method)
        )
    )
    kept = [float(similarities(before, other, ["top_k"])["top_k"].mean()) for other in (after, control)]
    assert kept[0] < kept[1]


class Touchy(nn.Module):
    """Any change of the first pixel by more than a hair changes the prediction."""

    def forward(self, images: Tensor) -> Tensor:
        score = torch.nn.functional.softplus(images.flatten(1)).square().sum(1) * 0.01
        flip = 1000.0 * (images[:, 0, 0, 0] - 0.5).abs()
        return torch.stack([score, score + flip - 0.5], dim=1)


def test_where_the_prediction_cannot_be_kept_the_clean_image_stands_and_it_is_said() -> None:
    images, labels = torch.full((3, 1, 12, 12), 0.5), torch.zeros(3, dtype=torch.int64)
    found = attack(Touchy(), images, labels, RandomSign())
    assert not found.kept.any() and found.claims == 0
    assert torch.equal(found.images, images)


@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "lrp_epsilon_plus"])
def test_a_step_takes_no_pass_beyond_its_own_and_does_not_wait(
    name: str, standard: nn.Module, fashion_images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ten more steps cost; whether a method that goes by rules computes the net is looked at in the first."""
    counts = dict.fromkeys(("waits", "copies", "centres"), 0)

    def counted(what: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[what] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(manipulations, "mass_centres", counted("centres", mass_centres))
    monkeypatch.setattr(Tensor, "__bool__", counted("waits", Tensor.__bool__))
    monkeypatch.setattr(Tensor, "new_tensor", counted("copies", Tensor.new_tensor))
    images, labels = fashion_images[0][:2], fashion_images[1][:2]
    seen = []
    for steps in (2, 12):
        passes: list[object] = []
        hook = standard.register_forward_hook(lambda *_, passes=passes: passes.append(None))
        counts.update(dict.fromkeys(counts, 0))
        attack(standard, images, labels, MassCentre(steps=steps), method=find_method(name), check_every=100)
        hook.remove()
        seen.append({**counts, "passes": len(passes)})
    more = {what: seen[1][what] - seen[0][what] for what in seen[0]}
    assert more == {"waits": 0, "copies": 0, "centres": 10, "passes": 10 if name == "gradient" else 20}


def test_a_linear_net_gives_no_gradient_and_that_is_counted() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).requires_grad_(False)
    found = attack(net, torch.rand(5, 1, 12, 12), torch.arange(5) % 3, TopK(steps=2))
    assert found.flat_gradients == 5


def test_nan_gradients_are_counted_and_do_not_spread() -> None:
    class Bad(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            flat = images.flatten(1)
            return torch.stack([flat.square().sum(1) + 0 * (flat[:, :5] * 0).sqrt().sum(1), flat.sum(1)], dim=1)

    found = attack(Bad(), torch.rand(4, 1, 12, 12) * 0.5 + 0.2, torch.zeros(4, dtype=torch.int64), TopK(steps=2))
    assert found.bad_gradients > 0
    assert found.images.isfinite().all()


def test_the_softplus_twin_comes_close_to_the_relu_net_and_leaves_it_as_it_was(
    standard: nn.Module, lga: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images = fashion_images[0]
    before = standard(images)
    with smooth(1e4):
        torch.testing.assert_close(standard(images), before, atol=1e-2, rtol=1e-2)
    with SoftplusTwin(3.0):
        assert not torch.allclose(standard(images), before, atol=0.1)
        assert not torch.allclose(torch.relu(images - 1), torch.zeros_like(images))
    assert torch.equal(standard(images), before)
    assert has_relu(standard, images[:1]) and not has_relu(lga, images[:1])
    assert has_relu(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(inplace=True)), images[:1])


def test_the_frame_is_five_of_32_pixels_wide_and_half_the_map() -> None:
    frame = frame_map(torch.zeros(1, 32, 32), 5 / 32)[0]
    assert frame[:5].all() and frame[:, -5:].all() and not frame[5:-5, 5:-5].any()
    assert float(frame.mean()) == pytest.approx(0.527, abs=1e-3)
    assert int(frame_map(torch.zeros(1, 224, 224), 5 / 32)[0, 100].sum()) == 70


def test_the_emptiest_quarter_is_that_with_the_least_mass() -> None:
    maps = torch.ones(2, 4, 6)
    maps[0, :2, 3:] = 0.1
    maps[1, 2:, :3] = 0.0
    quarters = emptiest_quarter(maps)
    assert quarters[0, :2, 3:].all() and quarters[0].sum() == 6
    assert quarters[1, 2:, :3].all() and quarters[1].sum() == 6


def test_the_target_images_beta_grows_geometrically_from_10_to_100() -> None:
    betas = TargetImage(steps=5).betas()
    assert betas[0] == 10 and betas[-1] == pytest.approx(100)
    assert betas[1] / betas[0] == pytest.approx(betas[4] / betas[3])


def test_a_map_over_its_mean_does_not_depend_on_scale_and_zero_stays_zero() -> None:
    maps = torch.rand(2, 5, 5)
    torch.testing.assert_close(divided_by_mean(1e-6 * maps), divided_by_mean(maps))
    assert not divided_by_mean(torch.zeros(1, 5, 5)).any()
    assert mass_centres(torch.zeros(1, 5, 7)).tolist() == [[2.0, 3.0]]
