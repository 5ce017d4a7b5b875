"""Memory of a CPU process: keep freed blocks for the next step in place of giving them back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP = 1 << 30


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
