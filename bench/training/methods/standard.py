"""Plain cross-entropy on clean images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.training.methods.base import Batch, Method


class Standard(Method):
    """Cross-entropy."""

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(model(batch.images), batch.labels)}
