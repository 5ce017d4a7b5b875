"""Regular files, digests, locks, atomic writes: a file is either the old one or the new one, never half of either."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from bench.core.errors import BenchError

LOCK_SECONDS = 60.0
"""How long a lock is waited for that is held for the time of one write."""
_SOURCE = re.compile(r"(?:onnx|export|torchscript):")
_DRIVE = r"[A-Za-z]:(?=[\\/])"
_TAIL = r"""[^\s:;,'"]*[^\s:;,'".]"""
_ABSOLUTE_PATH = rf"(?<![\w./~])(?!(?<=:)//)(?:file:(?://)?)?(?P<path>{{known}}(?:{_TAIL})?|(?:{_DRIVE}|/){_TAIL})"
"""In a sentence; `known` are folders that may have spaces in their names. What follows https: is none."""
_TEMPORARY = ".bench-tmp"
_OLD_SECONDS = 86400.0
_WINDOWS_TRIES, _WINDOWS_SECONDS = 20, 0.05


def user_cache(*parts: str) -> Path:
    """A file or folder in the user's cache, ~/.cache/ribench, say."""
    return Path(platformdirs.user_cache_dir("ribench"), *parts)


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def home() -> Path | None:
    """The user's home folder, if there is one and it is no root."""
    try:
        found = Path.home()
    except RuntimeError:  # a user that the system does not know
        return None
    return found if found != found.parent else None


def shared_path(text: str) -> str:
    """A path for evidence that others will see: below the working directory from there on, elsewhere its last part.

    The home folder is `~`. Relative paths, and what is no path, stay as they are; so does `onnx:` before a path.
    """
    prefix = found[0] if (found := _SOURCE.match(text)) else ""
    rest = text.removeprefix(prefix)
    path = PureWindowsPath(rest) if re.match(_DRIVE, rest) else PurePath(rest)
    if not path.is_absolute():
        return text
    here, own = Path.cwd(), home()
    if path.is_relative_to(here) and (own is None or own == here or not own.is_relative_to(here)):
        return prefix + path.relative_to(here).as_posix()
    return prefix + ("~" if path == own else path.name)


def shared_text(text: str) -> str:
    """A sentence for evidence that others will see, its absolute paths as `shared_path` leaves them."""
    folders = sorted((str(one) for one in (Path.cwd(), home()) if one is not None and one != one.parent), key=len)
    known = rf"(?:{'|'.join(map(re.escape, reversed(folders))) or '(?!)'})(?![\w-])"
    return re.sub(_ABSOLUTE_PATH.replace("{known}", known), lambda found: shared_path(found["path"]), text)


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading if it is a regular one: reading a pipe or a device may never end.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says which.
    """
    try:
        # without O_NONBLOCK, opening a pipe waits until another process writes to it
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


def read_named(path: Path, what: str) -> bytes:
    """The bytes of a file that the user named; raises BenchError naming `what`."""
    try:
        return read_regular(path)
    except OSError as error:
        raise BenchError(f"cannot read {what} {path}: {error.strerror}.") from error


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a link on the way to `path` leads out of `folder`, whose owner may not know what lies there."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a zero byte
        return True


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
        line = f"cannot write {path}: {error.strerror or error}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            line = f"the disk is full, cannot write {path}; free some space and run the command again."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            line = f"no permission to write {path}; choose another folder or change its permissions."
        elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            line = f"cannot write {path}: a file stands where a folder is needed, or the other way round."
        raise BenchError(line) from error


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path` to be written; it is flushed to the disk and renamed over `path` at the end.

    Its mode is what the umask makes of a new file. A process that is killed leaves it behind, for `sweep` to find.

    Raises:
        BenchError: the disk is full or the folder cannot be written; `path` is then as it was.
    """
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            with temporary.open("rb+") as stream:  # Windows flushes no file that is only open for reading
                os.fsync(stream.fileno())
            _replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _replace(temporary: Path, path: Path) -> None:
    """Rename over `path`; Windows refuses for as long as another process has it open, to read it, say."""
    for _ in range(_WINDOWS_TRIES if os.name == "nt" else 0):
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(_WINDOWS_SECONDS)
        else:
            return
    temporary.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` as the whole of `path`; raises as `replaced_whole` does."""
    with replaced_whole(path) as temporary:
        temporary.write_bytes(content)


def require_writable(path: Path) -> None:
    """Raise BenchError if a file could not be written there; called before the work whose outcome it gets."""
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):  # of a name of its own: several processes look at once
            pass


def sweep(folder: Path) -> None:
    """Remove files of `replaced_whole` that killed processes have left in `folder`, after a day."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        with suppress(OSError):  # another process was faster, or it is not permitted
            if is_old(path):
                path.unlink()


def is_old(path: Path) -> bool:
    """Whether it has not changed for a day, so that no process can be at work on it any more."""
    return time.time() - path.lstat().st_mtime > _OLD_SECONDS


@contextmanager
def locked(path: Path, busy: str = "", seconds: float | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which all processes share.

    Args:
        busy: said at once where another process holds it; empty: that one is waited for.
        seconds: how long at most, infinite where it takes what it takes; LOCK_SECONDS by default.

    Raises:
        BenchError: another process holds it for too long, or the file system has no locks.
    """
    seconds = LOCK_SECONDS if seconds is None else seconds
    lock = FileLock(path, timeout=0.0 if busy else seconds if math.isfinite(seconds) else -1)
    with clear_disk_errors(path):
        try:
            lock.acquire()
        except Timeout as error:
            waited = f"another process has held {path} for {seconds:.0f} seconds; end it, or try again later."
            raise BenchError(busy or waited) from error
        except NotImplementedError as error:
            raise BenchError(f"the file system of {path} has no locks; choose a folder on another one.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def computed_once(path: Path) -> Iterator[None]:
    """Look into the cache at `path`, and fill it, while no other process does: one that is at it is waited for.

    Nothing is waited for where no lock can be had, as beside a cache that cannot be written.
    """
    lock, held = path.with_name(f"{path.name}.lock"), False
    try:
        with ExitStack() as stack:
            with suppress(BenchError, OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(lock, seconds=math.inf))
                held = True
            yield
    finally:
        if held:  # not where the wait for another's lock was cut short
            with suppress(OSError):  # whoever waits for it has it open, and finds the cache filled
                lock.unlink()


def csv_text(lines: Iterable[Iterable[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def json_text(value: Any) -> str:
    """`value` as JSON that any program reads: what is no finite number becomes null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def json_lines(content: Mapping[str, Any]) -> str:
    """The same with a line for each entry, whatever is in it: a third smaller than indented."""
    lines = [
        f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'), allow_nan=False)}"
        for name, value in _finite(content).items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
