"""The layouts in which a split may lie under a data dir: which one is there, and the reader for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.core.names import require_known
from bench.data.class_lists import CLASS_LISTS
from bench.data.class_order import number_as_known
from bench.data.dataset import ImageDataset
from bench.data.declared import DatasetFile, expand, find_declaration
from bench.data.formats.decoding import Preparation
from bench.data.formats.encoded import EncodedImages
from bench.data.formats.idx import find_idx, read_idx
from bench.data.formats.image_folder import read_image_folder
from bench.data.formats.npz import names_split, read_npz
from bench.data.formats.parquet import read_parquet
from bench.data.specs import DATASETS, DatasetSpec

Split = Literal["train", "test"]

_Read = tuple[Tensor | EncodedImages, Tensor, tuple[str, ...]]
_IDX_STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}
_TEST_NAMES = ("test", "val", "validation")


@dataclass(frozen=True, slots=True)
class Layout:
    """A split that was found.

    Attributes:
        read: reads it; raises BenchError.
        place: where it lies, for people.
        fixed_size: False where a declaration of the user's says what size images get.
    """

    read: Callable[[], ImageDataset]
    place: str
    fixed_size: bool = True


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A split of a data set; `spec` where its classes are numbered as a known one's."""

    name: str
    spec: DatasetSpec | None
    split: Split


def find_layout(folder: Path, name: str, spec: DatasetSpec | None, split: Split) -> Layout | None:
    """The split as it lies in `folder`, if it does in one of the accepted layouts; reads no images.

    A declaration comes first; a subset without a layout of its own is read from the data set it is a part of.
    """
    if not folder.is_dir():
        return None
    declared, wanted = find_declaration(folder, name), _Wanted(name, spec, split)
    if declared is not None and declared[0].place(split) is not None:
        return _declared(wanted, *declared)
    found = (_known(folder, spec, split) if spec is not None else None) or _own(folder, wanted)
    if spec is None or spec.subset_of is None:
        return found
    found = found or find_layout(folder, spec.subset_of, DATASETS[spec.subset_of], split)
    return None if found is None else _subset(found, spec)


def _known(folder: Path, spec: DatasetSpec, split: Split) -> Layout | None:
    """The layout in which a known data set is published: IDX files, or CIFAR-10's batches."""
    if spec.idx_folder is not None:
        for place in (folder / spec.idx_folder / "raw", folder):
            files = [f"{_IDX_STEMS[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
            images, labels = (find_idx(place, file) for file in files)
            # a bare folder of IDX files does not say whose they are; only the data set's own system folder may be bare
            if images and labels and (place != folder or str(folder) == spec.system_folder):
                return Layout(partial(read_idx_split, spec, split, images, labels, str(place)), str(place))
    if spec.name == "cifar10" and (folder / "cifar-10-batches-py").is_dir():
        place = folder / "cifar-10-batches-py"
        return Layout(lambda: read_torchvision(spec, split, folder, download=False), str(place))
    return None


def _own(folder: Path, wanted: _Wanted) -> Layout | None:
    """`<name>/<split>/<class>/*`, `<name>/<split>.npz`, `<name>.npz`, `<name>/[<config>/]<split>-*.parquet`."""
    own = folder / wanted.name
    test_names = wanted.spec.test_names if wanted.spec is not None else _TEST_NAMES
    for name in ("train",) if wanted.split == "train" else test_names:
        root, archive = own / name, own / f"{name}.npz"
        found = [root] if root.is_dir() else [archive] if archive.is_file() else _parquet_files(own, name)
        if found:
            return _files(wanted, found, None)
    archive = folder / f"{wanted.name}.npz"
    # arrays without a split's name are what is to be judged: training on them too would be training on the test images
    fits = archive.is_file() and (wanted.split != "train" or names_split(archive, "train"))
    return _npz(wanted, archive) if fits else None


def _parquet_files(root: Path, split_name: str) -> list[Path]:
    """The files of a split as the hub has them; raises BenchError where several configurations have it."""
    patterns = (f"{split_name}-*.parquet", f"{split_name}.parquet")
    found = sorted(path for pattern in patterns for depth in ("", "*/") for path in root.glob(depth + pattern))
    places = sorted({path.parent for path in found})
    if len(places) > 1:
        raise BenchError(
            f"{root} has the split {split_name} in {', '.join(place.name for place in places)}; name one in "
            f"{root.parent / (root.name + '.toml')}."
        )
    return found


def _files(wanted: _Wanted, found: Sequence[Path], declaration: DatasetFile | None) -> Layout:
    """A folder of class folders, an .npz file, or parquet files."""
    first, (preparation, size) = found[0], _preparation(wanted.spec, declaration)
    if declaration is not None and declaration.classes is not None:
        wanted = dataclasses.replace(wanted, spec=None)  # the classes are numbered as they are named there
    if first.is_dir():
        return _layout(wanted, first, lambda: read_image_folder(first, preparation, size))
    if first.suffix == ".npz":
        return _npz(wanted, first)
    image, label = (None, None) if declaration is None else (declaration.image_column, declaration.label_column)
    return _layout(wanted, first.parent, lambda: read_parquet(found, preparation, size, image=image, label=label))


def _declared(wanted: _Wanted, declaration: DatasetFile, declared_in: Path) -> Layout:
    files, spec = expand(str(declaration.place(wanted.split)), declared_in), wanted.spec
    archive = files[0].suffix == ".npz" and not files[0].is_dir()
    if archive and (declaration.resize or declaration.crop or declaration.channels):
        raise BenchError(
            f"data set {declared_in}: resize, crop and channels are for image files; store the arrays of an .npz file "
            "as they are wanted."
        )
    layout = dataclasses.replace(_files(wanted, files, declaration), fixed_size=declaration.crop is None)
    if declaration.classes is None:
        return _subset(layout, spec) if spec is not None and spec.subset_of is not None else layout
    return _subset(layout, declaration.classes)


def _subset(layout: Layout, classes: str | list[str] | DatasetSpec) -> Layout:
    """Only some classes of a layout: those of a shipped list, those named here, or those of a data set that it is."""

    def read() -> ImageDataset:
        if isinstance(classes, DatasetSpec):
            return dataclasses.replace(layout.read().subset(classes.class_names, classes.outputs), name=classes.name)
        if isinstance(classes, str):
            require_known(classes, CLASS_LISTS, "list of classes")
            listed = CLASS_LISTS[classes]
            return layout.read().subset(listed.names, listed.positions)
        return layout.read().subset(classes)

    return dataclasses.replace(layout, read=read)


def _preparation(spec: DatasetSpec | None, declaration: DatasetFile | None) -> tuple[Preparation, int | None]:
    """How images are prepared, and the side they must have where that leaves sizes; the declaration comes first."""
    channels = (declaration.channels if declaration else None) or (spec.in_channels if spec else 3)
    if declaration is not None and declaration.crop is not None:
        return Preparation(channels, declaration.resize, declaration.crop, declaration.interpolation), None
    if spec is not None and spec.resize is not None:
        return Preparation(channels, spec.resize, spec.image_size), None
    return Preparation(channels), spec.image_size if spec is not None else None


def _layout(wanted: _Wanted, place: Path, read: Callable[[], _Read]) -> Layout:
    """A layout of images, labels and class names, which are numbered as the data set numbers them."""

    def dataset() -> ImageDataset:
        images, labels, classes = read()
        numbered = number_as_known(wanted.spec, labels, classes, place)
        return ImageDataset(wanted.name, wanted.split, images, *numbered, str(place))

    return Layout(dataset, str(place))


def _npz(wanted: _Wanted, path: Path) -> Layout:
    def read() -> _Read:
        images, labels, classes = read_npz(path, wanted.split)
        if classes is None and wanted.spec is not None and not wanted.spec.subset_of:
            classes = wanted.spec.class_names
        count = int(labels.max()) + 1 if len(labels) else 0
        return images, labels, classes or tuple(str(number) for number in range(count))

    return _layout(wanted, path, read)


def read_idx_split(spec: DatasetSpec, split: Split, images: Path, labels: Path, source: str) -> ImageDataset:
    """A split of a known data set in two IDX files."""
    pixels, numbers = read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).to(torch.int64)
    return ImageDataset(spec.name, split, pixels, numbers, class_names=spec.class_names, source=source)


def read_torchvision(spec: DatasetSpec, split: Split, root: Path, *, download: bool) -> ImageDataset:
    """Read by torchvision, which checks the md5 of CIFAR-10's pickled batches before it opens them."""
    import torchvision

    train = split == "train"
    try:
        data = getattr(torchvision.datasets, str(spec.torchvision_class))(str(root), train=train, download=download)
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].partition(" You can use download=True")[0].rstrip(".")
        advice = "try again" if download else "put the published files there, or delete them and download them"
        raise BenchError(
            f"torchvision cannot read {spec.name} in {root}: {reason}; {advice}.", option="download"
        ) from error
    images = torch.as_tensor(data.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    labels = torch.as_tensor(data.targets, dtype=torch.int64)
    return ImageDataset(spec.name, split, images, labels, class_names=spec.class_names, source=str(root))
