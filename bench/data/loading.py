"""Finding a data set: named folders, the embedded split, the user cache, system places, then a download if allowed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bench.core.errors import BenchError, in_one_line, others_code
from bench.core.files import clear_disk_errors, sha256_file, user_cache
from bench.core.names import require_safe_name, unknown_name
from bench.core.packages import load_plugin, plugin_names
from bench.data.dataset import ImageDataset, require_folder
from bench.data.declared import DatasetFile, find_declaration
from bench.data.formats.layouts import Layout, find_layout, read_idx_split, read_torchvision
from bench.data.formats.layouts import Split as Split
from bench.data.specs import DATASETS, DatasetSpec

PLUGINS = "bench.datasets"
logger = logging.getLogger(__name__)

_SPLITS: tuple[Split, ...] = ("train", "test")

_PACKED = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"))

_EMBEDDED = Path(__file__).parent / "embedded"
_EMBEDDED_DIGESTS = {
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


def cache_dir() -> Path:
    """The user's cache for data sets, e.g. ~/.cache/ribench/data."""
    return user_cache("data")


def data_dirs(data_dir: Path | None) -> list[Path]:
    """The folders the user named, in order: the option, then BENCH_DATA_DIR (several, separated as PATH is)."""
    named = [require_folder(data_dir, "the data dir")] if data_dir is not None else []
    variable = os.environ.get("BENCH_DATA_DIR", "")
    return named + [require_folder(Path(part), "BENCH_DATA_DIR") for part in variable.split(os.pathsep) if part]


def load_split(name: str, split: Split, *, data_dir: Path | None = None, download: bool = False) -> ImageDataset:
    """Load one split of a data set: small images into memory, others to be read when asked for.

    Args:
        name: a known data set, one that lies under a data dir or is declared there, or one that a plug-in announces.
        split: `train` or `test` (`val` and `validation` count as test).
        data_dir: searched first.
        download: let torchvision fetch it into the user cache if it is nowhere.

    Raises:
        BenchError: unknown name, not found (the line names the ways to get it), or damaged.
    """
    require_safe_name(name, "data set")
    spec = DATASETS.get(name)
    named = data_dirs(data_dir)
    layout = _find(name, split, named)
    if layout is not None:
        return _read(layout, name, split)
    if spec is None and name in plugin_names(PLUGINS):
        return _load_plugin(name, split)
    if spec is None:
        raise _unknown_dataset(name, split, named)
    if download and spec.torchvision_class is not None:
        with clear_disk_errors(cache_dir()):
            cache_dir().mkdir(parents=True, exist_ok=True)
        return read_torchvision(spec, split, cache_dir(), download=True)
    raise _missing(spec, split)


def require_dataset(name: str, data_dir: Path | None = None) -> None:
    """Raise BenchError, with what is near, for a name that no data set has: known, in a data dir or of a plug-in."""
    named = data_dirs(data_dir)
    if name in {*DATASETS, *_own_names(named), *plugin_names(PLUGINS)}:
        return
    require_safe_name(name, "data set")
    if not any(_find(name, split, named) for split in _SPLITS):
        raise _unknown_dataset(name, "test", named)


class Source(NamedTuple):
    """Where a split would be read from; `where` is None if nowhere, and `problem` says why if a file is to blame."""

    name: str
    split: Split
    where: str | None
    problem: str = ""


def describe_sources(data_dir: Path | None = None) -> list[Source]:
    """Every known data set, and those of one's own in the data dirs; reads no images."""
    named = data_dirs(data_dir)
    names = [*DATASETS, *sorted({*_own_names(named), *plugin_names(PLUGINS)} - {*DATASETS})]
    return [_describe(name, split, named) for name in names for split in _SPLITS]


def _describe(name: str, split: Split, named: Sequence[Path]) -> Source:
    try:
        layout = _find(name, split, named)
    except BenchError as error:
        return Source(name, split, None, str(error))
    elsewhere = "plug-in" if name not in DATASETS and name in plugin_names(PLUGINS) else None
    return Source(name, split, elsewhere if layout is None else layout.place)


def _find(name: str, split: Split, named: Sequence[Path]) -> Layout | None:
    """The split in the first place that has it; the embedded one comes after the folders that the user has named."""
    spec = DATASETS.get(name)
    for folder in (*named, None, *_further_places(spec)):
        found = None if folder is None else find_layout(folder, name, spec, split)
        if folder is None and name == "fashion_mnist" and split == "test":
            found = Layout(_read_embedded, "embedded")
        if found is not None:
            return found
    return None


def declaration_of(name: str, data_dir: Path | None = None) -> DatasetFile | None:
    """What a TOML file in a data dir declares of a data set, if there is one; raises BenchError for a bad file."""
    places = [*data_dirs(data_dir), *_further_places(DATASETS.get(name))]
    return next((found[0] for place in places if (found := find_declaration(place, name)) is not None), None)


def _own_names(named: Sequence[Path]) -> set[str]:
    """What lies in the data dirs under a name of its own: declarations, archives, folders with a split in them."""
    files = {path.stem for folder in named for path in (*folder.glob("*.toml"), *folder.glob("*.npz"))}
    splits = ("test", "val", "validation")
    patterns = [
        pattern for split in splits for pattern in (split, f"{split}.npz", f"{split}*.parquet", f"*/{split}*.parquet")
    ]
    folders = [entry for folder in named for entry in folder.iterdir() if entry.is_dir()]
    return files | {entry.name for entry in folders if any(any(entry.glob(pattern)) for pattern in patterns)}


def _further_places(spec: DatasetSpec | None) -> list[Path]:
    system = [Path(spec.system_folder)] if spec is not None and spec.system_folder else []
    return [cache_dir(), *system, Path("/usr/share/datasets"), Path("/usr/local/share/datasets")]


def _read(layout: Layout, name: str, split: Split) -> ImageDataset:
    dataset, spec = layout.read(), DATASETS.get(name)
    if spec is not None:
        expected = (spec.in_channels, spec.image_size, spec.image_size)
        if layout.fixed_size and dataset.shape[1:] != expected:
            raise BenchError(f"{name} in {dataset.source} has images of {dataset.shape[1:]}, expected {expected}.")
        if dataset.num_classes != spec.num_classes:
            raise BenchError(
                f"{name} in {dataset.source} has {dataset.num_classes} classes, expected {spec.num_classes}."
            )
    logger.info("read %s (%s) from %s", name, split, dataset.source)
    return dataset


def _read_embedded() -> ImageDataset:
    folder = _EMBEDDED / "fashion_mnist"
    for file_name, digest in _EMBEDDED_DIGESTS.items():
        path = folder / file_name
        if not path.is_file() or sha256_file(path) != digest:
            raise BenchError(f"the embedded file {path} is missing or damaged; install ribench again.")
    images, labels = (folder / file_name for file_name in _EMBEDDED_DIGESTS)
    return read_idx_split(DATASETS["fashion_mnist"], "test", images, labels, source="embedded")


def _load_plugin(name: str, split: Split) -> ImageDataset:
    """A data set of an installed package: a function of the split that gives images, labels and class names."""
    reader = load_plugin(PLUGINS, name)
    with others_code(lambda error: f"the plug-in {name!r} in {PLUGINS} gave no {split} split ({in_one_line(error)})."):
        images, labels, classes = reader(split)
        return ImageDataset(
            name, split, torch.as_tensor(images), torch.as_tensor(labels, dtype=torch.int64),
            class_names=tuple(str(one) for one in classes), source=f"plug-in {name}",
        )  # fmt: skip


def _missing(spec: DatasetSpec, split: Split) -> BenchError:
    if spec.torchvision_class is None:
        return BenchError(
            f"the {split} split of {spec.name} is not on this machine; its pictures may not be passed on, fetch "
            f"them from image-net.org and name the folder that holds {spec.subset_of or spec.name}/"
            f"{spec.test_names[0] if split == 'test' else split}/<class>/*, or set BENCH_DATA_DIR.",
            option="data_dir",
        )
    other = (
        "install the Debian package dataset-fashion-mnist"
        if spec.name == "fashion_mnist"
        else f"put an ImageFolder {spec.name}/{split}/<class>/* into a data dir or {cache_dir()}"
    )
    lies_in = f"{spec.idx_folder}/raw/*-ubyte[.gz]" if spec.idx_folder else "cifar-10-batches-py"
    return BenchError(
        f"the {split} split of {spec.name} is not on this machine; allow its download, name a data dir (or set "
        f"BENCH_DATA_DIR) with {lies_in}, or {other}.",
        option=("download", "data_dir"),
    )


def _unknown_dataset(name: str, split: Split, named: Sequence[Path]) -> BenchError:
    packed = [path for folder in named for path in sorted(folder.glob(f"{name}.*")) if path.suffix in _PACKED]
    if packed:
        return BenchError(f"{packed[0]} is packed; unpack it, archives are not read.")
    if name in _own_names(named):
        return BenchError(
            f"{name} has no {split} split; store one as {name}/{split}/<class>/*, {name}/{split}.npz, or arrays "
            f"x_{split} and y_{split} of {name}.npz."
        )
    error = unknown_name(name, {*DATASETS, *_own_names(named), *plugin_names(PLUGINS)}, "data set")
    return BenchError(
        f"{error} One of your own is found as DIR/{name}/test/<class>/*, DIR/{name}.npz or "
        f"DIR/{name}/test-*.parquet in a data dir DIR.",
        option="data_dir",
    )
