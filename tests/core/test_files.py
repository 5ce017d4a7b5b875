from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import BenchError
from bench.core.files import (
    home,
    json_lines,
    json_text,
    read_regular,
    replaced_whole,
    sha256_file,
    shared_path,
    shared_text,
    sweep,
    write_atomically,
)


def test_a_full_disk_gives_one_line_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_read_only_file_system_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(BenchError, match="no permission to write"):
        write_atomically(tmp_path / "file", b"new")


def test_a_file_where_a_folder_is_needed_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(BenchError, match="stands where a folder is needed"):
        write_atomically(tmp_path / "taken" / "file", b"new")


@pytest.mark.parametrize("read", [read_regular, sha256_file])
def test_a_pipe_a_device_and_a_folder_are_no_files_to_be_read(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            read(path)


def test_a_link_to_a_file_is_read_and_what_is_missing_or_no_path_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"x"
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nowhere")
    with pytest.raises(OSError, match="no path"):
        read_regular(Path("a\0b"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_file_gets_the_mode_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_what_a_killed_process_left_is_swept_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("the user's own")
    left = [replaced_whole(tmp_path / name) for name in ("old", "new")]
    old, new = (one.__enter__() for one in left)  # never left, as under SIGKILL
    for path in (tmp_path / ".hidden", old):
        os.utime(path, (0, 0))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", new.name}


@pytest.mark.parametrize("as_text", [json_text, json_lines])
def test_numbers_that_json_does_not_have_become_null(as_text: Callable[[dict[str, object]], str]) -> None:
    value = {"a": [float("inf"), float("nan"), 1.5], "b": {"c": -float("inf"), "d": "inf"}}
    assert json.loads(as_text(value), parse_constant=pytest.fail) == {
        "a": [None, None, 1.5], "b": {"c": None, "d": "inf"}
    }  # fmt: skip


def test_evidence_names_no_folder_outside_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared_path(str(tmp_path / "nets" / "net.py:build")) == "nets/net.py:build"
    assert shared_path(str(tmp_path.parent / "private" / "net.py:build")) == "net.py:build"
    assert shared_path(str(tmp_path.parent)) == tmp_path.parent.name
    for text in ("nets/net.py:build", "../net.py:build", "timm:resnet18", "0.286,0.286"):
        assert shared_path(text) == text


def test_sentences_for_evidence_name_no_folder_outside_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path.parent / "home"
    said = f"no data in {home}/data; see {tmp_path}/a.md, or '{home}/net.py:build'."
    assert shared_text(said) == "no data in data; see a.md, or 'net.py:build'."
    for text in ("radius 8/255 and/or 1 / 2.", "see https://example.org/a/b.", "a/b.csv is no file"):
        assert shared_text(text) == text


def test_evidence_does_not_name_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann lee"))
    for text, left in {
        "onnx:/home/ann/net.onnx": "onnx:net.onnx", "torchscript:/home/ann/net.pt": "torchscript:net.pt",
        f"export:{tmp_path}/nets/net.pt2": "export:nets/net.pt2", "/home/ann lee": "~", "onnx:net.onnx": "onnx:net.onnx",
        "C:\\Users\\ann\\net.py:make": "net.py:make",
    }.items():  # fmt: skip
        assert shared_path(text) == left
    for text, left in {
        "no net in C:\\Users\\ann\\models\\x.py": "no net in x.py", "see file:///home/ann/x.": "see x.",
        "cannot read /home/ann lee/models/x.py.": "cannot read x.py.", "'/home/ann lee': a folder": "'~': a folder",
        "onnx:/home/ann/net.onnx is none": "onnx:net.onnx is none", "in ~/models/x.py": "in ~/models/x.py",
        "/home/ann leeway/x": "ann leeway/x",
    }.items():  # fmt: skip
        assert shared_text(text) == left
    monkeypatch.setattr(Path, "cwd", lambda: Path("/home"))
    assert shared_path("/home/ann lee/net.py") == shared_text("/home/ann lee/net.py") == "net.py"


@pytest.mark.parametrize("folder", ["/", None])
def test_a_user_without_a_home_has_no_name_to_be_left_out(monkeypatch: pytest.MonkeyPatch, folder: str | None) -> None:
    def found() -> Path:
        if folder is None:
            raise RuntimeError("no home")
        return Path(folder)

    monkeypatch.setattr(Path, "home", found)
    monkeypatch.setattr(Path, "cwd", lambda: Path("/"))
    assert home() is None and shared_text("1 / 2 of https://x.org/a/b") == "1 / 2 of https://x.org/a/b"
