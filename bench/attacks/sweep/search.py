"""The net as an attack's search sees it, in reduced precision where asked; the verification never looks through it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor, nn

from bench.core.precision import MixedPrecision, Precision, float32_products, uncompiled
from bench.nets.compiled import compiled

_ROUNDING: dict[Precision, float] = {"tf32": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-18}
"""How far a margin may be off, over the largest logit: one rounding. Twice as much found nothing more. Of float32 it is
64, since a compiled net takes sums in another order."""


class SearchNet:
    """A net and the precision in which gradients of it are taken."""

    def __init__(self, net: nn.Module, precision: Precision, device_type: str) -> None:
        self.precision, self.plain = precision, uncompiled(precision)
        self._given = net
        self._compiled = None if precision == self.plain else compiled(net, precision, device_type)
        self.net = MixedPrecision(net, device_type) if self.plain == "bfloat16" else net

    def __call__(self, images: Tensor) -> Tensor:
        """(N, K) logits, float32."""
        return self.net(images) if self._compiled is None else self._compiled(self._given, images)

    def products(self) -> AbstractContextManager[None]:
        """The precision of products of float32 numbers while the search runs."""
        return float32_products(tf32=self.plain == "tf32")

    def claims(self, margins: Tensor, logits: Tensor) -> Tensor:
        """(N,) bool: which images are worth a verification, by the margins (N,) of their logits (N, K).

        In reduced precision, or compiled, that is every image whose margin lies within the rounding, so that none is
        missed that float32 would see misclassified. An answer that is no number is worth one too.
        """
        unanswered = ~logits.detach().sum(1).isfinite()
        if self.precision == "float32":
            return (margins > 0) | unanswered
        return (margins > -_ROUNDING[self.plain] * logits.detach().abs().amax(1)) | unanswered
