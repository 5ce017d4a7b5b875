"""Explaining images in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn

from bench.api.arguments import whole
from bench.api.in_memory import judged, take_examples, take_net
from bench.attributions.registry import attribute as attribution_maps
from bench.attributions.registry import method_named, method_of
from bench.core.errors import BenchError
from bench.core.torch_state import undisturbed
from bench.nets.logit_scale import at_usual_scale


@undisturbed()
def attribute(
    model: nn.Module,
    images: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    *,
    method: str | Callable[..., Tensor] = "gradient",
    seed: int = 0,
    batch_size: int = 256,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **parameters: Any,
) -> Tensor:
    """Signed attributions of the logit of `labels`.

    Args:
        model: images in [0, 1] in, logits out; a copy of it, in eval mode and float32, is explained on its device.
        images: (N, C, H, W) in [0, 1], a tensor or an array.
        labels: (N,) the class whose logit is explained.
        method: a method's name, e.g. `gradient` (docs/reference/explanations.md has them all), `FILE.py:FUNCTION`, or a
            function; see bench.attributions.registry for what it takes and returns.
        seed: keys the noise of methods that have any, together with the position of the image.
        mean, std: of pixels in [0, 1], per channel, for a net that does not normalise by itself.
        parameters: of the method, e.g. `samples` and `sigma` (pixels of [0, 1]) of `smoothgrad`.

    Returns:
        (N, C, H, W), detached; (N, 1, H, W) for Grad-CAM.

    Raises:
        BenchError: unknown method or parameter, a net that the method does not support, or a net, images or labels
            that cannot be.
    """
    if not isinstance(method, str | FunctionType):
        raise BenchError(f"method is a {type(method).__name__}; give a function, or the name of a method.")
    seed, batch_size = whole(seed, "seed", 0), whole(batch_size, "batch_size")
    found = (
        method_named(method) if isinstance(method, str) else method_of(method, getattr(method, "__name__", "method"))
    )
    chosen = found.given(**parameters)
    net = take_net(model, {"mean": mean, "std": std})
    pixels, classes = take_examples(net, images, labels, batch_size)
    with judged(net, pixels[:batch_size]):
        # maps of ours grow with the logits; of others that is not known
        usual = at_usual_scale(net, pixels[:batch_size], batch_size) if chosen.trusted else net
        maps = attribution_maps(usual, pixels, classes, chosen, seed=seed, batch_size=batch_size)
        return maps / getattr(usual, "factor", 1.0)
