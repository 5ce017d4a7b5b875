"""Files of adversarial images: what a run keeps in its folder, and what anybody may bring.

A NumPy archive (.npz) with the arrays `images` (n, C, H, W) float32 in [0, 1] and `ids` (n,), positions in the test
split; optional are `norms` (n,), the norm that each was made for (`linf`, `l2`, `l1`, `l0`), and `data_sha256`, the
digest of the split's images and labels. An id may come once for each norm. A run writes all of these, and
`predictions` (n,), what the model says of each.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import BenchError
from bench.core.files import replaced_whole
from bench.core.threat import NORM_LABELS
from bench.data import ImageDataset
from bench.data.formats.npz import read_arrays

FILE_NAME = "adversarial.npz"
_NEEDED, _OPTIONAL = ("images", "ids"), ("norms", "data_sha256")
_SMALL = ("ids", "norms", "predictions")
_FAR_OUTSIDE = 2.0
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every member, so that the same images make the same bytes."""


@dataclass(frozen=True, slots=True)
class AdversarialImages:
    """Adversarial images of some examples.

    Attributes:
        ids: (n,) int64, positions in the split; an example comes at most once in each norm.
        norms: (n,) str, empty where the maker does not say.
        images: (n, C, H, W) float32 in [0, 1].
        predictions: (n,) int64, what the model says of them, -1 where that is no number or their maker does not say.
    """

    ids: NDArray[np.int64]
    norms: NDArray[np.str_]
    images: NDArray[np.float32]
    predictions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def write_images(path: Path, parts: Sequence[AdversarialImages | Path], data_sha256: str) -> None:
    """Write the images of all parts as one file, those of files that this wrote one at a time; raises BenchError."""

    def each() -> Iterator[AdversarialImages]:
        return (part if isinstance(part, AdversarialImages) else read_own(part) for part in parts)

    of_parts = [({name: getattr(one, name) for name in _SMALL}, one.images.shape[1:]) for one in each()]
    small = {name: np.concatenate([own[name] for own, _ in of_parts]) for name in _SMALL}
    small["data_sha256"] = np.array(data_sha256)
    count, shape = len(small["ids"]), of_parts[-1][1]
    with replaced_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with _member(archive, "images") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(stream, header)
            for one in each():
                stream.write(np.ascontiguousarray(one.images, dtype="<f4").tobytes())
        for name, values in small.items():
            with _member(archive, name) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    info = zipfile.ZipInfo(f"{name}.npy", _EARLIEST)
    info.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(info, "w", force_zip64=True)


def read_own(path: Path) -> AdversarialImages:
    """What `write_images` wrote; raises BenchError where the file is missing or damaged."""
    arrays = read_arrays(path, lambda _: ["ids", "norms", "images", "predictions"])
    return AdversarialImages(**arrays | {"norms": _whole(arrays["norms"])})


def _whole(norms: NDArray[Any]) -> NDArray[Any]:
    """`linf` where early versions of `bench verify` wrote its first two letters alone."""
    return np.where(norms == "li", "linf", norms) if norms.dtype.kind == "U" else norms


def read_images(path: Path, dataset: ImageDataset) -> AdversarialImages:
    """Adversarial images that anybody made of the data set.

    Raises:
        BenchError: no such archive; arrays that are missing, or of other kinds or shapes; pixels that are no numbers or
            lie outside [0, 1]; ids that are no positions in the data set, or come twice; images of another data set.
    """
    arrays = read_arrays(path, lambda members: [*_NEEDED, *(name for name in _OPTIONAL if name in members)])
    digest = str(arrays.get("data_sha256", dataset.sha256))
    if digest != dataset.sha256:
        raise BenchError(
            f"{path} is of other images: its data_sha256 is {digest[:12]}, that of {dataset.name} ({dataset.split}) is "
            f"{dataset.sha256[:12]}."
        )
    images, ids = _images(arrays["images"], path, dataset), _ids(arrays["ids"], path, dataset)
    norms = _norms(_whole(arrays.get("norms", np.full(len(ids), ""))), path)
    if not len(images) == len(ids) == len(norms):
        raise BenchError(f"{path} has {len(images)} images, {len(ids)} ids and {len(norms)} norms; give one for each.")
    _require_once(ids, norms, path)
    return AdversarialImages(ids, norms, images, predictions=np.full(len(ids), -1))


def _images(images: NDArray[Any], path: Path, dataset: ImageDataset) -> NDArray[np.float32]:
    shape = tuple(dataset.shape[1:])
    if images.ndim != 4 or images.shape[1:] != shape:
        raise BenchError(
            f"images in {path} have shape {images.shape}; {dataset.name} needs (n, {', '.join(map(str, shape))})."
        )
    if not len(images):
        raise BenchError(f"{path} holds no images; give one or more.")
    if images.dtype == np.uint8:
        raise BenchError(
            f"images in {path} are bytes; store (images / 255).astype('float32'), so that nothing else is meant."
        )
    if images.dtype not in (np.float32, np.float64):
        raise BenchError(f"images in {path} are {images.dtype}; store float32 in [0, 1].")
    if not np.isfinite(images).all():
        raise BenchError(f"images in {path} have NaN or infinite pixels; leave those images out.")
    if images.max(initial=0.0) > _FAR_OUTSIDE:
        raise BenchError(f"images in {path} have pixels up to {images.max():.4g}; they must be in [0, 1].")
    return images.astype(np.float32, copy=False)


def _ids(ids: NDArray[Any], path: Path, dataset: ImageDataset) -> NDArray[np.int64]:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise BenchError(f"ids in {path} are {ids.dtype} of shape {ids.shape}; give whole numbers, one an image.")
    strange = ids[(ids < 0) | (ids >= len(dataset))]
    if len(strange):
        raise BenchError(
            f"id {strange[0]} in {path} is no position in {dataset.name} ({dataset.split}), which has {len(dataset)} "
            "images, from 0."
        )
    return ids.astype(np.int64)


def _norms(norms: NDArray[Any], path: Path) -> NDArray[np.str_]:
    strange = sorted(set(map(str, norms.ravel())) - {*NORM_LABELS, ""}) if norms.dtype.kind == "U" else [norms.dtype]
    if norms.ndim != 1 or strange:
        raise BenchError(f"norms in {path} must be texts, each one of {', '.join(NORM_LABELS)}, not {strange[:1]}.")
    return norms


def _require_once(ids: NDArray[np.int64], norms: NDArray[np.str_], path: Path) -> None:
    seen: set[tuple[int, str]] = set()
    for pair in zip(ids.tolist(), norms.tolist(), strict=True):
        if pair in seen:
            where = f" in {pair[1]}" if pair[1] else ""
            raise BenchError(f"id {pair[0]} comes twice in {path}{where}; keep the better image of the two.")
        seen.add(pair)
