"""Verdicts of `bench reproduce` where a leaderboard has them: `studies/<study>/verdict.md`, made safe for a page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from bench.core.errors import BenchError
from bench.core.files import leads_out, read_regular

FILE_NAME = "verdict.md"
_DEEPER = 2
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Study:
    """One study's verdict."""

    name: str
    source: str
    html: Markup


class _PageRenderer(RendererHTML):
    """No image is loaded, from nowhere: its alternative text stands for it."""

    def image(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
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
        found.append(Study(name, path.relative_to(leaderboard).as_posix(), _render(text)))
    return found


def _render(text: str) -> Markup:
    """Markdown to HTML: no raw HTML, no script addresses, no images; headings below the page's own."""
    reader = MarkdownIt("js-default", {"html": False, "linkify": False}, renderer_cls=_PageRenderer).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + _DEEPER, 6)}"
    html = reader.renderer.render(tokens, reader.options, {})
    # raw HTML is off, so every tag in it is the renderer's own
    scroll = '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'
    return Markup(html.replace("<table>", scroll).replace("</table>", "</table></div>"))  # noqa: S704
