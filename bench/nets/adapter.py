"""What stands between images in [0, 1] and a net that was trained elsewhere: channels, size, normalisation, classes."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import BenchError
from bench.core.toml_files import Section

Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]


class AdapterSettings(Section):
    """How images and logits are adapted.

    Attributes:
        mean, std: per channel, of pixels in [0, 1]; empty where the net normalises by itself.
        input_size: the side that images are resized to (bilinear, antialiased, differentiable); None leaves them.
        classes: `classes[k]` is the net's output that stands for class k of the data set; empty takes all as they are.
    """

    mean: tuple[float, ...] = Field(default=(), strict=False)
    std: tuple[Deviation, ...] = Field(default=(), strict=False)
    input_size: int | None = Field(default=None, gt=0, le=4096)
    classes: tuple[Annotated[int, Field(ge=0, lt=1 << 31)], ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _fit_together(self) -> AdapterSettings:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values, std has {len(self.std)}; give both, one a channel")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names an output twice")
        return self


class Adapter(nn.Module):
    """A net behind its adaptation. Images (N, C, H, W) in [0, 1] in, logits (N, K) out.

    The settings are buffers, so that the digest of the weights covers them. One-channel images are repeated where
    `mean` has three values.
    """

    mean: Tensor
    std: Tensor
    input_size: Tensor
    classes: Tensor

    def __init__(self, net: nn.Module, settings: AdapterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.net = net
        self.register_buffer("mean", torch.tensor(settings.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(settings.std, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("input_size", torch.tensor(settings.input_size or 0))
        self.register_buffer("classes", torch.tensor(settings.classes, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        channels, size = len(self.settings.mean), self.settings.input_size
        if channels > 1 and images.shape[1] == 1:
            images = images.expand(-1, channels, -1, -1)
        if size is not None and images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        if channels:
            images = (images - self.mean) / self.std
        logits: Tensor = self.net(images)
        if not self.settings.classes:
            return logits
        if max(self.settings.classes) >= logits.shape[1]:
            raise BenchError(
                f"the classes or the label map ask for output {max(self.settings.classes)}, but the net has outputs 0 "
                f"to {logits.shape[1] - 1}.",
                option=("classes", "label_map"),
            )
        return logits.index_select(1, self.classes)

    def contradiction(self) -> str | None:
        """What the buffers, just loaded, say differently from the settings; None where they agree."""
        fresh = Adapter(nn.Identity(), self.settings)
        differ = (name for name, said in fresh.named_buffers() if not torch.equal(said, self.get_buffer(name).cpu()))
        return next(differ, None)


class PlainEval(nn.Module):
    """A net whose mode is fixed in its graph (torch.export), so that `eval()` and `train()` leave it alone."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> PlainEval:
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.graph(images)
        return logits
