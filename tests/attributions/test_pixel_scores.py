from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import (
    FREE_MAPS,
    MAPS,
    blurred,
    constant_maps,
    free_scores,
    pixel_ranks,
    pixel_scores,
    predicted_gradient,
)
from bench.attributions.registry import attribute, find_method, our_methods
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_normal
from bench.data import ImageDataset


def true_gradient(model: nn.Module, images: Tensor) -> Tensor:
    """Of the cross-entropy at the predicted label, in float64."""
    net = copy.deepcopy(model).double()
    inputs = images.double().requires_grad_(True)
    logits = net(inputs)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1), reduction="sum"), inputs)
    return gradient


def test_the_cross_entropy_map_is_the_float64_gradient_even_where_float32_would_vanish(
    standard: nn.Module,
    fashion_images: tuple[Tensor, Tensor],
) -> None:
    images = fashion_images[0]
    expected = true_gradient(standard, images)
    found, factors = predicted_gradient(standard, images, "cross_entropy")
    believable = factors > 1e-11  # below that the reference itself is rounding, even in float64
    expected, found, factors = expected[believable], found[believable], factors[believable]
    directions = [F.normalize(each.double().flatten(1), dim=1, eps=1e-300) for each in (found, expected)]
    cosine = (directions[0] * directions[1]).sum(1)  # torch's own cosine clamps norms at 1e-8
    assert float(cosine.min()) > 1 - 1e-5
    scale = expected.flatten(1).norm(dim=1) / found.double().flatten(1).norm(dim=1)
    torch.testing.assert_close(scale, factors.double(), rtol=1e-3, atol=0)
    assert float(factors.min()) < 1e-8  # a confident image is among them, or this would prove nothing


@pytest.mark.parametrize("name", MAPS)
def test_scores_times_what_was_left_out_are_the_map_in_float64(
    name: str, standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, ids = fashion_images[0][:20], torch.arange(20)
    scores, factors = pixel_scores(standard, images, ids, name)
    if name == "integrated_gradients":
        ways = [0.5 + (point + 0.5) / 16 * (images - 0.5) for point in range(16)]
    elif name == "smoothgrad":
        noise = [keyed_normal(0, "pixel_scores", ids, (1, 28, 28), extra=torch.full_like(ids, at)) for at in range(16)]
        ways = [(images + 0.15 * one).clamp(0, 1) for one in noise]
    else:
        ways = [images]
    expected = sum(true_gradient(standard, one) for one in ways) / len(ways)
    if name in ("input_x_gradient", "integrated_gradients"):
        expected = expected * (images - 0.5)
    expected = expected.abs().sum(1).flatten(1).median(1).values
    found = (scores.double() * factors.double().view(-1, 1, 1)).flatten(1).median(1).values
    believable = expected > 1e-13  # below that the reference itself is rounding
    torch.testing.assert_close(found[believable], expected[believable], rtol=1e-3, atol=0)
    assert int(believable.sum()) > 10


@settings(max_examples=25)
@given(st.integers(0, 2**31 - 1), st.integers(1, 4))
def test_ranks_are_a_permutation_that_follows_the_scores(seed: int, levels: int) -> None:
    scores = torch.randint(0, levels, (6, 5, 5), generator=torch.Generator().manual_seed(seed)).float()
    ids = torch.arange(6)
    found = pixel_ranks(scores, ids)
    assert torch.equal(found.flatten(1).sort(1).values, torch.arange(25, dtype=torch.int16).expand(6, 25))
    for level in range(1, levels):
        for image in range(6):
            above = found[image][scores[image] >= level]
            assert len(above) == 0 or int(above.max()) == len(above) - 1
    assert torch.equal(pixel_ranks(scores[2:4], ids[2:4]), found[2:4])  # whatever the batch


def test_ranks_of_large_images_do_not_wrap_around() -> None:
    scores = torch.arange(182 * 182, dtype=torch.float32).flip(0).view(1, 182, 182)
    assert torch.equal(pixel_ranks(scores, torch.arange(1)).flatten(), torch.arange(182 * 182, dtype=torch.int32))


def test_ties_are_broken_differently_in_every_image() -> None:
    found = pixel_ranks(torch.zeros(50, 8, 8), torch.arange(50))
    first = [int((image == 0).flatten().nonzero()) for image in found]
    assert len(set(first)) > 20


@pytest.mark.parametrize("name", MAPS)
def test_every_map_is_positive_varied_and_independent_of_the_batch(
    name: str, standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, ids = fashion_images[0][:8], torch.arange(8)
    scores, _ = pixel_scores(standard, images, ids, name)
    assert scores.shape == (8, 28, 28) and float(scores.min()) >= 0 and not constant_maps(scores).any()
    alone, _ = pixel_scores(standard, images[3:5], ids[3:5], name)
    torch.testing.assert_close(alone, scores[3:5], rtol=1e-3, atol=1e-6)


def test_grey_pixels_score_0_times_their_gradient(standard: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    images = fashion_images[0][:4].clone()
    images[:, :, 10] = 0.5
    plain, _ = pixel_scores(standard, images, torch.arange(4), "gradient")
    times_input, _ = pixel_scores(standard, images, torch.arange(4), "input_x_gradient")
    assert float(times_input[:, 10].max()) == 0 and float(plain[:, 10].min()) > 0


def test_maps_are_named_as_methods_and_agree_where_they_mean_the_same(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    """The logit's gradient at the predicted label; times the input, only up to where the pixels' zero is."""
    assert set(MAPS) <= set(our_methods())
    images, ids = fashion_images[0][:8], torch.arange(8)
    predicted = standard(images).argmax(1)
    signed = attribute(standard, images, predicted, find_method("gradient"))
    found = {
        name: pixel_scores(standard, images, ids, name, scalar="logit")[0] for name in ("gradient", "input_x_gradient")
    }
    torch.testing.assert_close(found["gradient"], heat_maps(signed))
    torch.testing.assert_close(found["input_x_gradient"], heat_maps(signed * (images - 0.5)))
    from_black = heat_maps(attribute(standard, images, predicted, find_method("input_x_gradient")))
    assert not torch.allclose(found["input_x_gradient"], from_black, atol=0.01)


def test_the_controls_look_at_what_they_say(fashion_test: ImageDataset) -> None:
    edge = torch.zeros(1, 1, 28, 28)
    edge[..., 14:] = 1.0
    sobel = free_scores(edge, torch.arange(1), "sobel")[0]
    assert set(sobel[5].nonzero().flatten().tolist()) == {13, 14}
    blocks = free_scores(fashion_test.pixels(slice(0, 3)), torch.arange(3), "random_blocks")
    assert torch.equal(blocks[:, 4:8, 4:8], blocks[:, 4:5, 4:5].expand(3, 4, 4))
    assert len(blocks[0].unique()) == 49
    first, second = (free_scores(torch.zeros(2, 1, 28, 28), torch.tensor([7, number]), "random") for number in (1, 2))
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])
    point = torch.zeros(1, 28, 28)
    point[0, 14, 14] = 1.0
    smooth = blurred(point, 1.5)[0]
    assert float(smooth.sum()) == pytest.approx(1, abs=1e-5)
    assert float(smooth[14, 16] / smooth[14, 14]) == pytest.approx(torch.exp(torch.tensor(-0.5 * (2 / 1.5) ** 2)))


def test_unknown_maps_are_refused(standard: nn.Module) -> None:
    with pytest.raises(BenchError, match="unknown attribution 'grad'"):
        pixel_scores(standard, torch.rand(1, 1, 28, 28), torch.arange(1), "grad")
    with pytest.raises(BenchError, match="unknown control 'canny'"):
        free_scores(torch.rand(1, 1, 28, 28), torch.arange(1), "canny")
    assert "sobel" in FREE_MAPS
