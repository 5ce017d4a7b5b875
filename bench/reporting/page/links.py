"""Words as HTML: links to papers, and to the files that the page was made from; names that may be broken."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from markupsafe import Markup, escape

from bench.core.errors import BenchError

_OUTWARD = re.compile(r"arXiv[ :](?P<paper>\d{4}\.\d{4,5})|https?://[^\s<>\"'()]*[^\s<>\"'().,;:]")


@dataclass(frozen=True, slots=True)
class Links:
    """How the page reaches files.

    Attributes:
        leaderboard: its folder.
        base: the folder's address, absolute or as the page sees it; None: the page stands elsewhere and has no links.
    """

    leaderboard: Path
    base: str | None = None

    def to(self, path: Path) -> str:
        """The address of a file of the leaderboard, or of what lies beside it; empty where there is none."""
        folder = self.leaderboard.resolve()
        if self.base is None or not path.resolve().is_relative_to(folder.parent):
            return ""
        inside = quote(Path(os.path.relpath(path.resolve(), folder)).as_posix())
        scheme, place, start = urlsplit(self.base)[:3]
        if scheme and not start.strip("/") and inside.startswith("../"):
            return ""  # above all that the host has
        address = posixpath.normpath(posixpath.join(start or ("/" if scheme else "."), inside))
        return f"{scheme}://{place}{address}" if scheme else address


def links_for(leaderboard: Path, page: Path, base: str | None = None) -> Links:
    """Links of a page.

    Args:
        leaderboard: its folder.
        page: where the page is written: in the folder or somewhere above it, files are found from there.
        base: the folder's address, where the page is read elsewhere: https://... or a path from the page's place.

    Raises:
        BenchError: a base of another kind.
    """
    if base is not None:
        parts = urlsplit(base)
        outward = parts.scheme in ("http", "https") and parts.netloc
        inward = not parts.scheme and not parts.netloc and base.strip()
        if not (outward or inward) or "?" in base or "#" in base:
            raise BenchError(
                f"{base!r} is no address of a leaderboard's folder; use https://HOST/PATH, or a path from the page.",
                option="base",
            )
        return Links(leaderboard, base)
    above = page.resolve().parent
    if not leaderboard.resolve().is_relative_to(above):
        return Links(leaderboard)
    return Links(leaderboard, quote(leaderboard.resolve().relative_to(above).as_posix()))


def breakable(name: object) -> Markup:
    """A name that may go on in the next line after a slash or an underscore."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])(?=.)", str(name)))


def linked(text: object) -> Markup:
    """Text whose arXiv numbers and web addresses are links."""
    if isinstance(text, Markup):
        return text
    plain, parts, end = str(text), [], 0
    for found in _OUTWARD.finditer(plain):
        address = f"https://arxiv.org/abs/{found['paper']}" if found["paper"] else found[0]
        link = Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, found[0])
        parts += [escape(plain[end : found.start()]), link]
        end = found.end()
    return Markup("").join([*parts, escape(plain[end:])])
