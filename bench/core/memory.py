"""Memory: freed blocks of a CPU process are kept for the next step, and what tells that there is no more."""

from __future__ import annotations

import contextlib
import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP = 1 << 30
_SIGNS = ("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How torch says it where the error has no type of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no memory left for a tensor."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed blocks up to 1 GiB; returns whether it was told.

    By default it maps every large tensor afresh and hands it back when freed, so that each attack step pays for the
    page faults of its activations (20 to 30 % of a step, measured with the small net on two cores). Elsewhere than on
    Linux with glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(_M_MMAP_THRESHOLD, _KEEP) and libc.mallopt(_M_TRIM_THRESHOLD, _KEEP))
    return False
