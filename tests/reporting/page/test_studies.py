from __future__ import annotations

import base64
from pathlib import Path

import pytest

from bench.reporting.page.studies import read_studies

DRAWING = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def html(folder: Path, source: str) -> str:
    verdict = folder / "studies" / "mine" / "verdict.md"
    (verdict.parent / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("front", "Front-1.a"):  # as pictures and suites may be called
        (verdict.parent / "figures" / f"{name}.svg").write_bytes(DRAWING)
    verdict.write_text(f"![a <front>]({source})\n")
    (study,) = read_studies(folder)
    return str(study.html)


def test_a_studys_own_figure_stands_in_the_page_as_an_image_with_its_words(tmp_path: Path) -> None:
    content = base64.b64encode(DRAWING).decode()
    image = f'<img class="figure" alt="a &lt;front&gt;" src="data:image/svg+xml;base64,{content}">'
    for source in ("figures/front.svg", "figures/Front-1.a.svg"):
        assert f"{image}<em>a &lt;front&gt;</em>" in html(tmp_path, source)


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/front.svg",
        "figures/none.svg",
        "figures/../figures/front.svg",
        "figures/link.svg",
        "figures/big.svg",
    ],
)
def test_no_other_image_gets_into_the_page(tmp_path: Path, source: str) -> None:
    html(tmp_path, "x")
    figures, outside = tmp_path / "studies" / "mine" / "figures", tmp_path / "outside.svg"
    outside.write_bytes(DRAWING)
    (figures / "link.svg").symlink_to(outside)
    (figures / "big.svg").write_bytes(DRAWING + b" " * 200_000)
    found = html(tmp_path, source)
    assert "<img" not in found and "[figure: a &lt;front&gt;]" in found
