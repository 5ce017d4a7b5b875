"""Architectures. Every net takes images in [0, 1], (N, C, H, W), and returns logits; it normalises inside."""

from bench.nets import small_cnn as _small_cnn  # noqa: F401  (registers its architecture)
from bench.nets.registry import architectures, build_net, register_net

__all__ = ["architectures", "build_net", "register_net"]
