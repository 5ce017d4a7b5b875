"""What torch must be told so that a net can be differentiated twice."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


def twice_differentiable(wanted: bool = True) -> AbstractContextManager[object]:
    """Forward passes in here have second derivatives also where they attend, if `wanted`.

    Torch's fused attention has none; made of plain products and a softmax, it has.
    """
    if not wanted:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)
