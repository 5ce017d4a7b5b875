"""A model as its units use it: done to a loaded net in one place, so that what was checked is what is judged."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.catalog.autoencoders import AutoencoderEntry, list_autoencoders
from bench.catalog.models import ModelEntry, list_models, load_model
from bench.core.devices import current_device
from bench.core.errors import BenchError, is_interrupt
from bench.core.memory import is_out_of_memory
from bench.core.precision import Precision, float32_products, uncompiled
from bench.core.torch_state import random_numbers_of
from bench.data import ImageDataset
from bench.leaderboard.evidence.answers import FixedAnswers
from bench.leaderboard.statistics.intervals import wilson
from bench.nets.compiled import compile_net
from bench.nets.logit_scale import at_usual_scale
from bench.nets.preparation import prepare_net
from bench.protocols import Protocol
from bench.protocols.clean_pass import clean_pass, has_gradient, require_second_derivatives
from bench.runs.batch_size import automatic_batch_size, no_room
from bench.runs.fixed_answers import fixed_answers

logger = logging.getLogger(__name__)

_TRIED = 2
_LOOKED_AT = 16
"""The data set's first images tell the size of the net's logits, for every unit."""
_COUNTED = 500
"""Images that tell whether the clean accuracy is the expected one."""
_SAME = 1e-3
"""How far the prepared net's logits may lie from the plain one's, over the largest: rounding stays far below."""


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What a look at a model tells all its plans.

    Attributes:
        net: where it is kept for them, as `prepared_net` made it.
        unfit: name of a suite -> why it cannot judge this model.
        precision: of the search; the one that was asked for, but not compiled where torch.compile cannot take the net.
    """

    batch_size: int
    answers: FixedAnswers
    net: nn.Module | None
    unfit: dict[str, BenchError]
    precision: Precision = "float32"


def check_model(
    entry: ModelEntry, dataset: ImageDataset, suites: Mapping[str, Protocol], device: torch.device, *,
    batch_size: int | None, keep: bool, expect_clean: float | None = None,
    precision: Precision = "float32",
) -> CheckedModel:  # fmt: skip
    """Send a few images through; raises BenchError if the net cannot be judged at all.

    Args:
        suites: by name, with the data set's parameters.
        batch_size: None: as it suits model and device.
        keep: whether the run may have the very net that was looked at. One of the user's own is made anew whatever this
            says: it may remember what it has seen.
        expect_clean: the clean accuracy that the model is known to have; another one is an error.
    """
    name, classes = entry.card.name, entry.card.expected_classes
    if classes != dataset.num_classes:
        raise BenchError(f"model {name} is for {classes} classes, {dataset.name} has {dataset.num_classes}.")
    try:
        model = prepared_net(entry, dataset, device)
        images = dataset.pixels(slice(0, 3)).to(device)
        # two and then one: a net that was exported for a fixed number of images is found here
        with random_numbers_of(device, "check"):
            _require_answers(model, entry, images, dataset.num_classes)
            unfit: dict[str, BenchError] = {}
            for suite, protocol in suites.items():
                try:
                    _require_fit(model, name, images, protocol, suite=suite)
                except BenchError as error:
                    unfit[suite] = error
        size = batch_size or automatic_batch_size(model, images, device)
        if expect_clean is not None:
            _require_accuracy(model, name, dataset, device, expected=expect_clean, batch_size=size)
        own = entry.build is not None or entry.card.program is not None
        answers, searched = fixed_answers(model, dataset, device), _searched_in(model, name, precision, images)
        return CheckedModel(size, answers, model if keep and not own else None, unfit, precision=searched)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise no_room(device, name, "a single image") from error


def _require_answers(model: nn.Module, entry: ModelEntry, images: Tensor, num_classes: int) -> None:
    """Raise BenchError where the net cannot take the images; it names the size that the user has them resized to."""
    try:
        clean_pass(model, entry.card.name, images, num_classes, batch_size=2)
    except BenchError as error:
        side = entry.named.get("input_size")
        if side is None:
            raise
        raise BenchError(f"{str(error).rstrip('.')}; images are resized to {side}.", option="input_size") from error


def _searched_in(model: nn.Module, name: str, precision: Precision, images: Tensor) -> Precision:
    """The precision, or, in a line of words, the same of the net as it is where torch.compile cannot take it."""
    if precision != uncompiled(precision):
        try:
            compile_net(model, precision, images[:_TRIED])
        except BenchError as error:
            logger.warning("%s is searched as it is, %s", name, error)
            return uncompiled(precision)
    return precision


def _require_accuracy(
    model: nn.Module, name: str, dataset: ImageDataset, device: torch.device, *, expected: float, batch_size: int
) -> None:
    """Raise BenchError where the first images tell that the clean accuracy is not the expected one."""
    count = min(_COUNTED, len(dataset))
    parts = torch.split(torch.arange(count), batch_size)
    with torch.no_grad(), current_device(device), float32_products(), random_numbers_of(device, "clean"):
        said = torch.cat([model(dataset.pixels(part).to(device)).argmax(1).cpu() for part in parts])
    right = int((said == dataset.labels[:count]).sum())
    low, high = wilson(right, count)
    if abs(right / count - expected) > high - low:  # four standard errors
        raise BenchError(
            f"model {name} classifies {right / count:.1%} of the first {count} images right, far from the expected "
            f"{expected:.1%}; see that mean, std, input size and order of the classes are those it was trained with.",
            option="expect_clean",
        )


def _require_fit(model: nn.Module, name: str, images: Tensor, protocol: Protocol, suite: str) -> None:
    """Raise BenchError where derivatives that the suite needs are missing, or its methods do not take the net."""
    for batch in (images[:1], images[:2]):
        if protocol.needs_gradients and not has_gradient(model, batch):
            raise BenchError(
                f"model {name} has no gradient, which suite {suite} needs; the suites blackbox and corruptions "
                "judge it without."
            )
        if protocol.needs_second_derivatives:
            require_second_derivatives(model, name, batch, suite)
    try:
        protocol.require_net(model, images[:2])
    except BenchError as error:
        raise BenchError(f"suite {suite} cannot judge model {name}: {error}") from error


def prepared_net(entry: ModelEntry, dataset: ImageDataset, device: torch.device) -> nn.Module:
    """The entry's net on `device`: prepared for many gradients, or as it was loaded where it cannot be.

    A net may depend on how its tensors lie in memory (`x.view` after a convolution) or be called on single images; it
    is then left as it is. One that does not take the images at all is returned too: `clean_pass` says why.

    Raises:
        BenchError: the model cannot be loaded.
    """
    net = load_model(entry, device)
    images = dataset.pixels(slice(0, _TRIED)).to(device)
    with current_device(device), float32_products():
        expected = _logits(net, images, device)
        if expected is None or expected.dim() != 2:
            return net
        differentiable = _has_gradients(net, images, device)
        net = prepare_net(net)
        found = _logits(net, images, device)
        same = found is not None and bool((found - expected).abs().amax() <= _SAME * expected.abs().amax())
        if not same or _has_gradients(net, images, device) != differentiable:
            net = load_model(entry, device)
    return net


def scaled_net(net: nn.Module, dataset: ImageDataset, device: torch.device) -> nn.Module:
    """The net of `prepared_net`, which has passed a clean pass, with logits of a usual size."""
    images = dataset.pixels(slice(0, _LOOKED_AT)).to(device)
    with current_device(device), float32_products(), random_numbers_of(device, "size"):
        return at_usual_scale(net, images, _TRIED)


def _logits(net: nn.Module, images: Tensor, device: torch.device) -> Tensor | None:
    """(N + 1, K) of the images together and of the first alone; None where the net fails."""
    try:
        with torch.no_grad(), random_numbers_of(device, "logits"):
            return torch.cat([net(images), net(images[:1])])
    except BaseException as error:  # of any kind: the net may be the user's own
        if is_out_of_memory(error) or is_interrupt(error):
            raise
        return None


def _has_gradients(net: nn.Module, images: Tensor, device: torch.device) -> bool:
    try:
        with random_numbers_of(device, "gradients"):
            return has_gradient(net, images) and has_gradient(net, images[:1])
    except BenchError:
        return False


def require_weights(digests: Collection[str], registry: Path | None = None, *, download: bool = False) -> None:
    """Raise BenchError unless weights of these digests are here, or can be fetched, where a registered card names them.

    They may be of models or of autoencoders.
    """
    entries: list[ModelEntry | AutoencoderEntry] = [*list_models(registry=registry), *list_autoencoders(registry)]
    for entry in entries:
        if entry.card.weights.sha256 in digests:
            if download:
                entry.weights.fetch()
            if not entry.weights.path.exists():
                entry.weights.read()  # says what to do
