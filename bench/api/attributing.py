"""Explaining images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike
from pydantic import ValidationError
from torch import Tensor, nn

from bench.api.arguments import whole
from bench.api.in_memory import judged, take_examples, take_net
from bench.attributions.methods import METHODS
from bench.attributions.methods import attribute as attribution_maps
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.toml_files import explain
from bench.core.torch_state import undisturbed
from bench.nets.logit_scale import at_usual_scale


@undisturbed()
def attribute(
    model: nn.Module,
    images: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    *,
    method: str = "gradient",
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
        method: one of bench.attributions.methods.METHODS, e.g. `gradient`, `smoothgrad`, `integrated_gradients`.
        seed: keys the noise of methods that have any, together with the position of the image.
        mean, std: of pixels in [0, 1], per channel, for a net that does not normalise by itself.
        parameters: of the method, e.g. `samples` and `sigma` (pixels of [0, 1]) of `smoothgrad`.

    Returns:
        (N, C, H, W), detached; (N, 1, H, W) for Grad-CAM.

    Raises:
        BenchError: unknown method or parameter, a net that the method does not support, or a net, images or labels
            that cannot be.
    """
    if not isinstance(method, str):
        raise BenchError(
            f"method is a {type(method).__name__}; name one of the attribution methods: {', '.join(METHODS)}."
        )
    if method not in METHODS:
        raise unknown_name(method, METHODS, "attribution method")
    seed, batch_size = whole(seed, "seed", 0), whole(batch_size, "batch_size")
    try:
        chosen = METHODS[method](**parameters)
    except ValidationError as error:
        raise BenchError(f"attribution method {method} does not take {parameters}: {explain(error)}.") from error
    net = take_net(model, {"mean": mean, "std": std})
    pixels, classes = take_examples(net, images, labels, batch_size)
    with judged(net, pixels[:batch_size]):
        usual = at_usual_scale(net, pixels[:batch_size], batch_size)
        maps = attribution_maps(usual, pixels, classes, chosen, seed=seed, batch_size=batch_size)
        return maps / getattr(usual, "factor", 1.0)
