"""Architectures. Every net takes images in [0, 1], (N, C, H, W), and returns logits; it normalises inside."""

from bench.nets import paper_cnns, patch_cnn, resnets, small_cnn  # noqa: F401  (each registers its architectures)
from bench.nets.external import zoos  # noqa: F401
from bench.nets.registry import architectures, build_net, register_net

__all__ = ["architectures", "build_net", "register_net"]
