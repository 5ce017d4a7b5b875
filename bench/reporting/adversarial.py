"""Adversarial images that a run has kept: which are worth a look, and a picture of them beside the clean ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.attacks.norms import distance
from bench.catalog.suites import read_suite, suite_files
from bench.core.errors import BenchError, bench_command
from bench.core.files import leads_out, sha256_file, write_atomically
from bench.core.names import require_known
from bench.core.threat import NORM_LABELS, NORMS
from bench.data import ImageDataset, load_split
from bench.leaderboard.evidence.adversarial import FILE_NAME, AdversarialImages, read_own
from bench.leaderboard.evidence.manifest import Manifest, read_evidence
from bench.leaderboard.evidence.repeat import in_memory, searched_in
from bench.reporting.figures import figure_bytes
from bench.reporting.saliency.figure import SIGNED_COLOURS

MOST_ROWS = 60
_CELL, _LINE = 1.5, 0.45


@dataclass(frozen=True, slots=True)
class AdversarialRow:
    """One adversarial image beside the clean one.

    Attributes:
        distance: from the clean image in `norm`; in L0 the number of values that differ.
        truth, before, after: the label and what the model says of either image, in words.
        clean, image: (C, H, W) float32 in [0, 1].
    """

    example_id: int
    norm: str
    distance: float
    truth: str
    before: str
    after: str
    clean: NDArray[np.float32]
    image: NDArray[np.float32]

    @property
    def said(self) -> str:
        """In one line, without the image's number."""
        length = f"{self.distance:.0f} values" if self.norm == "l0" else f"{self.distance:.4g}"
        return f"{self.truth}, predicted {self.before}, then {self.after}; {NORM_LABELS[self.norm]} {length}"


def find_run(run: str, leaderboard: Path) -> Path:
    """The folder of a run, named by its id or its path; raises BenchError."""
    if (Path(run) / "manifest.json").is_file():
        return Path(run)
    runs = sorted(path.parent.name for path in (leaderboard / "runs").glob("*/manifest.json"))
    require_known(run, runs, f"run in {leaderboard}")
    return leaderboard / "runs" / run


def adversarial_rows(
    folder: Path, *, worst: int, ids: Sequence[int] = (), data_dir: Path | None = None, download: bool = False
) -> tuple[Manifest, list[AdversarialRow]]:
    """The run's manifest, and rows of some of its images, by norm.

    Args:
        worst: how many a norm, those nearest to their clean images first.
        ids: examples to show in place of those, in every norm that has an image of them.

    Raises:
        BenchError: the run kept no images, or not those that its manifest names, none of an example that was asked for,
            or the data set is not here or another.
    """
    manifest, records = read_evidence(folder)
    images = _kept_images(folder, manifest)
    data = load_split(manifest.config.dataset, "test", data_dir=data_dir, download=download)
    if not data.sha256.startswith(manifest.config.data_sha256):
        raise BenchError(f"the run {folder.name} is of other images than {data.source}.")
    before = records.drop_duplicates("example_id").set_index("example_id")["prediction"]
    for example in ids:
        if example not in before.index:
            raise BenchError(f"image {example} was not judged by run {folder.name}.", option="image")
        if example not in images.ids:
            how = "is misclassified as it is" if before[example] != int(data.labels[example]) else "withstood all"
            raise BenchError(f"image {example} {how}, so that there is no adversarial image of it.", option="image")
    rows = [_row(images, place, data, int(before[images.ids[place]])) for place in _chosen(images, data, worst, ids)]
    if not rows:
        raise BenchError(f"run {folder.name} found no adversarial image.")
    return manifest, rows


def _kept_images(folder: Path, manifest: Manifest) -> AdversarialImages:
    path, digest = folder / FILE_NAME, manifest.result.adversarial_sha256
    if not digest and in_memory(manifest.card):
        raise BenchError(
            f"run {folder.name} kept no adversarial images; call bench.evaluate again with save_adversarial=True."
        )
    if not digest:
        config = manifest.config
        named: dict[str, object] = {"model": config.model, **manifest.request.named}
        files = suite_files()
        by_name = config.suite in files and read_suite(files[config.suite]).file.version == config.suite_version
        named |= {"suite": config.suite if by_name else f"{config.suite}.toml", "examples": manifest.request.examples}
        named |= {"seed": config.seed or None, "leaderboard": folder.parent.parent}
        named |= searched_in(config.precision)
        again = bench_command("run", **named, dataset=config.dataset, save_adversarial=True)
        raise BenchError(f"run {folder.name} kept no adversarial images; {again} keeps them.")
    if leads_out(path, folder.parent.parent) or not path.is_file() or sha256_file(path) != digest:
        raise BenchError(f"{path} is missing, or not what the run wrote; restore it, or run the evaluation again.")
    return read_own(path)


def _chosen(images: AdversarialImages, data: ImageDataset, worst: int, ids: Sequence[int]) -> list[int]:
    """Places of the images to show."""
    found: list[int] = []
    for norm in NORM_LABELS:
        places = np.flatnonzero(images.norms == norm)
        if ids:
            found += [int(place) for example in ids for place in places[images.ids[places] == example]]
        elif len(places):
            order = np.argsort(_distances(images, places, data), kind="stable")
            found += places[order[:worst]].tolist()
    return found


def _distances(images: AdversarialImages, places: NDArray[np.int64], data: ImageDataset) -> NDArray[np.float64]:
    """Of images of one norm, in that norm; (n,) float64."""
    norm = str(images.norms[places[0]])
    delta = torch.from_numpy(images.images[places]).double() - data.pixels(torch.from_numpy(images.ids[places]))
    named = next((one for one in NORMS if one == norm), None)
    lengths = (delta != 0).flatten(1).sum(1).double() if named is None else distance(delta, named)
    return lengths.numpy()


def _row(images: AdversarialImages, place: int, data: ImageDataset, before: int) -> AdversarialRow:
    example, names = int(images.ids[place]), data.class_names
    after, truth = int(images.predictions[place]), int(data.labels[example])
    return AdversarialRow(
        example_id=example, norm=str(images.norms[place]),
        distance=float(_distances(images, np.array([place]), data)[0]),
        truth=names[truth], before=names[before], after="no number" if after < 0 else names[after],
        clean=data.pixels(torch.tensor([example]))[0].numpy(), image=images.images[place],
    )  # fmt: skip


def signed_difference(row: AdversarialRow) -> NDArray[np.float32]:
    """What was added, (H, W), channels added up, from -1 to 1 where the largest change is."""
    added: NDArray[np.float32] = (row.image - row.clean).sum(0)
    return added / max(float(np.abs(added).max()), 1e-12)


def draw_rows(rows: Sequence[AdversarialRow], title: str, path: Path, kind: str) -> None:
    """Write a picture: a row is the clean image, the adversarial one, and their difference.

    Raises:
        BenchError: too many rows, or the file cannot be written.
    """
    if len(rows) > MOST_ROWS:
        raise BenchError(f"these are {len(rows)} rows; a picture has at most {MOST_ROWS}.", option="worst")
    figure = Figure(figsize=(3.6 * _CELL, (_CELL + _LINE) * len(rows) + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        for axis, pixels in zip(axes, (row.clean, row.image), strict=False):
            axis.imshow(pixels.transpose(1, 2, 0).clip(0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
        axes[2].imshow(signed_difference(row), cmap=SIGNED_COLOURS, vmin=-1, vmax=1)
        largest = np.abs(row.image - row.clean).max()
        heads = (f"image {row.example_id}: {row.truth}", "adversarial", f"{NORM_LABELS[row.norm]} {row.distance:.4g}")
        feet = (f"predicted {row.before}", f"predicted {row.after}", f"largest change {largest:.3g}")
        for axis, head, foot in zip(axes, heads, feet, strict=True):
            axis.set_title(head, fontsize=8)
            axis.set_xlabel(foot, fontsize=7)
            axis.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=9)
    write_atomically(path, figure_bytes(figure, kind))
