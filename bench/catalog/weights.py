"""The weights of a card: beside it, or, where the card names a url, in the user's cache under their digest.

Nothing of a file is opened before its digest is known to be the card's. What is fetched comes by https and is at most
as large as its parameters can make it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from bench.catalog.cards import Weights
from bench.core.errors import BenchError, in_one_line
from bench.core.files import leads_out, read_named, replaced_whole, sha256_bytes, sweep, user_cache

logger = logging.getLogger(__name__)

FILE_NAME = "weights.safetensors"
_FAILURES = (
    urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError, ValueError,
)  # fmt: skip
_PIECE = 1 << 20
_SECONDS = 60.0
"""How long a server may be silent."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Where the weights of a card lie; `name` is what the card is called, `folder` where it lies."""

    weights: Weights
    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The file beside the card or, where there is none, the fetched one; the first too where there is neither."""
        beside, fetched = self.folder / FILE_NAME, self._fetched
        return fetched if fetched.is_file() and not beside.exists() else beside

    @property
    def _fetched(self) -> Path:
        return user_cache("weights", f"{self.weights.sha256}.safetensors")

    def read(self) -> bytes:
        """The file's bytes, digest checked; raises BenchError if they are not here, unreadable, or not the card's."""
        path = self.path
        if path.parent == self.folder and leads_out(path, self.folder):
            raise BenchError(
                f"weights {path} are a link that leads out of the model's folder; put the file itself there."
            )
        if self.weights.url is not None and not path.exists():
            host = urlparse(self.weights.url).netloc
            raise BenchError(
                f"the weights of {self.name} are not on this machine; allow their download from {host}.",
                option="download",
            )
        content = read_named(path, "the weights")
        found, stated = sha256_bytes(content), self.weights.sha256
        if found != stated:
            raise BenchError(
                f"weights {path} do not match their card (sha256 {found[:12]}..., card says {stated[:12]}...); restore "
                "the file or publish a new card."
            )
        return content

    def fetch(self) -> None:
        """Fetch weights that are not here, if the card says from where.

        Raises:
            BenchError: they cannot be fetched, are larger than they can be, or not those of the card; nothing is kept.
        """
        url = self.weights.url
        if url is None or self.path.exists():
            return
        logger.info("fetching the weights of %s from %s", self.name, url)
        sweep(self._fetched.parent)
        with replaced_whole(self._fetched) as part:
            try:
                found = _fetch(url, part, 16 * self.weights.parameters + (1 << 24))
            except _FAILURES as error:
                raise BenchError(
                    f"the weights of {self.name} cannot be fetched from {url} ({in_one_line(error)})."
                ) from error
            if found != self.weights.sha256:
                raise BenchError(
                    f"what {url} gives is not the weights that the card of {self.name} names (sha256 {found[:12]}..., "
                    f"card says {self.weights.sha256[:12]}...); nothing was kept."
                )


def _fetch(url: str, path: Path, most: int) -> str:
    """Write what a url gives to a file; the digest. Raises ValueError for more than `most` bytes."""
    digest, size = hashlib.sha256(), 0
    with _https().open(url, timeout=_SECONDS) as answer, path.open("wb") as stream:
        while piece := answer.read(_PIECE):
            size += len(piece)
            if size > most:
                raise ValueError(f"it is larger than {most:,} bytes")
            digest.update(piece)
            stream.write(piece)
    return digest.hexdigest()


def _https() -> Any:
    """What opens https and nothing else, wherever a server redirects to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
