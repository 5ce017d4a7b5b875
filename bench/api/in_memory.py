"""Nets, images and labels in memory, as the rooms below want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench.api.arguments import batches, several
from bench.catalog.cards import ModelCard
from bench.catalog.models import ModelEntry
from bench.catalog.sources import METHOD
from bench.catalog.state_files import weights_of
from bench.core.devices import current_device
from bench.core.errors import BenchError, in_one_line, is_interrupt
from bench.core.memory import is_out_of_memory
from bench.core.names import require_safe_name
from bench.core.toml_files import explain
from bench.data import DATASETS, load_split
from bench.nets.adapter import Adapter, AdapterSettings
from bench.nets.intake import own_net
from bench.protocols.clean_pass import checked_logits, has_gradient, require_unit_pixels
from bench.runs.batch_size import automatic_batch_size

_FEW = 3
"""Images that tell how many go through a net at once."""


def take_net(net: object, adaptation: Mapping[str, Any]) -> nn.Module:
    """A copy of a net that a caller has passed, as it is judged: eval mode, float32, parameters without gradient.

    Args:
        adaptation: `mean`, `std` and the adapter's other settings, for a net that wants other images; None is left
            out.

    Raises:
        BenchError: it is no net, or none that can be judged; an adaptation that contradicts itself.
    """
    given = {name: value for name, value in adaptation.items() if value is not None}
    given |= {name: several(given[name], name) for name in ("mean", "std", "classes") if name in given}
    own = own_net(net)
    if not given:
        return own
    try:
        return Adapter(own, AdapterSettings(**given)).eval()
    except ValidationError as error:
        raise BenchError(f"{explain(error)}.") from error


def entry_of_net(
    net: object, dataset: str, model_id: str, data_dir: Path | None, adaptation: Mapping[str, Any]
) -> ModelEntry:
    """The entry of a net in memory that can be planned and run like one of the registry; raises BenchError."""
    spec = DATASETS.get(dataset)
    frozen = take_net(net, adaptation).cpu()
    card = ModelCard(
        schema_version=1,
        id=require_safe_name(model_id, "model_id"),
        method=METHOD,
        dataset=require_safe_name(dataset, "data set"),
        num_classes=None if spec else load_split(dataset, "test", data_dir=data_dir).num_classes,
        architecture=type(net).__name__,
        weights=weights_of(frozen),
    )
    return ModelEntry(card, Path(), lambda: own_net(frozen, sharing=True))


class GivenExamples(NamedTuple):
    """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64, both on the net's device.

    Attributes:
        outputs: how many the net has.
    """

    pixels: Tensor
    labels: Tensor
    batch_size: int
    outputs: int


def take_examples(net: nn.Module, images: object, labels: object, batch_size: object) -> GivenExamples:
    """What a caller has passed, as attacks and methods want it; a batch is sent through the net.

    Raises:
        BenchError: they are no such thing, the net does not take them or returns no logits, or a label is none of its
            classes; or no batch size.
    """
    size = batches(batch_size)
    device = next((one.device for one in (*net.parameters(), *net.buffers())), None)
    pixels, truth = _tensor(images, "images", device), _tensor(labels, "labels", device)
    if truth.shape == (len(pixels), 1):
        truth = truth.squeeze(1)
    if pixels.dim() != 4 or len(pixels) == 0 or truth.shape != (len(pixels),):
        raise BenchError(
            f"images must be (N, C, H, W) and labels (N,) the numbers of the classes, these are {tuple(pixels.shape)} "
            f"and {tuple(truth.shape)}."
        )
    if not pixels.is_floating_point():
        raise BenchError(f"images are {_kind(pixels)}; pixels must be numbers in [0, 1]: pass images / 255.")
    if truth.is_floating_point() or truth.is_complex() or truth.dtype == torch.bool:
        raise BenchError(f"labels are {_kind(truth)}; they must be whole numbers, the classes: pass labels.long().")
    pixels, truth = pixels.float(), truth.long()
    require_unit_pixels(pixels)
    outputs = checked_logits(net, "in_memory", pixels[: size or _FEW]).shape[1]
    low, high = int(truth.min()), int(truth.max())
    if low < 0 or high >= outputs:
        raise BenchError(f"labels are {low} to {high}, but the net has the classes 0 to {outputs - 1}.")
    size = size or automatic_batch_size(net, pixels[:_FEW], pixels.device)
    return GivenExamples(pixels, truth, size, outputs)


@contextmanager
def judged(net: nn.Module, images: Tensor) -> Iterator[None]:
    """On the images' device; an error of the net becomes one line."""
    try:
        with current_device(images.device):
            yield
    except BaseException as error:  # of any kind: the net is the user's own
        if is_out_of_memory(error) or is_interrupt(error):
            raise
        if not has_gradient(net, images):
            raise BenchError(
                "the net has no gradient; the suites blackbox and corruptions judge it without."
            ) from error
        if isinstance(error, BenchError):
            raise
        raise BenchError(f"the net failed on perturbed images ({in_one_line(error)}).") from error


def _tensor(values: object, what: str, device: torch.device | None) -> Tensor:
    """A tensor of its own device or of `device`: contiguous, out of graphs, of no sub-class."""
    try:
        if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
            values = torch.stack(list(values))
        found = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
        found = found.detach().as_subclass(Tensor).to(device or found.device).contiguous()
        return found.clone() if found.is_inference() else found
    except (TypeError, ValueError, RuntimeError) as error:
        raise BenchError(
            f"{what} must be a dense tensor or an array of numbers, not this {type(values).__name__}."
        ) from error


def _kind(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
