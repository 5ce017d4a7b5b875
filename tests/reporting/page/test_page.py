from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.leaderboard.table import read_leaderboard
from bench.reporting.page.page import PageSource, build_page
from tests.reporting.page.pages import (
    EVIL,
    EVIL_SCRIPT,
    Node,
    add_run,
    metric,
    page_of,
    parse,
    unpack_all,
)

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "leaderboard"
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "manifest", "archive"}


@pytest.fixture(scope="module")
def shipped() -> tuple[str, Node]:
    """Of the shipped leaderboard what is on CIFAR-10; all of it takes long, and the browser's tests have it."""
    rows = read_leaderboard(SHIPPED)
    html = build_page(PageSource(rows[rows["dataset"] == "cifar10"], SHIPPED, "Shipped"))
    return html, parse(unpack_all(html))


def sections(page: Node) -> list[str]:
    return [node.attributes["id"] for node in page.find("section")]


def test_nothing_is_loaded_from_anywhere(page: Node, html: str) -> None:
    for node in page.walk():
        assert node.tag not in {"link", "iframe", "object", "embed", "base", "audio", "video"}
        for name, value in node.attributes.items():
            if name in LOADING:
                assert value.startswith("data:image/png;base64,"), (node.tag, name, value)
            if name in ("href", "xlink:href") and node.tag != "a":
                assert value.startswith("#"), (node.tag, value)
        if node.tag == "style":
            assert "@import" not in node.text and "url(" not in node.text
    assert not re.findall(r"url\((?!#)", html)
    assert "fetch(" not in html and "XMLHttpRequest" not in html and "import(" not in html


def test_the_policy_allows_the_own_script_and_nothing_else(page: Node, html: str) -> None:
    (policy,) = [node for node in page.find("meta") if node.attributes.get("http-equiv") == "Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.attributes["content"].split(";"))
    assert directives["default-src"] == "'none'"
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert directives["script-src"] == f"'sha256-{digest}'"


def test_words_from_files_cannot_become_elements(page: Node, html: str) -> None:
    assert len(page.find("script")) == 1
    for node in page.walk():
        assert not [name for name in node.attributes if name.startswith("on")], node
        assert not node.attributes.get("href", "").lower().startswith("javascript:")
    assert not page.find("img")  # no saliency here, and neither the model's name nor the study's figure may make one
    texts = page.text
    assert EVIL in texts
    assert EVIL_SCRIPT in texts
    assert "alert(2)" not in page.find("script")[0].text
    hostile = [row for row in page.find("tr") if row.attributes.get("data-model") == f"fashion_mnist/{EVIL}"]
    assert hostile and hostile[0].attributes["data-method"] == EVIL_SCRIPT
    assert "https://example.org/x.png" not in html


def test_a_packed_page_holds_the_same_and_nothing_that_could_run(folder: Path, page: Node) -> None:
    html = page_of(folder, plain=False)
    tree = parse(html)
    own, *blocks = tree.find("script")
    assert len(blocks) >= 6 and {block.attributes["type"] for block in blocks} == {"text/plain"}
    assert "type" not in own.attributes
    for block in blocks:
        assert re.fullmatch(r"[A-Za-z0-9+/=]+", block.text)
    assert parse(unpack_all(html)).find("main")[0].text == page.find("main")[0].text
    assert EVIL not in tree.text.replace(tree.with_class("board")[0].text, "")
    assert len(tree.with_class("board")) == 1 and "--plain" in tree.find("noscript")[0].text
    assert len(html) < 0.6 * len(page_of(folder))


def test_a_title_is_escaped_too(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", [metric("wobble", 3.0)])
    page = parse(page_of(tmp_path, title=EVIL_SCRIPT))
    assert page.find("h1")[0].text == page.find("title")[0].text == EVIL_SCRIPT


def test_studies_are_shown_without_their_markup_getting_out(page: Node) -> None:
    (study,) = page.with_class("study")
    assert study.find("h3")[0].text == "lga"
    assert [cell.text for cell in study.find("td")] == ["stable", "supported"]
    assert study.with_class("figure-name")[0].text == "[figure: a figure]"
    assert [link.attributes["href"] for link in study.find("a")] == ["https://example.org"]


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", [metric("wobble", 3.0)], suite_name="strange", manifest={"suite": {}})
    page = parse(page_of(tmp_path))
    assert sections(page) == ["leaderboard", "models", "reading"]
    assert not page.with_class("panel")
    assert "recorded a finding" in page.find("header")[0].text
    links = [link.attributes["href"] for link in page.find("nav")[0].find("a")]
    assert links == ["#leaderboard", "#models", "#reading"]


def test_no_section_is_empty(page: Node) -> None:
    found = sections(page)
    assert found == ["leaderboard", "curves", "tradeoffs", "retraining", "findings", "studies", "models", "reading"]
    for section in page.find("section"):
        assert len(section.text) > len(section.find("h2")[0].text) + 40


@pytest.mark.parametrize("which", ["made up", "shipped"])
def test_everything_can_be_read_without_seeing_it(which: str, page: Node, shipped: tuple[str, Node]) -> None:
    tree = page if which == "made up" else shipped[1]
    ids = [node.attributes["id"] for node in tree.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    plots = [node for node in tree.find("svg") if node.attributes.get("role") == "img"]
    assert plots
    for plot in plots:
        title, description = plot.attributes["aria-labelledby"].split()
        texts = {node.attributes.get("id"): node.text for node in plot.walk() if node.tag in ("title", "desc")}
        assert len(texts[title]) > 10 and len(texts[description]) > 60
        assert plot.with_class("point")
    for panel in tree.with_class("panel"):
        assert panel.find("figcaption")[0].text
        points = {point.find("title")[0].text for point in panel.with_class("point")}
        assert len(points) >= 2 and panel.find("tbody")[0].find("tr")
    for svg in tree.find("svg"):
        assert svg.attributes.get("role") == "img" or svg.attributes.get("aria-hidden") == "true"
    for table in tree.find("table"):
        assert table.find("caption") or table.find("th"), table.text[:80]
        assert all(header.attributes.get("scope") for header in table.find("th")) or not table.find("caption")
    for node in tree.walk():
        target = node.attributes.get("href", "")
        if target.startswith("#") and len(target) > 1:
            assert target[1:] in ids, target
    for control in [*tree.find("input"), *tree.find("select")]:
        assert any(control in label.walk() for label in tree.find("label"))
    levels = [int(node.tag[1]) for node in tree.walk() if re.fullmatch(r"h[1-6]", node.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(second - first <= 1 for first, second in itertools.pairwise(levels))
    assert tree.find("html")[0].attributes["lang"] == "en"


def test_the_page_has_every_model_and_its_plots(shipped: tuple[str, Node]) -> None:
    html, page = shipped
    rows = read_leaderboard(SHIPPED)
    models = {f"cifar10/{model}" for model in rows.loc[rows["dataset"] == "cifar10", "model"]}
    assert {node.attributes["data-model"] for node in page.with_class("model")} == models
    assert len(page.with_class("panel")) >= 7
    drawings = sum(path.stat().st_size for path in SHIPPED.glob("studies/*/figures/*.svg"))
    assert len(html.encode()) < 80_000 + 10_000 * len(models) + 1.4 * drawings


def test_the_same_leaderboard_makes_the_same_page_in_another_process(folder: Path, html: str) -> None:
    code = "import sys; from pathlib import Path; from tests.reporting.page.pages import page_of; "
    code += f"sys.stdout.write(page_of(Path({str(folder)!r})))"
    environment = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == html


def test_every_colour_can_be_told_from_the_page_in_both_themes() -> None:
    style = (ROOT / "bench/reporting/page/templates/page.css").read_text()
    pairs = dict(re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\)", style))
    for theme in (0, 1):
        colours = {name: pair.split(", ")[theme] for name, pair in pairs.items()}
        for name, least in [("text", 7.0), ("muted", 4.5), ("accent", 4.5), ("warn", 4.5)]:
            assert contrast(colours[name], colours["surface"]) >= least, (theme, name)
            assert contrast(colours[name], colours["page"]) >= least, (theme, name)
        assert contrast(colours["warn"], colours["warn-page"]) >= 4.5
        for place in range(12):
            assert contrast(colours[f"series-{place}"], colours["surface"]) >= 3.0, (theme, place)


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
