from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.core.errors import BenchError
from bench.data import load_split
from bench.data.formats import parquet
from bench.data.formats.parquet import ParquetImages


def png(value: int, side: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(
    path: Path,
    labels: list[Any],
    *,
    names: list[str] | None = None,
    side: int = 8,
    group: int = 100,
    metadata: bytes | None = None,
    **more: list[Any],
) -> Path:
    """A file as `datasets` writes it: image i has the red value i."""
    images = [{"bytes": png(number, side), "path": f"{number}.png"} for number in range(len(labels))]
    table = pa.table({"image": images, "label": labels, **more})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        metadata = json.dumps({"info": {"features": features}}).encode()
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def test_shards_are_read_in_order_with_the_names_of_the_schema(tmp_path: Path) -> None:
    write(tmp_path / "pets" / "data" / "test-00001-of-00002.parquet", [1, 1], names=["cat", "dog"])
    write(tmp_path / "pets" / "data" / "test-00000-of-00002.parquet", [0, 1, 0], names=["cat", "dog"], group=2)
    data = load_split("pets", "test", data_dir=tmp_path)
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 1, 0, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert data.shape == (5, 3, 8, 8)


def test_strings_are_numbered_as_the_schema_numbers_them(tmp_path: Path) -> None:
    write(tmp_path / "pets" / "test.parquet", ["cat", "ant", "cat"], names=["dog", "cat", "ant"])
    data = load_split("pets", "test", data_dir=tmp_path)
    assert data.class_names == ("dog", "cat", "ant") and data.labels.tolist() == [1, 2, 1]


def test_shards_that_number_classes_differently_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "pets" / "test-0.parquet", [0, 1], names=["cat", "dog"])
    write(tmp_path / "pets" / "test-1.parquet", [0, 1], names=["dog", "cat"])
    with pytest.raises(BenchError, match="in another order"):
        load_split("pets", "test", data_dir=tmp_path)


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    for number in (0, 2):
        write(tmp_path / "pets" / f"test-0000{number}-of-00003.parquet", [0, 1])
    with pytest.raises(BenchError, match=r"2 of 3 files test-\*-of-00003.parquet; number 1 is missing"):
        load_split("pets", "test", data_dir=tmp_path)


def test_large_images_are_read_one_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    read = ParquetImages._read
    monkeypatch.setattr(ParquetImages, "_read", lambda self, group: groups.append(group) or read(self, group))
    write(tmp_path / "large" / "validation-00000-of-00001.parquet", [0, 1] * 10, side=80, group=5)
    data = load_split("large", "test", data_dir=tmp_path)
    assert groups == [0]  # the first image says how large they are
    assert data.pixels(slice(5, 12))[:, 0, 0, 0].mul(255).round().tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert groups == [0, 1, 2]


def test_what_is_read_when_asked_for_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write(tmp_path / "sent" / "test.parquet", [0, 1], side=80)
    data = load_split("sent", "test", data_dir=tmp_path)
    assert pickle.loads(pickle.dumps(data)).pixels(slice(1, 2)).equal(data.pixels(slice(1, 2)))


def test_a_folder_and_a_parquet_file_of_the_same_large_files_have_one_digest(tmp_path: Path) -> None:
    write(tmp_path / "a" / "test.parquet", ["cat", "dog"], side=80)
    for number, name in enumerate(("cat", "dog")):
        folder = tmp_path / "b" / "test" / name
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(png(number, 80))
    one, other = (load_split(name, "test", data_dir=tmp_path) for name in "ab")
    assert one.class_names == other.class_names == ("cat", "dog")
    assert one.sha256 == other.sha256


def test_columns_are_named_where_they_cannot_be_told(tmp_path: Path) -> None:
    coarse = {"coarse": [0, 0, 1]}
    path = write(tmp_path / "two" / "test.parquet", [0, 1, 2], **coarse)
    pq.write_table(pq.read_table(path).rename_columns(["image", "fine", "coarse"]), path)
    with pytest.raises(BenchError, match="several columns that could be the label: fine, coarse"):
        load_split("two", "test", data_dir=tmp_path)
    (tmp_path / "two.toml").write_text('schema_version = 1\ntest = "two/test.parquet"\nlabel_column = "coarse"\n')
    assert load_split("two", "test", data_dir=tmp_path).labels.tolist() == [0, 0, 1]


def test_two_configurations_are_not_guessed_between(tmp_path: Path) -> None:
    for config in ("full", "small"):
        write(tmp_path / "pets" / config / "test-0.parquet", [0, 1])
    with pytest.raises(BenchError, match="in full, small; name one in"):
        load_split("pets", "test", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        ([0, None], {}, "rows without a label"),
        ([-1, -1], {}, "labels that are kept back"),
        ([0.5, 1.0], {}, "no label column"),
        ([0, 5], {"names": ["cat", "dog"]}, "labels outside"),
        ([0, 1], {"metadata": b"{"}, "metadata of Hugging Face"),
        ([0, 1], {"metadata": b"[" * 100000}, "metadata of Hugging Face"),
        ([], {}, "no label column|holds no image|no image column"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, labels: list[Any], options: Any, reason: str) -> None:
    write(tmp_path / "bad" / "test.parquet", labels, **options)
    with pytest.raises(BenchError, match=reason) as caught:
        load_split("bad", "test", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_path_in_place_of_the_bytes_is_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(7))
    images = pa.array(
        [{"bytes": None, "path": str(secret)}] * 2, pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    (tmp_path / "paths").mkdir()
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / "paths" / "test.parquet")
    with pytest.raises(BenchError, match="row 0 has no bytes"):
        load_split("paths", "test", data_dir=tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "test.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BenchError, match=r"no/test\.parquet as parquet"):
        load_split("no", "test", data_dir=tmp_path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5), cut=st.integers(0, 300))
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path: Path, flips: list[tuple[int, int]], cut: int
) -> None:
    path = write(tmp_path / "fuzz" / "test.parquet", [0, 1, 1], names=["cat", "dog"])
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(bytes(content[: len(content) - cut if cut % 4 == 0 else len(content)]))
    try:
        load_split("fuzz", "test", data_dir=tmp_path)
    except BenchError as error:
        assert "\n" not in str(error)


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "wide" / "test.parquet", [0, 1], notes=["x", "y"])
    asked: list[list[str]] = []
    whole = parquet._file

    class Watched:
        def __init__(self, path: Path) -> None:
            self.file = whole(path)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def read(self, columns: list[str]) -> Any:
            asked.append(columns)
            return self.file.read(columns=columns)

        def read_row_group(self, group: int, columns: list[str]) -> Any:
            asked.append(columns)
            return self.file.read_row_group(group, columns=columns)

    monkeypatch.setattr(parquet, "_file", Watched)
    assert np.asarray(load_split("wide", "test", data_dir=tmp_path).labels).tolist() == [0, 1]
    assert asked == [["label"], ["image"]]
