"""Weights that a card names by url, fetched from a server of this machine; the seam takes the s off https."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.catalog import weights
from bench.catalog.cards import Weights
from bench.catalog.models import load_model, resolve_models
from bench.catalog.sources import SourceOptions
from bench.core.errors import BenchError
from bench.core.toml_files import validate
from tests.conftest import Bench, ModelCopy


class Server(ThreadingHTTPServer):
    """Gives `content` for every path but /nothing, and says that it is `missing` bytes longer."""

    content = b""
    missing = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(404 if self.path == "/nothing" else 200)
        self.send_header("Content-Length", str(len(self.server.content) + self.server.missing))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


class PlainHttp:
    def open(self, url: str, timeout: float) -> Any:
        return urllib.request.urlopen(url.replace("https://", "http://", 1), timeout=timeout)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_https", PlainHttp)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def elsewhere(model_copy: ModelCopy, server: Server) -> ModelCopy:
    """The model `copy`, whose weights only the server has."""
    server.content = model_copy.weights.read_bytes()
    model_copy.weights.unlink()
    name_url(model_copy, server, "/w.safetensors")
    return model_copy


def name_url(copy: ModelCopy, server: Server, path: str, **changes: object) -> None:
    from bench.catalog.cards import read_card

    url = f"https://127.0.0.1:{server.server_port}{path}"
    copy.rewrite_card(weights=read_card(copy.folder).weights.model_copy(update={"url": url, **changes}))


def fetch() -> None:
    resolve_models(["copy"], options=SourceOptions(download=True))


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_weights_are_fetched_once_and_only_where_that_is_allowed(
    elsewhere: ModelCopy, server: Server, tmp_path: Path
) -> None:
    (entry,) = resolve_models(["copy"])
    with pytest.raises(BenchError, match="not on this machine; allow their download from 127") as caught:
        load_model(entry)
    assert caught.value.options == ("download",)
    assert server.asked == []
    fetch()
    fetch()
    load_model(entry)
    assert server.asked == ["/w.safetensors"]
    assert [path.name for path in kept(tmp_path)] == [f"{entry.card.weights.sha256}.safetensors"]


def test_a_file_beside_the_card_comes_first(elsewhere: ModelCopy, server: Server) -> None:
    elsewhere.weights.write_bytes(server.content[:-1])
    fetch()
    assert server.asked == []
    with pytest.raises(BenchError, match="do not match their card"):
        load_model(resolve_models(["copy"])[0])


def test_a_fetched_file_that_was_changed_is_refused(elsewhere: ModelCopy, tmp_path: Path) -> None:
    fetch()
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BenchError, match="do not match their card"):
        load_model(resolve_models(["copy"])[0])


@pytest.mark.parametrize("damage", ["changed", "cut", "too large", "not there", "no server"])
def test_what_is_not_the_cards_file_is_refused_and_not_kept(
    elsewhere: ModelCopy, server: Server, tmp_path: Path, damage: str
) -> None:
    expected = "is not the weights that the card of fashion_mnist/copy names"
    if damage == "changed":
        server.content = server.content[:-1] + b"x"
    elif damage == "cut":
        server.missing, server.content = 10, server.content[:-10]
    elif damage == "too large":
        name_url(elsewhere, server, "/w", parameters=1)
        server.content, expected = bytes((1 << 24) + 17), "it is larger than 16,777,232 bytes"
    elif damage == "not there":
        name_url(elsewhere, server, "/nothing")
        expected = "404"
    else:
        server.shutdown()
        server.socket.close()
        expected = "cannot be fetched from https://127"
    with pytest.raises(BenchError, match=expected):
        fetch()
    assert kept(tmp_path) == []


@pytest.mark.parametrize("url", ["http://a.org/w", "file:///etc/passwd", "ftp://a.org/w", "https://u:p@a.org/w", "w"])
def test_a_card_can_name_https_and_nothing_else(url: str) -> None:
    with pytest.raises(BenchError, match="url: string should match"):
        validate(Weights, {"sha256": "0" * 64, "parameters": 1, "url": url}, "card")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "file:///etc/hosts", "ftp://127.0.0.1:1/", "data:,x"])
def test_nothing_but_https_is_opened_wherever_a_server_sends_us(url: str) -> None:
    with pytest.raises(urllib.error.URLError, match="unknown url type"):
        weights._https().open(url)


def test_nets_that_a_run_depends_on_are_fetched_too_or_missed_before_it_starts(
    bench: Bench, elsewhere: ModelCopy, server: Server, tiny_suite: Path, tmp_path: Path
) -> None:
    source = elsewhere.folder.with_name("standard")  # what the probe for masking tries, from the first registry
    elsewhere.rewrite_card(id="standard")
    elsewhere.folder.rename(source)
    board = tmp_path / "board"
    run = (
        "run",
        "--model",
        "at_linf",
        "--suite",
        tiny_suite,
        "--examples",
        2,
        "--leaderboard",
        board,
        "--device",
        "cpu",
    )
    assert bench.refused(*run).endswith("(--download).")
    assert not board.exists()
    code, _, error = bench(*run, "--download")
    assert code == 0 and server.asked == ["/w.safetensors"], error


COMMANDS = {
    "run": ["--model", "copy", "--suite", "tiny.toml", "--examples", 2],
    "check": ["--model", "copy", "--suite", "tiny.toml", "--examples", 2, "--update", "--baseline", "base"],
    "saliency": ["--model", "copy", "--image", 0, "--method", "gradient", "--output", "a.png"],
    "models": ["verify", "copy", "--examples", 10],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_needs_weights_fetches_them_when_it_may(
    bench: Bench, elsewhere: ModelCopy, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tiny_suite.parent)
    arguments = [command, *COMMANDS[command], "--device", "cpu"]
    if command == "models":
        assert "1 not checked" in bench(*arguments)[1]
    else:
        assert bench.refused(*arguments).endswith("(--download).")
    code, _, error = bench(*arguments, "--download")
    assert code == 0, error
