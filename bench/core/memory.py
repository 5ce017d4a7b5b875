"""Memory and threads of this process: freed blocks are kept for the next step, waiting threads sleep."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP = 1 << 30
_SIGNS = (
    "DefaultCPUAllocator", "CUDA out of memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
"""How torch says it where the error has no type of its own."""
_SPINS = "1000"


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


def free_memory() -> int | None:
    """Bytes of main memory that a process could still take; None where the system does not say."""
    found = re.search(r"MemAvailable: *(\d+) kB", _text("/proc/meminfo"))
    if found is None:
        return None
    return min([int(found[1]) * 1024, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Bytes that the control groups of this process leave it: those of a container or of a cluster's job."""
    for line in _text("/proc/self/cgroup").splitlines():
        controllers, group = line.split(":", 2)[1:]
        if not controllers:  # version 2
            root, maximum, taken = "/sys/fs/cgroup", "memory.max", "anon"
        elif "memory" in controllers.split(","):
            root, maximum, taken = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "total_rss"
        else:
            continue
        folder = PurePosixPath(root + group)
        for one in (folder, *folder.parents)[: len(folder.parts) - len(PurePosixPath(root).parts) + 1]:
            limit = _text(f"{one}/{maximum}").strip()
            used = re.search(rf"^{taken} (\d+)", _text(f"{one}/memory.stat"), re.MULTILINE)
            if limit.isdigit() and used is not None:
                yield max(0, int(limit) - int(used[1]))


def limit_openmp_spinning() -> None:
    """Let OpenMP threads spin only briefly before they sleep, unless the environment already says how to wait.

    To be called before torch is imported.

    By default libgomp's threads spin for milliseconds at every barrier. On a machine that is busy with something else
    they then burn the time of the very thread they wait for: cross_norm_quick took 40 to 70 s in place of 5 s beside
    two background jobs on two cores, and takes 9 s with this. On an idle machine it makes no difference.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
