"""Files from elsewhere: whatever is in them, the answer is a value or one clear line, and no code of theirs runs."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.catalog.cards import ModelCard, read_card
from bench.catalog.label_maps import read_label_map
from bench.catalog.locations import shipped
from bench.catalog.models import ModelEntry, load_model, resolve_models
from bench.catalog.state_files import read_state
from bench.catalog.suites import read_suite
from bench.comparison.evidence import run_values
from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.data.formats.idx import parse_idx, read_idx
from bench.leaderboard.evidence.evidence import read_evidence
from bench.leaderboard.evidence.manifest import Result, read_manifest
from bench.leaderboard.evidence.records import write_records
from bench.leaderboard.findings import Finding
from bench.leaderboard.merge import merge_leaderboards
from bench.leaderboard.rows import COLUMNS
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.protocols import protocol_for
from tests.conftest import Bench, ModelCopy
from tests.leaderboard.evidence.manifests import as_content, whole_manifest

MODEL = shipped("models") / "fashion_mnist" / "standard"
SUITE = shipped("suites") / "cross_norm.toml"
fuzz = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.text(max_size=20),
    st.just("../../etc/passwd"),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)


def answers(call: Callable[[], object]) -> object:
    """The call's value, or the BenchError it raised, which must be one line; anything else fails the test."""
    try:
        return call()
    except BenchError as error:
        assert str(error) and "\n" not in str(error)
        return error


def places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into nested dicts and lists."""
    found = [at] if at else []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return found + [place for key, value in items for place in places(value, (*at, key))]


def with_value(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


def damaged(draw: Any, content: bytes) -> bytes:
    """Some bytes of it overwritten, taken out or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=6)) + content[at + draw(st.integers(0, 6)) :]
    return content


import tomllib  # noqa: E402

CARD = tomllib.loads((MODEL / "card.toml").read_text())
SUITE_CONTENT = tomllib.loads(SUITE.read_text())
SUITES = [tomllib.loads(path.read_text()) for path in sorted(SUITE.parent.glob("*.toml"))]


@fuzz
@given(data=st.data())
def test_a_card_with_any_value_in_any_place(tmp_path: Path, data: st.DataObject) -> None:
    changed = with_value(CARD, data.draw(st.sampled_from(places(CARD))), data.draw(values))
    (tmp_path / "card.toml").write_bytes(tomli_w.dumps(changed).encode(errors="surrogatepass"))
    card = answers(lambda: read_card(tmp_path))
    if isinstance(card, ModelCard) and changed["architecture_parameters"] != CARD["architecture_parameters"]:
        (tmp_path / "weights.safetensors").write_bytes(b"")
        answers(lambda: load_model(ModelEntry(card, MODEL)))


@fuzz
@given(data=st.data())
def test_a_suite_with_any_value_in_any_place(tmp_path: Path, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(SUITES))
    changed = with_value(content, data.draw(st.sampled_from(places(content))), data.draw(values))
    path = tmp_path / "suite.toml"
    path.write_bytes(tomli_w.dumps(changed).encode(errors="surrogatepass"))
    answers(lambda: protocol_for(read_suite(path)))


READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "card": ("card.toml", (MODEL / "card.toml").read_bytes(), lambda path: read_card(path.parent)),
    "suite": ("suite.toml", SUITE.read_bytes(), lambda path: protocol_for(read_suite(path))),
    "manifest": (
        "manifest.json",
        whole_manifest(status="finished").to_json(),
        lambda path: (read_manifest(path.parent), read_evidence(path.parent)),
    ),
    "safetensors": (
        "w.safetensors",
        (MODEL / "weights.safetensors").read_bytes()[:900],
        lambda path: read_state(path),
    ),
    "label map": ("map.json", b'{"0": 1, "1": 0}', lambda path: read_label_map(path, ("0", "1"), "mine")),
    "idx": ("images", b"\0\0\x08\3" + bytes([0, 0, 0, 2] * 3) + bytes(range(8)), lambda path: read_idx(path, 3)),
}


@pytest.mark.parametrize("kind", READERS)
@fuzz
@given(data=st.data())
def test_a_damaged_file_gives_a_value_or_one_line(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    name, content, reader = READERS[kind]
    (tmp_path / name).write_bytes(damaged(data.draw, content))
    answers(lambda: reader(tmp_path / name))


@pytest.mark.parametrize("kind", READERS)
@settings(fuzz, max_examples=40)
@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_one_line(tmp_path: Path, kind: str, content: bytes) -> None:
    name, _, reader = READERS[kind]
    (tmp_path / name).write_bytes(content)
    answers(lambda: reader(tmp_path / name))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / "w.pt"
    torch.save({"state_dict": {"weight": torch.arange(4.0), "bias": torch.zeros(1)}}, path)
    return path.read_bytes()


@settings(fuzz, max_examples=80)
@given(data=st.data())
def test_a_damaged_checkpoint_gives_a_state_or_one_line(tmp_path: Path, checkpoint: bytes, data: st.DataObject) -> None:
    (tmp_path / "w.pt").write_bytes(damaged(data.draw, checkpoint))
    answers(lambda: read_state(tmp_path / "w.pt"))


@settings(fuzz, max_examples=80)
@given(data=st.data())
def test_a_damaged_pickle_inside_a_checkpoint_gives_a_state_or_one_line(
    tmp_path: Path, checkpoint: bytes, data: st.DataObject
) -> None:
    (tmp_path / "whole.pt").write_bytes(checkpoint)
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "w.pt", "w") as changed:
        for name in whole.namelist():
            content = whole.read(name)
            changed.writestr(name, damaged(data.draw, content) if name.endswith("data.pkl") else content)
    answers(lambda: read_state(tmp_path / "w.pt"))


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path, checkpoint: bytes) -> None:
    (tmp_path / "whole.pt").write_bytes(checkpoint)
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(BenchError, match="are packed"):
        read_state(tmp_path / "w.pt")


FINDING = Finding("private", "note", "private", "private")
MANIFEST = as_content(whole_manifest(status="finished", result=Result(counters={"claims": 1}, findings=[FINDING])))


@settings(fuzz, max_examples=60)
@given(data=st.data())
def test_evidence_with_any_value_in_any_place(tmp_path: Path, data: st.DataObject) -> None:
    """Digests that fit tell nothing where whoever wrote the records wrote the manifest too."""
    columns = data.draw(st.lists(st.sampled_from(["example_id", "label", "prediction", "broken", "norm", "eps", "x"])))
    content = data.draw(st.sampled_from([[1.0, 2.0], ["a", "b"], [True, None]]))
    write_records(tmp_path / "examples.parquet", pd.DataFrame(dict.fromkeys(columns, content)))
    digest = sha256_file(tmp_path / "examples.parquet")
    manifest = MANIFEST | {"result": MANIFEST["result"] | {"examples_sha256": digest}}
    changed = with_value(manifest, data.draw(st.sampled_from(places(MANIFEST))), data.draw(values))
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    answers(lambda: run_values(tmp_path))


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


ROW = dict.fromkeys(COLUMNS, "x") | {
    "suite_version": 1, "eps": 0.1, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n_examples": 3, "seed": 0,
    "seconds": 1.0, "direction": "higher", "unit": "share", "prominence": "usual",
}  # fmt: skip


@fuzz
@given(data=st.data())
def test_a_damaged_leaderboard_gives_rows_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "leaderboard.csv"
    path.unlink(missing_ok=True)
    append_rows(tmp_path, [ROW | {"run_id": "a"}, ROW | {"run_id": "b"}])
    path.write_bytes(damaged(data.draw, path.read_bytes()))
    answers(lambda: read_leaderboard(tmp_path))
    answers(lambda: append_rows(tmp_path, [ROW | {"run_id": "c"}]))


@fuzz
@given(content=st.binary(max_size=64), dimensions=st.integers(1, 3))
def test_any_bytes_as_idx(content: bytes, dimensions: int) -> None:
    answers(lambda: parse_idx(content, dimensions, "x"))


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
