"""Verdicts of `bench reproduce` where a leaderboard has them: `studies/<study>/verdict.md`, made safe for a page."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from bench.core.errors import BenchError
from bench.core.files import leads_out, read_regular
from bench.core.names import SAFE_NAME

FILE_NAME = "verdict.md"
_DEEPER = 2
_OWN_FIGURE = re.compile(rf"figures/{SAFE_NAME}\.svg")
_MOST_BYTES = 200_000
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Study:
    """One study's verdict; `source` is its file's place in the leaderboard."""

    name: str
    source: str
    html: Markup


class _PageRenderer(RendererHTML):
    """The study's own figures stand in the page; no image is loaded from elsewhere: its words stand for it."""

    def image(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        drawing = _drawing(env["verdict"], str(tokens[index].attrGet("src")))
        if drawing:
            content = base64.b64encode(drawing).decode()
            shown = Markup('<img class="figure" alt="{0}" src="data:image/svg+xml;base64,{1}"><em>{0}</em>')
            return str(shown.format(tokens[index].content, content))
        return str(Markup('<em class="figure-name">[figure: {}]</em>').format(tokens[index].content))


def read_studies(leaderboard: Path) -> list[Study]:
    """All verdicts under `leaderboard/studies`, sorted by name; none where there is no such folder.

    Raises:
        BenchError: a verdict cannot be read.
    """
    found = []
    for path in sorted((leaderboard / "studies").glob(f"**/{FILE_NAME}")):
        if leads_out(path, leaderboard):
            logger.warning("the verdict %s is a link out of the leaderboard, which is not followed", path)
            continue
        try:
            text = read_regular(path).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"cannot read the verdict {path} ({error}); run `bench reproduce` again.") from error
        name = path.parent.relative_to(leaderboard / "studies").as_posix()
        found.append(Study(name, path.relative_to(leaderboard).as_posix(), _render(text, path)))
    return found


def _drawing(verdict: Path, source: str) -> bytes:
    """One of the study's own figures, which as an image runs no script; empty for anything else."""
    path = verdict.parent / source
    if not _OWN_FIGURE.fullmatch(source) or leads_out(path, verdict.parent):
        return b""
    with suppress(OSError):
        if path.stat().st_size <= _MOST_BYTES:
            return read_regular(path)
    return b""


def _render(text: str, verdict: Path) -> Markup:
    """Markdown to HTML: no raw HTML, no script addresses, no images of others; headings below the page's own."""
    reader = MarkdownIt("js-default", {"html": False, "linkify": False}, renderer_cls=_PageRenderer).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + _DEEPER, 6)}"
    html = reader.renderer.render(tokens, reader.options, {"verdict": verdict})
    # raw HTML is off, so every tag in it is the renderer's own
    scroll = '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'
    return Markup(html.replace("<table>", scroll).replace("</table>", "</table></div>"))  # noqa: S704
