"""What goes to the machine with the GPU, and what comes back: at most 64 MiB each way, files of 16 MiB at most."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from bench.core.errors import BenchError
from bench.core.files import write_atomically
from bench.data import ImageDataset

ROOT = Path(__file__).parents[2]
MOST_BYTES = 64 << 20
_WORD = 4
_TAKEN = (
    "bench", "benchmarks", "suites", "pyproject.toml", "README.md", "tests/__init__.py", "tests/conftest.py",
    "tests/attacks/__init__.py", "tests/attacks/test_gpu.py", "models/fashion_mnist/standard", "models/fashion_mnist/at_linf",
)  # fmt: skip


def pack_tree(folder: Path, further: list[Path]) -> int:
    """Copy what benchmarks/gpu.py needs, and files or folders of one's own (data, wheels); gives its bytes.

    Raises:
        BenchError: the folder is not empty, or it is more than may travel.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} is not empty; name a new folder.")
    ignored = shutil.ignore_patterns("__pycache__", "strength", "unchanged.json.gz")
    for source, target in [
        *((ROOT / name, folder / name) for name in _TAKEN),
        *((one, folder / one.name) for one in further),
    ]:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy2(source, target)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise BenchError(
            f"{folder} has {size / 2**20:.1f} MiB, of which {MOST_BYTES >> 20} may travel; leave something out."
        )
    return size


def pack_model(folder: Path) -> bytes:
    """A model's folder as one archive. Weights lie byte by byte of their numbers, which packs what is rounded well."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            padded = np.frombuffer(content + bytes(-len(content) % _WORD), np.uint8).reshape(-1, _WORD)
            archive.writestr(f"{path.name}:{len(content)}", zlib.compress(padded.T.tobytes(), 6))
    return packed.getvalue()


def unpack_model(path: Path, folder: Path) -> None:
    """What `pack_model` has packed."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            name, _, size = entry.rpartition(":")
            planes = np.frombuffer(zlib.decompress(archive.read(entry)), np.uint8).reshape(_WORD, -1)
            write_atomically(folder / Path(name).name, planes.T.tobytes()[: int(size)])


def pack_board(board: Path, path: Path) -> None:
    """A leaderboard's folder as one archive."""
    if board.is_dir():
        with tarfile.open(path, "w:gz") as archive:
            archive.add(board, "board")


def unpack_board(path: Path, folder: Path) -> None:
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")


def as_archive(splits: dict[str, ImageDataset], path: Path) -> None:
    """CIFAR-10 as one file that is read in no time, in place of 60,000."""
    arrays = {
        f"{kind}_{split}": values.numpy()
        for split, data in splits.items()
        for kind, values in (("x", data.images.permute(0, 2, 3, 1).contiguous()), ("y", data.labels))
    }
    np.savez(path, **arrays)


def synthetic(count: int, split: str) -> ImageDataset:
    """Images in CIFAR-10's shape whose class is their colour: for a trial of the script without data."""
    generator = torch.Generator().manual_seed(len(split))
    labels = torch.arange(count) % 10
    colours = torch.rand(10, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    images = 0.7 * colours[labels] + 0.3 * torch.rand(count, 3, 32, 32, generator=generator)
    from bench.data.specs import DATASETS

    names = DATASETS["cifar10"].class_names
    return ImageDataset("cifar10", split, (255 * images).to(torch.uint8), labels, class_names=names, source="synthetic")
