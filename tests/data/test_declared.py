"""Data sets that a TOML file declares, class subsets, and ImageNet-100."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.core.errors import BenchError
from bench.data import DATASETS, describe_sources, load_split
from bench.data.class_lists import IMAGENET100
from bench.data.formats.decoding import Preparation, decode
from tests.data.formats.test_parquet import png

WNIDS = IMAGENET100.names


def fake_imagenet(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True)
        Image.new("RGB", (70, 80), (number % 256, 0, 0)).save(folder / "x.JPEG")


def test_imagenet_100_has_a_hundred_distinct_classes_in_the_order_of_imagenet() -> None:
    assert len(set(WNIDS)) == len(set(IMAGENET100.positions)) == 100
    assert all(re.fullmatch(r"n\d{8}", name) for name in WNIDS)
    assert list(WNIDS) == sorted(WNIDS)
    assert list(IMAGENET100.positions) == sorted(IMAGENET100.positions)
    assert IMAGENET100.positions[0] == 0 and IMAGENET100.positions[-1] == 150
    # tench, great white shark, goldfish: three whose ids and places anyone can look up
    assert dict(zip(WNIDS, IMAGENET100.positions, strict=True)).items() >= {
        ("n01440764", 0),
        ("n01443537", 1),
        ("n01484850", 2),
    }


def test_imagenet_100_is_read_from_a_folder_of_imagenet(tmp_path: Path) -> None:
    fake_imagenet(tmp_path / "imagenet" / "val", [*WNIDS, "n00000001", "n09999999"])
    data = load_split("imagenet100", "test", data_dir=tmp_path)
    assert data.name == "imagenet100" and data.class_names == WNIDS
    assert data.shape == (100, 3, 224, 224)
    assert data.labels.tolist() == list(range(100))
    assert abs(float(data.pixels(slice(7, 8))[0, 0].mean()) * 255 - 7) < 2


def test_imagenet_100_of_other_classes_is_refused(tmp_path: Path) -> None:
    fake_imagenet(tmp_path / "imagenet100" / "val", [*WNIDS[:99], "n09999999"])
    with pytest.raises(BenchError, match=f"class of imagenet100 .*{WNIDS[99]}|unknown class '?{WNIDS[99]}"):
        load_split("imagenet100", "test", data_dir=tmp_path)


def test_imagenet_itself_needs_all_its_classes(tmp_path: Path) -> None:
    fake_imagenet(tmp_path / "imagenet" / "val", list(WNIDS))
    with pytest.raises(BenchError, match="100 classes, expected 1000"):
        load_split("imagenet", "test", data_dir=tmp_path)


def test_imagenet_that_is_not_here_says_how_to_lay_it_out() -> None:
    with pytest.raises(BenchError, match=r"imagenet/val/<class>/\*, or set BENCH_DATA_DIR") as caught:
        load_split("imagenet100", "test", download=True)
    assert "\n" not in str(caught.value)


def test_classes_are_numbered_in_the_order_of_the_declaration(tmp_path: Path) -> None:
    fake_imagenet(tmp_path / "pets" / "val", ["cat", "dog", "owl"])
    (tmp_path / "two.toml").write_text(
        'schema_version = 1\ntest = "pets/val"\nclasses = ["owl", "cat"]\nresize = 64\ncrop = 64\n'
    )
    data = load_split("two", "test", data_dir=tmp_path)
    assert data.name == "two" and data.class_names == ("owl", "cat")
    assert data.labels.tolist() == [1, 0] and data.images[:, 0, 0, 0].tolist() == [0, 2]


def test_a_list_of_classes_goes_by_position_where_they_are_called_otherwise(tmp_path: Path) -> None:
    labels = [3, 0, 150, 2]
    names = [f"class {number}" for number in range(1000)]
    table = pa.table({"image": [{"bytes": png(9), "path": ""}] * 4, "label": labels})
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    pq.write_table(table, tmp_path / "validation.parquet")
    (tmp_path / "some.toml").write_text(
        'schema_version = 1\ntest = "validation.parquet"\nclasses = "imagenet100"\nresize = 64\ncrop = 64\n'
    )
    data = load_split("some", "test", data_dir=tmp_path)
    assert data.labels.tolist() == [IMAGENET100.positions.index(label) for label in labels]


def test_an_npz_file_has_classes_chosen_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", x=np.zeros((6, 4, 4), np.uint8), y=np.array([0, 1, 2, 2, 1, 0]))
    (tmp_path / "odd.toml").write_text('schema_version = 1\ntest = "digits.npz"\nclasses = ["2", "0"]\n')
    assert load_split("odd", "test", data_dir=tmp_path).labels.tolist() == [1, 0, 0, 1]


def test_a_declaration_of_a_known_data_set_is_checked_against_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 16, 16, 3), np.uint8), y=np.array([0, 9]))
    (tmp_path / "cifar10.toml").write_text('schema_version = 1\ntest = "c.npz"\n')
    with pytest.raises(BenchError, match=r"images of \(3, 16, 16\), expected \(3, 32, 32\)"):
        load_split("cifar10", "test", data_dir=tmp_path)
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 32, 32, 3), np.uint8), y=np.array([0, 9]))
    assert load_split("cifar10", "test", data_dir=tmp_path).class_names == DATASETS["cifar10"].class_names


def test_declared_data_sets_are_described(tmp_path: Path) -> None:
    fake_imagenet(tmp_path / "pets" / "val", ["cat", "dog"])
    (tmp_path / "mine.toml").write_text('schema_version = 1\ntest = "pets/val"\n')
    described = {(name, split): where for name, split, where, _ in describe_sources(tmp_path)}
    assert described["mine", "test"] == str(tmp_path / "pets" / "val") and described["mine", "train"] is None


def test_everything_in_a_data_dir_is_described_and_a_bad_file_does_not_hide_the_rest(tmp_path: Path) -> None:
    fake_imagenet(tmp_path / "pets" / "val", ["cat", "dog"])
    np.savez(tmp_path / "arrays.npz", x=np.zeros((1, 2, 2), np.uint8), y=np.zeros(1, int))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "data" / "test-0.parquet").touch()
    (tmp_path / "bad.toml").write_text("schema_version = ")
    (tmp_path / "notes").mkdir()
    found = {source.name: source for source in describe_sources(tmp_path) if source.split == "test"}
    assert found["pets"].where and found["arrays"].where and found["hub"].where
    assert found["bad"].where is None and "is not valid TOML" in found["bad"].problem
    assert "notes" not in found


def test_an_archive_is_not_read_and_the_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").touch()
    with pytest.raises(BenchError, match=r"pets\.zip is packed; unpack it"):
        load_split("pets", "test", data_dir=tmp_path)
    with pytest.raises(BenchError, match=r"DIR/cats\.npz or DIR/cats/test-\*\.parquet in a data dir"):
        load_split("cats", "test", data_dir=tmp_path)


def test_a_file_that_is_no_image_is_named_and_nothing_else() -> None:
    with pytest.raises(BenchError, match=r"^x\.png is no image that Pillow knows; take it out of the data set\.$"):
        decode(b"no image", Preparation(), "x.png")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("", "test or train must say where"),
        ('test = "nowhere"', "no folder, .npz file or parquet files"),
        ('test = "/nowhere/*.parquet"', "'/nowhere/"),
        ('test = "pets/val"\nclases = ["cat"]', "clases: unknown key"),
        ('test = "pets/val"\nresize = 64', "resize needs a crop"),
        ('test = "pets/val"\nresize = 64\ncrop = 70', "resize needs a crop"),
        ('test = "pets/val"\nclasses = ["cat", "cow"]', "'cow'; did you mean cat|'cow'; known: cat, dog"),
        ('test = "pets/val"\nclasses = ["cat", "cat"]', "each named once"),
        ('test = "pets/val"\nclasses = "imagenet10"', "did you mean imagenet100"),
        ('test = "a.npz"\ncrop = 2', "for image files"),
        ("test = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_said_in_one_line(tmp_path: Path, lines: str, reason: str) -> None:
    fake_imagenet(tmp_path / "pets" / "val", ["cat", "dog"])
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.array([0, 1]))
    (tmp_path / "bad.toml").write_text(f"schema_version = 1\n{lines}\n")
    with pytest.raises(BenchError, match=reason) as caught:
        load_split("bad", "test", data_dir=tmp_path)
    assert "\n" not in str(caught.value)
