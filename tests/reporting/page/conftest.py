"""A page of everything that one can show, built once; and a browser that visits it and the shipped one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.comparison.seed_groups import seed_groups
from bench.leaderboard.boards import Board
from bench.leaderboard.table import read_leaderboard
from bench.leaderboard.views import by_method
from bench.reporting.page.page import PageSource, build_page
from tests.reporting.page.pages import Node, full_board, page_of, parse

SHIPPED = Path(__file__).parents[3] / "leaderboard"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="session")
def html(folder: Path) -> str:
    return page_of(folder)


@pytest.fixture(scope="session")
def page(html: str) -> Node:
    return parse(html)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install 'ribench[test]')")
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made_up = folder / "made_up.html"
    made_up.write_text(page_of(full_board(folder / "board"), plain=False))
    shipped = folder / "shipped.html"
    shipped.write_text(build_page(PageSource(read_leaderboard(SHIPPED), SHIPPED, "Shipped", by_method=_by_method)))
    return {"made up": made_up, "shipped": shipped}


def _by_method(board: Board) -> Board:
    return by_method(board, seed_groups(board, SHIPPED))


class Visit:
    """An open page and everything that went wrong on it."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(f"console {message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            self.page.wait_for_selector("html[data-ready]")

    def visible_models(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all(
            "details.board[open] .board-table tbody tr",
            "rows => rows.filter(row => row.offsetParent).map(row => row.dataset.model)",
        )
        return found


@pytest.fixture
def visit(browser: Any, files: dict[str, Path]) -> Iterator[Any]:
    opened: list[Visit] = []

    def go(which: str = "made up", width: int = 1280, **options: Any) -> Visit:
        opened.append(Visit(browser, files[which], width, **options))
        return opened[-1]

    yield go
    for one in opened:
        assert one.problems == []
        assert [url for url in one.requests if not url.startswith(("file:", "data:"))] == []
        assert len([url for url in one.requests if url.startswith("file:")]) == 1
        one.page.close()
