from __future__ import annotations

from pathlib import Path

import pytest
from markupsafe import Markup

from bench.core.errors import BenchError
from bench.reporting.page.links import Links, linked, links_for
from tests.reporting.page.pages import EVIL_SCRIPT, Node, add_run, metric, page_of, parse, suite


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("Croce and Hein, ICML 2020 (arXiv 2003.01690);", "https://arxiv.org/abs/2003.01690", "arXiv 2003.01690"),
        ("arXiv:1912.03430.", "https://arxiv.org/abs/1912.03430", "arXiv:1912.03430"),
        ("see https://example.org/a?b=1&c=2).", "https://example.org/a?b=1&c=2", "https://example.org/a?b=1&c=2"),
    ],
)
def test_papers_and_addresses_become_links(text: str, address: str, shown: str) -> None:
    (link,) = parse(str(linked(text))).find("a")
    assert (link.attributes["href"], link.text) == (address, shown)
    assert parse(str(linked(text))).text == text


def test_no_other_words_do() -> None:
    hostile = f"javascript:alert(1) arXiv 12.3 {EVIL_SCRIPT} https://x.org/{EVIL_SCRIPT}"
    page = parse(str(linked(hostile)))
    assert page.text == hostile
    assert [link.attributes["href"] for link in page.find("a")] == ["https://x.org/"]
    assert not page.find("script") and linked(Markup("<b>arXiv 2003.01690</b>")) == "<b>arXiv 2003.01690</b>"


@pytest.mark.parametrize(
    ("page", "base", "found"),
    [
        ("site/report.html", None, "board%20a/runs/one/manifest.json"),
        ("report.html", None, "site/board%20a/runs/one/manifest.json"),
        ("site/board a/index.html", None, "runs/one/manifest.json"),
        ("elsewhere/report.html", None, ""),
        ("elsewhere/report.html", "https://x.org/main/board/", "https://x.org/main/board/runs/one/manifest.json"),
        ("elsewhere/report.html", "https://x.org", "https://x.org/runs/one/manifest.json"),
        ("elsewhere/report.html", "../site/board", "../site/board/runs/one/manifest.json"),
    ],
)
def test_evidence_is_found_from_where_the_page_is_read(tmp_path: Path, page: str, base: str | None, found: str) -> None:
    folder = tmp_path / "site" / "board a"
    links = links_for(folder, tmp_path / page, base)
    assert links.to(folder / "runs" / "one" / "manifest.json") == found


def test_what_lies_beside_the_leaderboard_is_linked_and_nothing_farther(tmp_path: Path) -> None:
    links = Links(tmp_path / "site" / "board", "https://x.org/main/board")
    assert links.to(tmp_path / "site" / "models" / "a" / "card.toml") == "https://x.org/main/models/a/card.toml"
    assert links.to(tmp_path / "other" / "card.toml") == ""
    assert Links(tmp_path / "site" / "board", "https://x.org/").to(tmp_path / "site" / "models" / "a") == ""


@pytest.mark.parametrize(
    "base", ["javascript:alert(1)", "file:///etc", "https:", "data:text/html,x", " ", "https://x.org/a?b=1"]
)
def test_other_bases_are_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(BenchError, match="no address"):
        links_for(tmp_path, tmp_path / "page.html", base)


def hrefs(page: Node) -> list[str]:
    return [link.attributes["href"] for link in page.find("a")]


def test_a_page_links_papers_evidence_and_all_numbers(tmp_path: Path) -> None:
    paper = suite().model_copy(update={"source": "Croce and Hein, ICML 2020 (arXiv 2003.01690)."})
    run_id = add_run(tmp_path, "alpha", [metric("clean_accuracy", 0.9)], manifest={"suite": paper.model_dump()})
    linking = hrefs(parse(page_of(tmp_path, links=Links(tmp_path, "board"))))
    for wanted in (f"board/runs/{run_id}/", f"board/runs/{run_id}/manifest.json", "board/leaderboard.csv"):
        assert wanted in linking
    without = hrefs(parse(page_of(tmp_path)))
    assert {one for one in without if not one.startswith("#")} == {"https://arxiv.org/abs/2003.01690"}
