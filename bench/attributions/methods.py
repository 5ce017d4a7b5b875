"""Attribution methods by name: what each is called, what it takes, and the one call that computes its maps.

All are our own: attacks and training differentiate through gradients and their averages, and captum's guided
back-propagation, LRP and DeepLIFT are wrong on some of the registry's nets or refuse them. Where captum is right, tests
hold ours to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.pgd import attacked_model
from bench.attributions.deeplift import RescaleMode
from bench.attributions.grad_cam import logits_and_convolution
from bench.attributions.guided import RectifiedGradients, Rule
from bench.attributions.operations import require_gradient
from bench.attributions.relevance import RelevanceMode, Rules
from bench.core.bounds import Steps
from bench.core.derivatives import twice_differentiable
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_normal
from bench.core.memory import is_out_of_memory
from bench.core.toml_files import Section

_MISSED = 0.01
"""How much of the logit's change, in the median, DeepLIFT's contributions may miss before the net is refused."""
_ROUNDING = 1e-6
"""A change below this share of the largest logit says nothing."""


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What is to be explained.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) the class whose logit is explained.
        example_ids: (N,) on the images' device, key the noise of methods that have any.
        keep_graph: maps and logits can be differentiated with respect to `images`, which then require gradients.
    """

    images: Tensor
    labels: Tensor
    example_ids: Tensor
    seed: int = 0
    keep_graph: bool = False

    @property
    def inputs(self) -> Tensor:
        """The images, requiring gradients."""
        return self.images if self.images.requires_grad else self.images.detach().requires_grad_(True)


class AttributionMethod(Section, ABC):
    """A method and its parameters, as a suite pins them.

    `maps` expects the model in eval mode with its parameters' gradients off; `attribute` sees to that.
    """

    differentiable: ClassVar[bool] = True
    """Whether maps can be differentiated with respect to the images, which an attack on them needs."""
    signed: ClassVar[bool] = True
    """Whether a map can have values below zero."""
    name: str

    @abstractmethod
    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        """Logits (N, K) where they fell out by the way, and signed attributions (N, C, H, W) of logit `labels`."""


def _picked(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _logits_and_gradient(model: nn.Module, inputs: Tensor, request: MapRequest) -> tuple[Tensor, Tensor]:
    """Logits, and d logit_y / d inputs, in one forward and one backward pass."""
    with torch.enable_grad(), twice_differentiable(request.keep_graph):
        logits: Tensor = model(inputs)
        require_gradient(logits)
        picked = _picked(logits, request.labels).sum()
        (gradient,) = torch.autograd.grad(picked, inputs, create_graph=request.keep_graph)
    return logits, gradient


def _moved(model: nn.Module, inputs: Tensor, request: MapRequest) -> Tensor:
    """The gradient at `inputs`, which were computed from the request's images."""
    inputs = inputs if inputs.requires_grad else inputs.requires_grad_(True)
    return _logits_and_gradient(model, inputs, request)[1]


class Gradient(AttributionMethod):
    """The gradient of the class's logit (Simonyan et al. 2014)."""

    name: Literal["gradient"] = "gradient"

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor, Tensor]:
        return _logits_and_gradient(model, request.inputs, request)


class InputXGradient(AttributionMethod):
    """The gradient times the pixels in [0, 1] (Shrikumar et al. 2016)."""

    name: Literal["input_x_gradient"] = "input_x_gradient"

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        inputs = request.inputs
        logits, gradient = _logits_and_gradient(model, inputs, request)
        return logits, gradient * inputs


class IntegratedGradients(AttributionMethod):
    """Gradients averaged along the way from a black image, times the pixels (Sundararajan et al. 2017).

    Gauss-Legendre points, as captum's default, so that few of them meet the completeness axiom.
    """

    name: Literal["integrated_gradients"] = "integrated_gradients"
    steps: int = Field(default=32, gt=0, le=1000)

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        total = torch.zeros_like(request.images)
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            gradient = _moved(model, (0.5 + 0.5 * point) * request.images, request)
            total = total + 0.5 * weight * gradient
        return None, total * request.images


class SmoothGrad(AttributionMethod):
    """The mean gradient of noisy copies (Smilkov et al. 2017), not clipped; the noise is keyed by example id.

    An image and its perturbed copy get the same noise, so that their maps differ by the perturbation alone.
    """

    name: Literal["smoothgrad"] = "smoothgrad"
    samples: Steps = 16
    sigma: float = Field(default=0.1, gt=0, le=100, description="standard deviation of the noise, pixels in [0, 1]")

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        images, ids = request.images, request.example_ids
        total = torch.zeros_like(images)
        for sample in range(self.samples):
            noise = keyed_normal(request.seed, "smoothgrad", ids, images.shape[1:], torch.full_like(ids, sample))
            total = total + _moved(model, images + self.sigma * noise.to(images), request)
        return None, total / self.samples


class _Rectified(AttributionMethod):
    differentiable: ClassVar[bool] = False
    rule: ClassVar[Rule]

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        mode, inputs = RectifiedGradients(self.rule), request.inputs
        logits = mode.logits(model, inputs, self.name)
        if not mode.activations:
            raise BenchError(f"{self.name} needs a net with activations, this one has none; use the gradient.")
        (gradient,) = torch.autograd.grad(_picked(logits, request.labels).sum(), inputs)
        return logits, gradient


class GuidedBackprop(_Rectified):
    """Guided back-propagation (Springenberg et al. 2015); see bench.attributions.guided."""

    name: Literal["guided_backprop"] = "guided_backprop"
    rule: ClassVar[Rule] = "guided"


class Deconvolution(_Rectified):
    """Deconvolution (Zeiler and Fergus 2014); see bench.attributions.guided."""

    name: Literal["deconvolution"] = "deconvolution"
    rule: ClassVar[Rule] = "deconvolution"


class _Relevance(AttributionMethod):
    differentiable: ClassVar[bool] = False
    alpha: ClassVar[float | None]
    epsilon: float = Field(default=1e-6, gt=0, description="stabiliser of the denominators, in units of activations")

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        inputs = request.inputs
        logits = RelevanceMode(Rules(self.alpha, self.epsilon)).logits(model, inputs, self.name)
        chosen = torch.zeros_like(logits).scatter(1, request.labels[:, None], 1.0)
        (relevance,) = torch.autograd.grad(logits, inputs, chosen * logits.detach())
        return logits, relevance


class LrpEpsilon(_Relevance):
    """LRP, the epsilon rule in all layers (Bach et al. 2015); see bench.attributions.relevance."""

    name: Literal["lrp_epsilon"] = "lrp_epsilon"
    alpha: ClassVar[float | None] = None


class LrpEpsilonPlus(_Relevance):
    """LRP, alpha 1 beta 0 in convolutions and epsilon in linear layers."""

    name: Literal["lrp_epsilon_plus"] = "lrp_epsilon_plus"
    alpha: ClassVar[float | None] = 1.0


class LrpAlpha2Beta1(_Relevance):
    """LRP, alpha 2 beta 1 in convolutions and epsilon in linear layers."""

    name: Literal["lrp_alpha2_beta1"] = "lrp_alpha2_beta1"
    alpha: ClassVar[float | None] = 2.0


class DeepLift(AttributionMethod):
    """DeepLIFT's rescale rule against a black image (Shrikumar et al. 2017); see bench.attributions.deeplift."""

    name: Literal["deeplift"] = "deeplift"
    differentiable: ClassVar[bool] = False

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        images, labels = request.images.detach(), request.labels
        both = torch.cat([images, torch.zeros_like(images)]).requires_grad_(True)
        logits = RescaleMode().logits(model, both, self.name)
        with torch.enable_grad():
            (multipliers,) = torch.autograd.grad(_picked(logits[: len(images)], labels).sum(), both)
        maps = multipliers[: len(images)] * images
        logits = logits.detach()
        change = (logits[: len(images)] - logits[len(images) :]).abs()
        missing = (maps.flatten(1).sum(1) - _picked(logits[: len(images)] - logits[len(images) :], labels)).abs()
        felt = torch.maximum(change.amax(1), _ROUNDING * logits.abs().amax()).clamp_min(1e-38)
        missed = float((missing / felt).median())
        if not missed <= _MISSED:
            raise BenchError(
                f"deeplift does not support this net: its contributions miss the logit's change by {missed:.0%}; "
                "use integrated_gradients."
            )
        return logits[: len(images)], maps


class GradCam(AttributionMethod):
    """Grad-CAM (Selvaraju et al. 2017) at the last convolution whose output is larger than one pixel.

    The map has one channel, is not negative, and is scaled up to the image's size.
    """

    name: Literal["grad_cam"] = "grad_cam"
    signed: ClassVar[bool] = False

    def maps(self, model: nn.Module, request: MapRequest) -> tuple[Tensor | None, Tensor]:
        inputs, labels = request.inputs, request.labels
        with torch.enable_grad(), twice_differentiable(request.keep_graph):
            logits, output = logits_and_convolution(model, inputs, self.name)
            picked = _picked(logits, labels).sum()
            (gradient,) = torch.autograd.grad(picked, output, create_graph=request.keep_graph)
            weighted = (gradient.mean((2, 3), keepdim=True) * output).sum(1, keepdim=True).clamp_min(0.0)
            return logits, F.interpolate(weighted, inputs.shape[2:], mode="bilinear")


AnyAttribution = Annotated[
    Gradient | InputXGradient | IntegratedGradients | SmoothGrad | GuidedBackprop | Deconvolution
    | LrpEpsilon | LrpEpsilonPlus | LrpAlpha2Beta1 | DeepLift | GradCam,
    Field(discriminator="name"),
]  # fmt: skip
"""Any method, told apart by its name; for suites."""

METHODS: dict[str, type[AttributionMethod]] = {
    method.model_fields["name"].default: method
    for method in (
        Gradient, InputXGradient, IntegratedGradients, SmoothGrad, GuidedBackprop, Deconvolution,
        LrpEpsilon, LrpEpsilonPlus, LrpAlpha2Beta1, DeepLift, GradCam,
    )
}  # fmt: skip


def attribute(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: AttributionMethod,
    *,
    example_ids: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Signed attributions of the logit of `labels`, in eval mode whatever mode the model is in.

    Args:
        model: images in [0, 1] in, logits out.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) the class that is explained.
        method: e.g. `METHODS["smoothgrad"](samples=32)`.
        example_ids: (N,) key the noise of methods that have any; 0..N-1 by default.

    Returns:
        (N, C, H, W) on the device of `images`, detached; (N, 1, H, W) for Grad-CAM.

    Raises:
        BenchError: the net does not take these images, has no such class, or the method does not support it.
    """
    ids = torch.arange(len(images)) if example_ids is None else example_ids
    parts = []
    with attacked_model(model):
        for begin in range(0, len(images), batch_size):
            batch = slice(begin, begin + batch_size)
            try:
                part = method.maps(model, MapRequest(images[batch], labels[batch], ids[batch].to(images.device), seed))
            except (RuntimeError, IndexError) as error:
                if is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:160]
                shape = tuple(images.shape[1:])
                raise BenchError(f"{method.name} failed on images of shape {shape}: {reason}.") from error
            parts.append(part[1].detach())
    return torch.cat(parts)
