"""Seals: whether a work unit's results were written by this user, and not by another who can write to the folder.

The key lies in the user's own state folder, readable only by that user. Machines that share a home folder share it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from bench.core.errors import BenchError
from bench.core.files import locked, replaced_whole

logger = logging.getLogger(__name__)
_BYTES = 32


def seal(*content: Any) -> str:
    """The seal of some JSON values: a message authentication code (HMAC-SHA-256) under the user's key."""
    text = json.dumps(content, sort_keys=True)
    return hmac.new(_key(_key_file()), text.encode(), hashlib.sha256).hexdigest()


def is_sealed(found: object, *content: Any) -> bool:
    """Whether `found` is the seal of `content`."""
    return isinstance(found, str) and hmac.compare_digest(found.encode(errors="replace"), seal(*content).encode())


def _key_file() -> Path:
    return Path(platformdirs.user_state_dir("ribench")) / "resume.key"


@lru_cache(maxsize=4)
def _key(path: Path) -> bytes:
    """The user's key, made when first asked for; one of this process alone where none can be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if not _is_private(path):
                with replaced_whole(path) as temporary:
                    temporary.chmod(0o600)
                    temporary.write_bytes(secrets.token_bytes(_BYTES))
            return path.read_bytes()
    except (BenchError, OSError) as error:
        logger.warning("a stopped run cannot be resumed, since no key can be kept in %s (%s)", path.parent, error)
        return secrets.token_bytes(_BYTES)


def _is_private(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    status = path.stat()
    return status.st_size == _BYTES and (os.name == "nt" or not status.st_mode & 0o077)
