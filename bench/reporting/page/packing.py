"""Parts of the page kept compressed until the reader's browser unpacks them: a tenth of the size."""

from __future__ import annotations

import base64
import gzip

from markupsafe import Markup


def packed(html: str) -> Markup:
    """A data block that the page's script puts back as it was; the same bytes for the same text.

    Plots and tables repeat themselves, so that they compress to a tenth. A browser does not run, show or load a data
    block, and base64 has no character that could end it.
    """
    return Markup('<script type="text/plain" class="packed">{}</script>').format(
        base64.b64encode(gzip.compress(html.encode(), mtime=0)).decode()
    )


def unpacked(block: str) -> str:
    """The text that `packed` was given, from the content of its data block."""
    return gzip.decompress(base64.b64decode(block)).decode()
