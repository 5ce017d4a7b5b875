"""What every method is: declared parameters, and a loss made of named terms."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.core.errors import BenchError
from bench.core.toml_files import Section
from bench.training.target_maps import Wanted

if TYPE_CHECKING:
    from bench.training.recipe import Schedule


@dataclass(frozen=True, slots=True)
class Batch:
    """One minibatch.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        target_maps: (N, C, H, W) where the method needs them.
        pixel_std: (1, C, 1, 1), the standard deviation by which the net divides its pixels.
        generator: a CPU generator for the method's own noise.
        progress: the share of training done, in [0, 1].
    """

    images: Tensor
    labels: Tensor
    target_maps: Tensor | None
    pixel_std: Tensor
    generator: torch.Generator
    progress: float = 1.0

    def uniform(self) -> Tensor:
        """Uniform numbers in [0, 1), shaped as the images, drawn on the CPU so that devices agree."""
        return torch.rand(self.images.shape, generator=self.generator).to(self.images.device)


class Method(Section):
    """Base of all methods: its fields are the parameters, unknown ones are refused; only `loss_terms` is required."""

    second_derivatives: ClassVar[bool] = False
    """Whether the loss holds a derivative itself, so that training differentiates twice."""

    @property
    def source(self) -> str | None:
        """The model whose maps this method needs as targets, if any."""
        return None

    def contradiction(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why a training by that schedule makes no sense with this method, without a full stop; None if it does."""
        return None

    def target_maps(self, wanted: Wanted) -> Tensor:  # noqa: ARG002
        """(N, C, H, W) maps of the examples, made before the training where the method has a `source`.

        They come as `Batch.target_maps`, moved along where images are cropped and flipped.
        """
        raise BenchError(f"method {type(self).__name__} names a source model, but makes no target maps of it.")

    def compared_maps(self, maps: Tensor) -> Tensor:
        """What of a batch's target maps (N, C, H, W) the gradients are held against, in the loss and on the card."""
        return maps

    @abstractmethod
    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar terms, the training loss being their sum; the first is a cross-entropy."""


class GradientMethod(Method):
    """A method whose loss holds input derivatives; batch norm is kept out of them unless asked.

    In train mode a batch-norm net's output for one image depends on the other images of the batch: so do its input
    gradients, and each further pass moves the running statistics. `frozen` takes the penalised derivatives through the
    running statistics, at the price of one more forward pass on nets that have batch norm, in which dropout leaves out
    the same units (on a CPU and on CUDA); `batch` is what the IR and LGA codes do (LGA, pitfall 2), and the recipes for
    their nets that have batch norm.
    """

    second_derivatives: ClassVar[bool] = True
    batch_norm: Literal["frozen", "batch"] = Field(
        default="frozen", description="statistics behind the penalised derivatives: frozen (running) or batch"
    )

    def logits_twice(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The input, (N, K) logits for the cross-entropy, and those to be differentiated by it; one where possible."""
        images = batch.images.detach().requires_grad_(True)
        if self.batch_norm == "batch" or not any(isinstance(layer, _BatchNorm) for layer in model.modules()):
            logits = model(images)
            return images, logits, logits
        with torch.random.fork_rng([images.device] if images.is_cuda else []):  # so that both draw the same numbers
            penalised = self.penalised_pass(model, images)
        return images, model(images), penalised

    def penalised_pass(self, model: nn.Module, images: Tensor) -> Tensor:
        """(N, K) logits of a further pass, only to be differentiated; frozen batch norms keep their statistics."""
        norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
        frozen = norms if self.batch_norm == "frozen" else []
        for layer in frozen:
            layer.eval()
        try:
            logits: Tensor = model(images)
        finally:
            for layer in frozen:
                layer.train()
        return logits
