from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import BenchError
from bench.data import load_split
from bench.data.formats.npz import read_npz

IMAGES = np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3)
LABELS = np.array([0, 1, 2, 1])


def archive(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("stored", "channels"),
    [(IMAGES, 3), (IMAGES.transpose(0, 3, 1, 2), 3), (IMAGES[..., 0], 1), (IMAGES[..., :1], 1)],
    ids=["NHWC", "NCHW", "NHW", "NHW1"],
)
def test_every_layout_gives_the_same_pixels(tmp_path: Path, stored: np.ndarray, channels: int) -> None:
    images, labels, names = read_npz(archive(tmp_path / "a.npz", images=stored, labels=LABELS), "test")
    assert np.array_equal(images.numpy(), IMAGES[..., :channels].transpose(0, 3, 1, 2))
    assert labels.tolist() == LABELS.tolist() and names is None


def test_floats_that_are_whole_255ths_have_the_digest_of_the_same_bytes(tmp_path: Path) -> None:
    for name, stored in (("bytes", IMAGES), ("floats", (IMAGES / 255.0).astype(np.float32))):
        archive(tmp_path / f"{name}.npz", x=stored, y=LABELS)
    whole, floats = (load_split(name, "test", data_dir=tmp_path) for name in ("bytes", "floats"))
    assert whole.sha256 == floats.sha256


def test_other_floats_stay_as_they_are(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).random((4, 3, 6, 6))
    archive(tmp_path / "fine.npz", images=stored, labels=LABELS)
    data = load_split("fine", "test", data_dir=tmp_path)
    assert np.abs(data.pixels(slice(0, 4)).numpy() - stored).max() < 1e-7
    assert np.abs(data.channel_means.numpy() - stored.mean((0, 2, 3))).max() < 1e-6
    assert np.abs(data.images.numpy() / 255 - stored).max() <= 0.5 / 255 + 1e-6


def test_an_archive_of_both_splits_gives_the_one_that_is_asked_for(tmp_path: Path) -> None:
    archive(tmp_path / "keras.npz", x_train=IMAGES[:3], y_train=LABELS[:3], x_test=IMAGES[3:], y_test=LABELS[3:, None])
    assert len(load_split("keras", "train", data_dir=tmp_path)) == 3
    assert load_split("keras", "test", data_dir=tmp_path).labels.tolist() == [1]


def test_an_archive_that_names_no_split_is_to_be_judged_and_not_to_be_trained_on(tmp_path: Path) -> None:
    archive(tmp_path / "mine.npz", images=IMAGES, labels=LABELS)
    assert len(load_split("mine", "test", data_dir=tmp_path)) == 4
    with pytest.raises(BenchError, match=r"mine has no train split; store one as .* or arrays x_train and y_train"):
        load_split("mine", "train", data_dir=tmp_path)


def test_a_file_for_each_split_and_class_names(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    archive(tmp_path / "pets" / "val.npz", images=IMAGES, labels=LABELS, class_names=np.array(["cat", "dog", "owl"]))
    assert load_split("pets", "test", data_dir=tmp_path).class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": IMAGES}, "no arrays `images` and `labels`"),
        ({"images": IMAGES.astype(object), "labels": LABELS}, "Python objects"),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "of type int64"),
        ({"images": IMAGES.astype(np.float32), "labels": LABELS}, r"floats in \[0, 1\]"),
        ({"images": np.full((4, 3, 2, 2), np.nan), "labels": LABELS}, "pixels from nan"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, "images of shape"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "holds no image"),
        ({"images": IMAGES, "labels": LABELS * 0.5}, "whole numbers"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels from -1 to 1"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "4 images but 3 labels"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.arange(3)}, "one string a class"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b"])}, "labels outside"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    archive(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BenchError, match=reason) as caught:
        load_split("bad", "test", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_array_that_announces_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as stored:
        stored.writestr("images.npy", header.getvalue())
        stored.writestr("labels.npy", header.getvalue())
    with pytest.raises(BenchError, match="but holds 0"):
        load_split("bomb", "test", data_dir=tmp_path)


def test_an_array_that_unpacks_to_more_than_the_free_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((4, 64, 64), np.uint8), labels=np.zeros(4, np.int64))
    monkeypatch.setattr("bench.data.formats.npz.free_memory", lambda: 16000)
    with pytest.raises(BenchError, match=r"unpacks to .* in images"):
        load_split("bomb", "test", data_dir=tmp_path)


def test_a_header_that_unpacks_without_end_is_not_read(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x02\x00" + (1 << 26).to_bytes(4, "little") + b" " * (1 << 26)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stored:
        stored.writestr("images.npy", header)
        stored.writestr("labels.npy", header)
    tracemalloc.start()
    try:
        with pytest.raises(BenchError, match="cannot read"):
            load_split("bomb", "test", data_dir=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6), cut=st.integers(0, 2000))
def test_a_damaged_archive_is_read_or_refused_but_never_crashes(
    tmp_path: Path, flips: list[tuple[int, int]], cut: int
) -> None:
    path = archive(tmp_path / "fuzz.npz", images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(bytes(content[: len(content) - cut % 64] if cut % 3 == 0 else content))
    try:
        load_split("fuzz", "test", data_dir=tmp_path)
    except BenchError as error:
        assert "\n" not in str(error)
