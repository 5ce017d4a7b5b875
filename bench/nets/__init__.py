"""Architectures. Every net takes images in [0, 1], (N, C, H, W), and returns logits; it normalises inside."""

from bench.nets import classifiers, external
from bench.nets.registry import architectures, build_net, register_modules, register_net

register_modules(classifiers)
register_modules(external)

__all__ = ["architectures", "build_net", "register_net"]
