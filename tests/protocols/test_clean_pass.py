from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.nets import build_net
from bench.protocols.clean_pass import clean_pass, has_gradient

IMAGES = torch.rand(20, 1, 28, 28)


class Head(nn.Module):
    """Any function of the images as a net."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)  # type: ignore[operator,no-any-return]


def outputs(images: Tensor, classes: int = 10) -> Tensor:
    return images.flatten(1)[:, :classes] * 5 - 2


def test_predictions_are_those_of_the_model_and_good_logits_raise_no_finding() -> None:
    predictions, findings = clean_pass(Head(outputs), "net", IMAGES, 10, batch_size=7)
    assert torch.equal(predictions, outputs(IMAGES).argmax(1))
    assert findings == []


@pytest.mark.parametrize(("scale", "shift", "seen"), [(1.0, 1000.0, False), (1e-2, -1000.0, True), (1e-9, 0.0, False)])
def test_a_constant_that_swamps_the_logits_is_a_finding(scale: float, shift: float, seen: bool) -> None:
    _, findings = clean_pass(Head(lambda images: outputs(images) * scale + shift), "net", IMAGES, 10, batch_size=8)
    assert ("coarse_logits" in {finding.id for finding in findings}) is seen


def test_the_wrong_number_of_classes_is_refused() -> None:
    with pytest.raises(BenchError, match="returns 7 logits, but the data set has 10 classes"):
        clean_pass(Head(lambda images: outputs(images, 7)), "net", IMAGES, 10, batch_size=8)


def test_nan_in_any_batch_is_refused() -> None:
    def poisoned(images: Tensor) -> Tensor:
        logits = outputs(images)
        logits[(images == IMAGES[19]).flatten(1).all(1)] = torch.nan
        return logits

    with pytest.raises(BenchError, match="NaN"):
        clean_pass(Head(poisoned), "net", IMAGES, 10, batch_size=8)


def test_probabilities_are_warned_of() -> None:
    _, findings = clean_pass(Head(lambda images: outputs(images).softmax(1)), "net", IMAGES, 10, batch_size=8)
    assert [finding.id for finding in findings] == ["probabilities"]
    assert findings[0].severity == "warning"


@pytest.mark.parametrize("images", [IMAGES * 2, IMAGES - 0.5, IMAGES * torch.nan])
def test_pixels_outside_the_box_are_refused(images: Tensor) -> None:
    with pytest.raises(BenchError, match=r"pixels in \[0, 1\]"):
        clean_pass(Head(outputs), "net", images, 10, batch_size=8)


def test_images_of_another_shape_are_refused(standard: nn.Module) -> None:
    with pytest.raises(BenchError, match="does not take images of shape"):
        clean_pass(standard, "standard", torch.rand(4, 3, 32, 32), 10, batch_size=4)


def test_an_output_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(BenchError, match="must return logits of shape"):
        clean_pass(Head(lambda images: images), "net", IMAGES, 10, batch_size=8)


def test_a_net_that_works_on_its_input_in_place_is_refused_and_the_images_stay() -> None:
    images = IMAGES.clone()
    with pytest.raises(BenchError, match=r"changes its input in place.*images\.clone"):
        clean_pass(Head(lambda batch: outputs(batch.mul_(0.5))), "net", images, 10, batch_size=8)
    assert torch.equal(images, IMAGES)


class _NoException(BaseException):
    pass


class _NoInterrupt(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, _NoException, _NoInterrupt])
def test_a_net_that_ends_the_process_is_refused(kind: type[BaseException]) -> None:
    def leave(images: Tensor) -> Tensor:
        raise kind(0)

    with pytest.raises(BenchError, match="does not take images"):
        clean_pass(Head(leave), "net", IMAGES, 10, batch_size=8)


def test_gradients_that_are_not_there_are_told_from_those_that_fail() -> None:
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, images: Tensor) -> Tensor:
            return images * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            raise ValueError("not written yet")

    weight = torch.ones(784, 10, requires_grad=True)
    assert has_gradient(Head(outputs), IMAGES)
    assert not has_gradient(Head(lambda images: outputs(images.detach())), IMAGES)
    assert not has_gradient(Head(lambda images: images.detach().flatten(1) @ weight), IMAGES)
    with pytest.raises(BenchError, match=r"gradient of the model cannot be computed \(not written yet\)"):
        has_gradient(Head(lambda images: outputs(NoBackward.apply(images))), IMAGES)


def test_random_outputs_are_found_at_any_number_of_images_and_batch_size() -> None:
    def noisy(images: Tensor) -> Tensor:
        logits = outputs(images)
        return logits + 1e-3 * torch.randn_like(logits)

    for count, batch_size in ((1, 8), (2, 1), (20, 7), (20, 256)):
        for head in (Head(noisy), Head(lambda images: outputs(nn.functional.dropout(images)))):
            _, (finding,) = clean_pass(head, "net", IMAGES[:count], 10, batch_size=batch_size)
            assert (finding.id, finding.severity) == ("random_outputs", "warning")
            assert f"of {count} images get other logits when they are computed again" in finding.evidence
            assert "training=self.training" in finding.advice and "autoattack_rand" in finding.advice


def test_a_net_that_looks_at_the_whole_batch_is_found_at_any_number_of_images_and_batch_size() -> None:
    norm = nn.BatchNorm2d(1, track_running_stats=False).eval()
    uneven = IMAGES * torch.linspace(0.2, 1.0, 20)[:, None, None, None]
    for count, batch_size in ((1, 8), (2, 1), (20, 7), (20, 256)):
        for head in (Head(lambda images: outputs(norm(images))), Head(lambda images: outputs(images / images.max()))):
            _, (finding,) = clean_pass(head, "net", uneven[:count], 10, batch_size=batch_size)
            assert (finding.id, finding.severity) == ("batch_dependent", "warning")
            assert "beside other images" in finding.evidence and "track_running_stats" in finding.advice


def test_the_rounding_of_an_honest_net_is_no_finding() -> None:
    torch.manual_seed(0)
    common = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [0.3], "std": [0.3]}
    net = build_net("simple_cnn", common).eval()
    for scale, shift in ((1e-9, 0.0), (1.0, 0.0), (1.0, 1e4), (1e9, 0.0)):
        head = Head(lambda images, scale=scale, shift=shift: scale * (net(images) + shift))
        # with a constant of 10,000, float32 hardly tells these logits apart, which is another finding
        found = {finding.id for finding in clean_pass(head, "net", IMAGES[:5], 10, batch_size=4)[1]}
        assert found <= ({"coarse_logits"} if shift else set())
