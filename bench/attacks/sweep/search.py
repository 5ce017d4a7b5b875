"""The net as an attack's search sees it, in reduced precision where asked; the verification never looks through it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor, nn

from bench.core.precision import MixedPrecision, Precision, float32_products

_ROUNDING: dict[Precision, float] = {"tf32": 2.0**-11, "bfloat16": 2.0**-8}
"""How far a margin may be off, over the largest logit: one rounding. Twice as much found nothing more."""


class SearchNet:
    """A net and the precision in which gradients of it are taken."""

    def __init__(self, net: nn.Module, precision: Precision, device_type: str) -> None:
        self.precision = precision
        self.net = MixedPrecision(net, device_type) if precision == "bfloat16" else net

    def __call__(self, images: Tensor) -> Tensor:
        """(N, K) logits, float32."""
        logits: Tensor = self.net(images)
        return logits

    def products(self) -> AbstractContextManager[None]:
        """The precision of products of float32 numbers while the search runs."""
        return float32_products(tf32=self.precision == "tf32")

    def claims(self, margins: Tensor, logits: Tensor) -> Tensor:
        """(N,) bool: which images are worth a verification, by the margins (N,) of their logits (N, K).

        In reduced precision that is every image whose margin lies within the rounding, so that none is missed that
        float32 would see misclassified. An answer that is no number is worth one too.
        """
        unanswered = ~logits.detach().sum(1).isfinite()
        if self.precision == "float32":
            return (margins > 0) | unanswered
        return (margins > -_ROUNDING[self.precision] * logits.detach().abs().amax(1)) | unanswered
