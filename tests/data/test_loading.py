from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bench.core.errors import BenchError
from bench.data import DATASETS, loading
from bench.data.loading import describe_sources, load_split
from tests.conftest import EMBEDDED_SHA256
from tests.data.formats.test_idx import idx


@pytest.fixture(autouse=True)
def only_what_the_test_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.setattr(loading, "_further_places", lambda spec: [tmp_path / "cache"])


def write_mnist(root: Path, count: int = 12, *, compressed: bool = True, value: int = 7) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in ("train", "t10k"):
        for kind, content in (
            ("images-idx3", np.full((count, 28, 28), value)),
            ("labels-idx1", np.arange(count) % 10),
        ):
            data = idx(content)
            name = f"{stem}-{kind}-ubyte"
            (raw / (name + ".gz" if compressed else name)).write_bytes(gzip.compress(data) if compressed else data)


def write_folder(root: Path, name: str, split: str, size: int = 8, per_class: int = 3) -> None:
    for label, kind in enumerate(("cat", "dog")):
        folder = root / name / split / kind
        folder.mkdir(parents=True)
        for index in range(per_class):
            Image.new("RGB", (size, size), (label * 100, index * 10, 0)).save(folder / f"{index}.png")


def test_the_embedded_split_is_whole_and_official() -> None:
    data = load_split("fashion_mnist", "test")
    assert data.sha256 == EMBEDDED_SHA256
    assert tuple(data.images.shape) == (10000, 1, 28, 28)
    assert data.labels.bincount().tolist() == [1000] * 10


def test_a_damaged_embedded_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(loading._EMBEDDED, tmp_path / "embedded")
    labels = tmp_path / "embedded" / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(loading, "_EMBEDDED", tmp_path / "embedded")
    with pytest.raises(BenchError, match="damaged; install ribench again"):
        load_split("fashion_mnist", "test")


@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files_are_found_plain_or_compressed(tmp_path: Path, compressed: bool) -> None:
    write_mnist(tmp_path, compressed=compressed)
    data = load_split("mnist", "train", data_dir=tmp_path)
    assert len(data) == 12
    assert float(data.pixels(slice(0, 1)).max()) == pytest.approx(7 / 255)


def test_the_data_dir_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "cache", value=1)
    assert int(load_split("mnist", "test").images.max()) == 1
    write_mnist(tmp_path / "variable", value=2)
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "variable"))
    assert int(load_split("mnist", "test").images.max()) == 2
    write_mnist(tmp_path / "option", value=3)
    assert int(load_split("mnist", "test", data_dir=tmp_path / "option").images.max()) == 3


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 20) -> None:
    """Official layout, tiny content; torchvision's md5 list is replaced by that of these files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for name in [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]:
        labels = [index % 10 for index in range(per_batch)]
        content = pickle.dumps(
            {"data": np.arange(per_batch * 3072).reshape(per_batch, 3072).astype(np.uint8), "labels": labels}
        )
        (folder / name).write_bytes(content)
        kind = "test_list" if name == "test_batch" else "train_list"
        lists[kind].append([name, hashlib.md5(content).hexdigest()])
    meta = pickle.dumps({"label_names": list(DATASETS["cifar10"].class_names)})
    (folder / "batches.meta").write_bytes(meta)
    for kind, entries in lists.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, kind, entries)
    known = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(meta).hexdigest()}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", known)


def test_cifar10_is_read_in_its_official_layout_after_its_digest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    data = load_split("cifar10", "train", data_dir=tmp_path)
    assert tuple(data.images.shape) == (100, 3, 32, 32)
    assert data.images[0, :, 0, 0].tolist() == [0, 1024 % 256, 2048 % 256]
    assert data.images[0, 0, 0, 1] == 1
    assert len(load_split("cifar10", "test", data_dir=tmp_path)) == 20
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"changed")
    with pytest.raises(BenchError, match="torchvision cannot read cifar10"):
        load_split("cifar10", "test", data_dir=tmp_path)


def test_a_download_goes_through_torchvision_into_the_cache_and_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def fetch(root: str, *, train: bool, download: bool) -> object:
        asked.append((root, download))
        return SimpleNamespace(data=torch.zeros(10, 28, 28, dtype=torch.uint8), targets=torch.arange(10))

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    monkeypatch.setattr(loading, "cache_dir", lambda: tmp_path / "cache")
    with pytest.raises(BenchError):
        load_split("mnist", "test")
    assert asked == []
    assert len(load_split("mnist", "test", download=True)) == 10
    assert asked == [(str(tmp_path / "cache"), True)]


def test_a_missing_data_set_names_the_three_ways_to_get_it() -> None:
    with pytest.raises(BenchError) as caught:
        load_split("mnist", "train")
    line = str(caught.value)
    assert "download" in line and "data dir" in line and "ImageFolder mnist/train" in line and "\n" not in line


def test_the_missing_training_split_names_the_debian_package() -> None:
    with pytest.raises(BenchError, match="dataset-fashion-mnist"):
        load_split("fashion_mnist", "train")


def test_an_unknown_data_set_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean cifar10"):
        load_split("cifar_10", "test")


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not a folder"):
        load_split("mnist", "test", data_dir=tmp_path / "nowhere")


def test_a_folder_of_the_users_own_is_read_interleaved_by_class(tmp_path: Path) -> None:
    write_folder(tmp_path, "pets", "val")
    data = load_split("pets", "test", data_dir=tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.images[3, 0, 0, 0] == 100
    (tmp_path / "pets" / "val" / ".ipynb_checkpoints").mkdir()
    assert load_split("pets", "test", data_dir=tmp_path).class_names == ("cat", "dog")


def test_a_folder_of_the_wrong_size_or_classes_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "cifar10", "test", size=16)
    with pytest.raises(BenchError, match="16x16, expected 32x32"):
        load_split("cifar10", "test", data_dir=tmp_path)
    shutil.rmtree(tmp_path / "cifar10")
    write_folder(tmp_path, "cifar10", "test", size=32)
    with pytest.raises(BenchError, match="2 classes, expected 10"):
        load_split("cifar10", "test", data_dir=tmp_path)


def test_an_image_with_more_than_eight_bits_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "deep", "test")
    pixels = np.full((8, 8), 40000, dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep" / "test" / "cat" / "0.png")
    with pytest.raises(BenchError, match=r"outside \[0, 1\]"):
        load_split("deep", "test", data_dir=tmp_path)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, "pets", "test")
    (tmp_path / "pets" / "test" / "dog" / "1.png").write_bytes(b"not an image")
    with pytest.raises(BenchError, match=r"dog/1\.png"):
        load_split("pets", "test", data_dir=tmp_path)


def test_the_digest_is_of_the_content_not_of_the_container(tmp_path: Path) -> None:
    write_mnist(tmp_path / "a", compressed=True)
    write_mnist(tmp_path / "b", compressed=False)
    write_mnist(tmp_path / "c", value=8)
    digests = [load_split("mnist", "test", data_dir=tmp_path / name).sha256 for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(BenchError, match="labels outside"):
        loading.ImageDataset(
            "x", "test", torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([3]), class_names=("a", "b"),
            source="here",
        )  # fmt: skip


def test_every_known_split_is_described_once() -> None:
    described = {(name, split): where for name, split, where, _ in describe_sources()}
    assert described["fashion_mnist", "test"] == "embedded"
    assert described["cifar10", "train"] is None
    assert len(described) == 10


def test_a_folder_is_read_as_torchvision_reads_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "pets" / "test"
    for label, kind in enumerate(("cat", "dog")):
        for number, name in enumerate(("z.PNG", "b.tif", "c.tiff", "sub/a.png", "a/deep/y.webp", "a b/x.jpg")):
            path = root / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (label * 100, number * 10, 0)).save(path)
    (root / "cat" / "loop").symlink_to(root / "cat")
    data = load_split("pets", "test", data_dir=tmp_path)
    shutil.rmtree(root / "cat" / "loop", ignore_errors=True)
    (root / "cat" / "loop").unlink()
    theirs = torchvision.datasets.ImageFolder(str(root))
    order = torch.argsort(torch.tensor(theirs.targets), stable=True)
    mine = torch.cat([data.images[data.labels == label] for label in (0, 1)])
    expected = [np.asarray(theirs[int(row)][0]) for row in order]
    assert len(data) == 12 and np.array_equal(mine.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert not caplog.records


def test_what_a_folder_leaves_out_is_said_with_an_example(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, "pets", "test")
    root = tmp_path / "pets" / "test"
    (root / "owl").mkdir()
    for name in ("cat/note.txt", "dog/0.heic", "readme.md", "cat/.DS_Store"):
        (root / name).touch()
    load_split("pets", "test", data_dir=tmp_path)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "3 files are no images and were left out, e.g. " in said and "readme.md" in said
    assert "1 of 3 classes have no image, e.g. owl" in said


def test_no_program_is_run_to_read_an_image(tmp_path: Path) -> None:
    write_folder(tmp_path, "pets", "test")
    Image.new("RGB", (8, 8)).save(tmp_path / "page.eps")
    (tmp_path / "page.eps").rename(tmp_path / "pets" / "test" / "cat" / "0.png")
    with pytest.raises(BenchError, match="no image that"):
        load_split("pets", "test", data_dir=tmp_path)


def test_a_pipe_among_the_images_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "pets", "test")
    os.mkfifo(tmp_path / "pets" / "test" / "cat" / "3.png")
    with pytest.raises(BenchError, match="no regular file"):
        load_split("pets", "test", data_dir=tmp_path)


def test_an_image_of_another_size_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, "pets", "test")
    Image.new("L", (5000, 5000)).save(tmp_path / "pets" / "test" / "cat" / "1.png")
    loaded: list[tuple[int, int]] = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda image, mode: (loaded.append(image.size), convert(image, mode))[1]
    )
    with pytest.raises(BenchError, match=r"1\.png is 5000x5000, expected 8x8"):
        load_split("pets", "test", data_dir=tmp_path)
    assert loaded and (5000, 5000) not in loaded
