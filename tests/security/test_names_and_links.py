"""Names, links and text in files from elsewhere lead nowhere and command nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from bench.catalog.cards import read_card
from bench.catalog.models import load_model, resolve_models
from bench.catalog.suites import read_suite
from bench.core.errors import BenchError
from bench.leaderboard.merge import merge_leaderboards
from bench.leaderboard.table import append_rows
from bench.protocols import protocol_for
from tests.conftest import Bench, ModelCopy
from tests.security.fuzz import CARD, MANIFEST, ROW, SUITE_CONTENT, answers


@pytest.mark.parametrize("run_id", ["../../out", "/etc", "..", "", "a/b", ".hidden", "a\nb"])
def test_no_run_in_a_leaderboard_leads_outside_its_folder(tmp_path: Path, run_id: str) -> None:
    append_rows(tmp_path / "theirs", [ROW | {"run_id": "theirs"}])
    path = tmp_path / "theirs" / "leaderboard.csv"
    path.write_text(path.read_text().replace("\ntheirs,", f'\n"{run_id}",'))
    (tmp_path / "theirs" / "runs").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(BenchError, match="damaged row"):
        merge_leaderboards([tmp_path / "theirs"], tmp_path / "mine" / "a")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("link", ["runs", "runs/a", "runs/a/manifest.json", "runs/a/pipe"])
def test_merging_follows_no_links_and_waits_for_no_pipe(tmp_path: Path, link: str) -> None:
    append_rows(tmp_path / "theirs", [ROW | {"run_id": "a"}])
    (tmp_path / "secret" / "a").mkdir(parents=True)
    (tmp_path / "secret" / "manifest.json").write_text("key")
    path = tmp_path / "theirs" / link
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "secret" if path.suffix == "" else tmp_path / "secret" / "manifest.json")
    with pytest.raises(BenchError, match=r"is a link|is no regular file"):
        merge_leaderboards([tmp_path / "theirs"], tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "link", ["runs", "runs/a", "runs/a/manifest.json", "studies", "studies/ir", "studies/ir/verdict.md"]
)
def test_no_link_out_of_a_leaderboard_reaches_its_page(
    bench: Bench, tmp_path: Path, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    board, secret = tmp_path / "board", tmp_path / "secret"
    append_rows(board, [ROW | {"run_id": "a"}])
    for name, text in (("manifest.json", json.dumps(MANIFEST)), ("verdict.md", "private")):
        for folder in (secret, secret / "a", secret / "ir"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    path = board / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(secret / path.name if path.suffix else secret / "a" if link == "runs/a" else secret)
    code, _, err = bench("report", "--leaderboard", board, "--output", tmp_path / "p.html", "--plain", "--no-saliency")
    assert code == 0 and "private" not in (tmp_path / "p.html").read_text()
    if not link.startswith("studies") or link == "studies/ir/verdict.md":
        assert "link out of the leaderboard" in err + caplog.text


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\x9b", "a\0b", "a\nb", "[/nope] ", "::stop", "=1+1", "a|b"])
def test_no_attack_in_a_suite_is_named_what_a_table_would_obey(tmp_path: Path, name: str) -> None:
    changed = json.loads(json.dumps(SUITE_CONTENT))
    changed["parameters"]["attacks"][0]["name"] = name
    (tmp_path / "suite.toml").write_text(tomli_w.dumps(changed))
    with pytest.raises(BenchError, match=r"attacks.*name"):
        protocol_for(read_suite(tmp_path / "suite.toml"))


@pytest.mark.parametrize("method", ["a\x1b[31m", "a\x9b", "a\nb", "a\u2028b", "x" * 300, ""])
def test_no_method_in_a_card_is_more_than_a_line_of_words(tmp_path: Path, method: str) -> None:
    (tmp_path / "card.toml").write_text(tomli_w.dumps(CARD | {"method": method}))
    with pytest.raises(BenchError, match="method"):
        read_card(tmp_path)


@pytest.mark.parametrize("key", ["id", "dataset"])
@pytest.mark.parametrize("name", ["../up", "/etc", "a/b", "..", "", "a\n", "a\\b", ".hidden"])
def test_no_name_in_a_card_leads_outside_its_folder(tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / "card.toml").write_text(tomli_w.dumps(CARD | {key: name}))
    with pytest.raises(BenchError, match=key):
        read_card(tmp_path)


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/b", ".."])
def test_no_name_in_a_suite_leads_outside_its_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(tomli_w.dumps(SUITE_CONTENT | {"name": name}))
    with pytest.raises(BenchError, match="name"):
        read_suite(path)


@pytest.mark.parametrize(
    "architecture", ["os.system", "../net.py:make", "net.py:make", "torch.hub:load", "builtins.exec", "__import__"]
)
def test_a_card_can_name_architectures_and_nothing_else(
    model_copy: ModelCopy, tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()")
    monkeypatch.chdir(tmp_path)
    model_copy.rewrite_card(architecture=architecture)
    with pytest.raises(BenchError, match="unknown architecture"):
        load_model(resolve_models(["copy"])[0])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["/etc/net.py", "../net.py", "a/b.py"])
def test_a_program_section_names_no_path(model_copy: ModelCopy, file: str) -> None:
    section = {"kind": "python", "file": file, "factory": "make", "sha256": "0" * 64}
    card = model_copy.folder / "card.toml"
    card.write_text(tomli_w.dumps(CARD | {"id": "copy", "architecture": "program", "program": section}))
    with pytest.raises(BenchError, match=r"program\.file"):
        read_card(model_copy.folder)


def test_text_of_a_card_reaches_the_terminal_as_text(bench: Bench, model_copy: ModelCopy) -> None:
    model_copy.rewrite_card(description="[bold]loud[/] \x1b[31mred [/nonsense] \x1b]0;title\x07")
    code, out, err = bench("models", "show", str(model_copy.folder))
    assert code == 0, err
    assert "[bold]loud[/]" in out and "[/nonsense]" in out
    assert "\x1b" not in out and "\x07" not in out


def test_an_error_line_holds_no_control_characters(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(tomli_w.dumps(SUITE_CONTENT | {"protocol": "\x1b]0;title\x07"}))
    assert "\x1b" not in bench.refused("run", "--model", "standard", "--suite", tmp_path / "s.toml")


@pytest.mark.parametrize("value", [-1, 2**62, 2**63 - 1, float("nan"), "x", [], [-1, 2], {"a": 1}, [[1]], True])
@pytest.mark.parametrize("architecture", ["small_cnn", "wide_resnet", "torchvision"])
def test_parameters_of_a_net_that_make_no_sense_give_one_line(architecture: str, value: Any) -> None:
    from bench.nets import build_net

    given = CARD["architecture_parameters"]
    given = {"name": "squeezenet1_1", "num_classes": 10} if architecture == "torchvision" else given
    for name in (*given, "hidden", "depth", "adapter"):
        answers(lambda name=name: build_net(architecture, {**given, name: value}))
