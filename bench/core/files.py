"""Reading regular files, digests, atomic writes: a file is either the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bench.core.errors import BenchError


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def open_regular(path: Path) -> BinaryIO:
    """Open a file that somebody named, for reading, if it is a regular one: a pipe or a device may never end.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says which.
    """
    try:
        # without O_NONBLOCK the opening of a pipe waits until somebody writes to it
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, "that is no path", str(path)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        kind = errno.EISDIR if stat.S_ISDIR(os.fstat(handle).st_mode) else errno.EINVAL
        os.close(handle)
        raise OSError(kind, "it is no regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; raises OSError as `open_regular` does."""
    with open_regular(path) as stream:
        return stream.read()


def sha256_file(path: Path) -> str:
    """Raises OSError as `open_regular` does."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder and their like into one clear line about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(
                f"the disk is full, cannot write {path}; free some space and run the command again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise BenchError(
                f"no permission to write {path}; choose another folder or change its permissions."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise BenchError(
                f"cannot write {path}: a file stands where a folder is needed, or the other way round."
            ) from error
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, flush it to the disk, then rename it over `path`.

    Raises:
        BenchError: the disk is full or the folder cannot be written; `path` is then as it was.
    """
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
