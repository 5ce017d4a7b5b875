"""A page of everything that one can show, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting.page.pages import Node, full_board, page_of, parse


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="session")
def html(folder: Path) -> str:
    return page_of(folder)


@pytest.fixture(scope="session")
def page(html: str) -> Node:
    return parse(html)
