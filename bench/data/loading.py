"""Finding a data set: --data-dir, the embedded split, the user cache, system places, then a download if asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import platformdirs
import torch

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, sha256_bytes
from bench.core.names import require_safe_name, unknown_name
from bench.core.plugins import load_plugin, plugin_names
from bench.data.dataset import ImageDataset, require_folder
from bench.data.idx import find_idx, read_idx
from bench.data.image_folder import read_image_folder
from bench.data.specs import DATASETS, DatasetSpec

Split = Literal["train", "test"]
PLUGINS = "bench.datasets"
logger = logging.getLogger(__name__)

_EMBEDDED = Path(__file__).parent / "embedded"
_EMBEDDED_DIGESTS = {
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
_IDX_STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}
_FOLDER_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val")}


def cache_dir() -> Path:
    """The user's cache for data sets, e.g. ~/.cache/ribench/data."""
    return Path(platformdirs.user_cache_dir("ribench")) / "data"


def data_dirs(data_dir: Path | None) -> list[Path]:
    """The folders the user named, in order: the option, then BENCH_DATA_DIR (several, separated as PATH is)."""
    named = [require_folder(data_dir, "--data-dir")] if data_dir is not None else []
    variable = os.environ.get("BENCH_DATA_DIR", "")
    return named + [require_folder(Path(part), "BENCH_DATA_DIR") for part in variable.split(os.pathsep) if part]


def load_split(name: str, split: Split, *, data_dir: Path | None = None, download: bool = False) -> ImageDataset:
    """Load one split of a data set into memory.

    Args:
        name: a known data set, the name of an ImageFolder under a data dir, or one that a plug-in announces.
        split: `train` or `test` (an ImageFolder's `val` counts as test).
        data_dir: searched first.
        download: let torchvision fetch it into the user cache if it is nowhere.

    Raises:
        BenchError: unknown name, not found (the line names the ways to get it), or damaged.
    """
    require_safe_name(name, "data set")
    spec = DATASETS.get(name)
    named = data_dirs(data_dir)
    for folder in named:
        found = _load_from(folder, name, spec, split)
        if found is not None:
            return found
    if name == "fashion_mnist" and split == "test":
        return _load_embedded(DATASETS[name])
    for folder in _further_places(spec):
        found = _load_from(folder, name, spec, split)
        if found is not None:
            return found
    if spec is None and name in plugin_names(PLUGINS):
        return _load_plugin(name, split)
    if spec is None:
        raise _unknown_dataset(name, named)
    if download:
        return _download(spec, split)
    raise _missing(spec, split)


def describe_sources(data_dir: Path | None = None) -> list[tuple[str, str, str | None]]:
    """(data set, split, where it would be read from or None) for every known data set; reads no images."""
    described: list[tuple[str, str, str | None]] = []
    for spec in DATASETS.values():
        for split in ("train", "test"):
            places = data_dirs(data_dir)
            where = next((reader[1] for folder in places if (reader := _reader(folder, spec.name, spec, split))), None)
            if where is None and spec.name == "fashion_mnist" and split == "test":
                where = "embedded"
            if where is None:
                further = _further_places(spec)
                where = next(
                    (reader[1] for place in further if (reader := _reader(place, spec.name, spec, split))), None
                )
            described.append((spec.name, split, where))
    return described


def _further_places(spec: DatasetSpec | None) -> list[Path]:
    system = [Path(spec.system_folder)] if spec is not None and spec.system_folder else []
    return [cache_dir(), *system, Path("/usr/share/datasets"), Path("/usr/local/share/datasets")]


_Reader = tuple[Callable[[], ImageDataset], str]


def _load_from(folder: Path, name: str, spec: DatasetSpec | None, split: Split) -> ImageDataset | None:
    reader = _reader(folder, name, spec, split)
    if reader is None:
        return None
    dataset = reader[0]()
    if spec is not None:
        expected = (spec.in_channels, spec.image_size, spec.image_size)
        if tuple(dataset.images.shape[1:]) != expected:
            raise BenchError(
                f"{name} in {dataset.source} has images of {tuple(dataset.images.shape[1:])}, expected {expected}."
            )
        if dataset.num_classes != spec.num_classes:
            raise BenchError(
                f"{name} in {dataset.source} has {dataset.num_classes} classes, expected {spec.num_classes}."
            )
    logger.info("read %s (%s) from %s", name, split, dataset.source)
    return dataset


def _reader(folder: Path, name: str, spec: DatasetSpec | None, split: Split) -> _Reader | None:
    """How to read the split from `folder`, if one of the accepted layouts is there."""
    if not folder.is_dir():
        return None
    if spec is not None and spec.idx_folder is not None:
        for place in (folder / spec.idx_folder / "raw", folder):
            stem = _IDX_STEMS[split]
            images = find_idx(place, f"{stem}-images-idx3-ubyte")
            labels = find_idx(place, f"{stem}-labels-idx1-ubyte")
            # a bare folder of IDX files does not say whose they are; only the data set's own system folder may be bare
            if images and labels and (place != folder or str(folder) == spec.system_folder):
                return _idx_reader(spec, split, images, labels), str(place)
    if spec is not None and spec.name == "cifar10" and (folder / "cifar-10-batches-py").is_dir():
        return (lambda: _read_torchvision(spec, split, folder, download=False)), str(folder / "cifar-10-batches-py")
    for split_name in _FOLDER_NAMES[split]:
        root = folder / name / split_name
        if root.is_dir():
            return _folder_reader(name, spec, split, root), str(root)
    return None


def _idx_reader(spec: DatasetSpec, split: Split, images: Path, labels: Path) -> Callable[[], ImageDataset]:
    return lambda: _make_dataset(
        spec, split, read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).to(torch.int64), str(images.parent)
    )


def _folder_reader(name: str, spec: DatasetSpec | None, split: Split, root: Path) -> Callable[[], ImageDataset]:
    def read() -> ImageDataset:
        channels, side = (spec.in_channels, spec.image_size) if spec else (None, None)
        images, labels, classes = read_image_folder(root, channels, side)
        if spec is not None and len(classes) == spec.num_classes:
            classes = spec.class_names
        return ImageDataset(name, split, images, labels, classes, str(root))

    return read


def _make_dataset(
    spec: DatasetSpec, split: Split, images: torch.Tensor, labels: torch.Tensor, source: str
) -> ImageDataset:
    return ImageDataset(spec.name, split, images, labels, spec.class_names, source)


def _load_embedded(spec: DatasetSpec) -> ImageDataset:
    folder = _EMBEDDED / spec.name
    for file_name, digest in _EMBEDDED_DIGESTS.items():
        path = folder / file_name
        if not path.is_file() or sha256_bytes(path.read_bytes()) != digest:
            raise BenchError(f"the embedded file {path} is missing or damaged; install ribench again.")
    images = read_idx(folder / "t10k-images-idx3-ubyte.gz", 3).unsqueeze(1)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", 1).to(torch.int64)
    return _make_dataset(spec, "test", images, labels, "embedded")


def _read_torchvision(spec: DatasetSpec, split: Split, root: Path, *, download: bool) -> ImageDataset:
    """Read by torchvision, which checks the md5 of CIFAR-10's pickled batches before it opens them."""
    import torchvision

    train = split == "train"
    try:
        data = getattr(torchvision.datasets, str(spec.torchvision_class))(str(root), train=train, download=download)
    except (RuntimeError, OSError) as error:
        raise BenchError(f"torchvision cannot read {spec.name} in {root}: {str(error).splitlines()[0]}") from error
    images = torch.as_tensor(data.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    return _make_dataset(spec, split, images, torch.as_tensor(data.targets, dtype=torch.int64), str(root))


def _download(spec: DatasetSpec, split: Split) -> ImageDataset:
    root = cache_dir()
    with clear_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    return _read_torchvision(spec, split, root, download=True)


def _load_plugin(name: str, split: Split) -> ImageDataset:
    """A data set of an installed package: a function of the split that gives images, labels and class names."""
    reader = load_plugin(PLUGINS, name)
    try:
        images, labels, classes = reader(split)
        return ImageDataset(
            name,
            split,
            torch.as_tensor(images),
            torch.as_tensor(labels, dtype=torch.int64),
            tuple(str(one) for one in classes),
            f"plug-in {name}",
        )
    except BenchError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BenchError(f"the plug-in {name!r} in {PLUGINS} gave no {split} split ({reason}).") from error


def _missing(spec: DatasetSpec, split: Split) -> BenchError:
    ways = ["--download", "--data-dir DIR (or BENCH_DATA_DIR) with " + _layout(spec)]
    ways.append(
        "the Debian package dataset-fashion-mnist"
        if spec.name == "fashion_mnist"
        else f"an ImageFolder {spec.name}/{split}/<class>/* under a data dir or {cache_dir()}"
    )
    return BenchError(
        f"the {split} split of {spec.name} is not on this machine; get it by {ways[0]}, by {ways[1]}, or by {ways[2]}."
    )


def _layout(spec: DatasetSpec) -> str:
    return f"{spec.idx_folder}/raw/*-ubyte[.gz]" if spec.idx_folder else "cifar-10-batches-py"


def _unknown_dataset(name: str, named: Sequence[Path]) -> BenchError:
    folders = {
        entry.name
        for folder in named
        for entry in folder.iterdir()
        if (entry / "test").is_dir() or (entry / "val").is_dir()
    }
    error = unknown_name(name, [*DATASETS, *folders, *plugin_names(PLUGINS)], "data set")
    return BenchError(f"{error} A folder of your own is found as DIR/{name}/test/<class>/* with --data-dir DIR.")
