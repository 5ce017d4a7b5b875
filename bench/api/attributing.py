"""Explaining images in memory."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn

from bench.api.arguments import whole
from bench.api.in_memory import judged, take_examples, take_net
from bench.attributions.registry import AttributionMethod, method_named, method_of
from bench.attributions.registry import attribute as attribution_maps
from bench.core.errors import BenchError
from bench.core.torch_state import undisturbed
from bench.nets.logit_scale import at_usual_scale, factor_of

logger = logging.getLogger(__name__)
_LEVELS = {"note": logging.INFO, "warning": logging.WARNING}


@undisturbed()
def attribute(
    model: nn.Module,
    images: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    *,
    method: str | Callable[..., Tensor] | object = "gradient",
    seed: int = 0,
    batch_size: int | str | None = 256,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    classes: Sequence[int] | None = None,
    **parameters: Any,
) -> Tensor:
    """Signed attributions of the logit of `labels`.

    Args:
        model: images in [0, 1] in, logits out; a copy of it, in eval mode and float32, is explained on its device.
        images: (N, C, H, W) in [0, 1], a tensor or an array.
        labels: (N,) the class whose logit is explained.
        method: a method's name, e.g. `gradient` (docs/reference/explanations.md has them all), `captum:NAME`,
            `FILE.py:FUNCTION`, or a callable; see bench.attributions.registry for what it takes and returns. An object
            of captum's, such as `Occlusion(net)`, is one too: it explains `model`, whatever net it was made with.
        seed: keys the noise of methods that have any, together with the position of the image.
        batch_size: images explained at once; `auto` or None chooses by device and memory.
        mean, std: of pixels in [0, 1], per channel, for a net that does not normalise by itself.
        input_size: side that images are resized to for the net.
        classes: the net's outputs that stand for the classes, in their order.
        parameters: of the method, e.g. `samples` and `sigma` (pixels of [0, 1]) of `smoothgrad`.

    Returns:
        (N, C, H, W), detached; (N, 1, H, W) for Grad-CAM.

    What is known to be wrong with a method on this net is logged as a warning, which layer it took as information.

    Raises:
        BenchError: unknown method or parameter, a net that the method does not support, or a net, images or labels
            that cannot be.
    """
    chosen, seed = _found(method).given(**parameters), whole(seed, "seed", 0)
    net = take_net(model, {"mean": mean, "std": std, "input_size": input_size, "classes": classes})
    pixels, truth, batch, _ = take_examples(net, images, labels, batch_size)
    with judged(net, pixels[:batch]):
        # maps of ours grow with the logits; of others that is not known
        usual = at_usual_scale(net, pixels[:batch], batch) if chosen.trusted else net
        maps = attribution_maps(usual, pixels, truth, chosen, seed=seed, batch_size=batch)
        for finding in chosen.findings(net, pixels[:1]):
            logger.log(_LEVELS[finding.severity], "%s; %s", finding.evidence, finding.advice)
        return maps / factor_of(usual)


def _found(method: object) -> AttributionMethod:
    if isinstance(method, str):
        return method_named(method)
    name = str(getattr(method, "__name__", type(method).__name__))
    if callable(getattr(method, "attribute", None)):
        return method_of(_of_captum(method), name)
    if isinstance(method, nn.Module) or not callable(method):
        raise BenchError(f"method is a {name}; give a function, or the name of a method.")
    return method_of(method, name)


def _of_captum(explainer: Any) -> Callable[..., Tensor]:
    """A function that calls `explainer.attribute(images, target=targets, ...)`, with the net that it is given."""

    def maps(model: nn.Module, images: Tensor, targets: Tensor, **parameters: Any) -> Tensor:
        own = copy.copy(explainer)
        for name in {"forward_func", "model"} & vars(own).keys():
            setattr(own, name, model)
        found: Tensor = own.attribute(images, target=targets, **parameters)
        return found

    try:
        _, *others = signature(explainer.attribute).parameters.values()
    except (TypeError, ValueError):
        return maps
    first = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("model", "images", "targets")]
    named = [one for one in others if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    given = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in named if one.name != "target"]
    maps.__signature__ = Signature([*first, *given])  # type: ignore[attr-defined]  # what inspect asks first
    return maps
