"""Explaining images in memory."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from bench.api.arguments import require_images
from bench.attribution.methods import METHODS
from bench.attribution.methods import attribute as attribution_maps
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.precision import float32_products
from bench.core.toml_files import explain


def attribute(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    method: str = "gradient",
    seed: int = 0,
    batch_size: int = 256,
    **parameters: Any,
) -> Tensor:
    """Signed attributions of the logit of `labels`.

    Args:
        model: images in [0, 1] in, logits out; in eval mode while it is explained, its mode is put back.
        images: (N, C, H, W) float32 in [0, 1], on the model's device.
        labels: (N,) the class whose logit is explained.
        method: one of bench.attribution.methods.METHODS, e.g. `gradient`, `smoothgrad`, `integrated_gradients`.
        seed: keys the noise of methods that have any, together with the position of the image.
        parameters: of the method, e.g. `samples` and `sigma` (pixels of [0, 1]) of `smoothgrad`.

    Returns:
        (N, C, H, W), detached; (N, 1, H, W) for Grad-CAM.

    Raises:
        BenchError: unknown method or parameter, a net that the method does not support, no image, or pixels outside
            [0, 1].
    """
    if method not in METHODS:
        raise unknown_name(method, METHODS, "attribution method")
    require_images(images, labels)
    try:
        chosen = METHODS[method](**parameters)
    except ValidationError as error:
        raise BenchError(f"attribution method {method} does not take {parameters}: {explain(error)}.") from error
    with float32_products():
        return attribution_maps(model, images, labels, chosen, seed=seed, batch_size=batch_size)
