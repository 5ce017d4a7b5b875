"""Files from elsewhere: whatever is in them, the answer is a value or one clear line, and no code of theirs runs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.catalog.cards import ModelCard, read_card
from bench.catalog.label_maps import read_label_map
from bench.catalog.models import ModelEntry, load_model
from bench.catalog.state_files import read_state
from bench.catalog.suites import read_suite
from bench.comparison.evidence import run_values
from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.data.formats.idx import parse_idx, read_idx
from bench.leaderboard.evidence.manifest import read_evidence, read_manifest
from bench.leaderboard.evidence.records import write_records
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.protocols import protocol_for
from tests.leaderboard.evidence.manifests import whole_manifest
from tests.security.fuzz import (
    CARD,
    MANIFEST,
    MODEL,
    ROW,
    SUITE,
    SUITES,
    answers,
    damaged,
    fuzz,
    places,
    values,
    with_value,
)


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
