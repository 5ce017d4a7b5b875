"""Small nets on Fashion-MNIST at 7x7 pixels whose exact distances are known, and how near our attacks come to them.

    python benchmarks/strength/truth.py train --data-dir DIR     # weights, from training images
    python benchmarks/strength/truth.py solve --images 24        # exact distances of test images, into exact.npz
    python benchmarks/strength/truth.py report                   # minimum_norm and autoattack_fast against them

Attacks are tuned on training images alone (`solve --split train --data-dir DIR --file FILE`, `report --file FILE`).
"""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from bench.attacks.cascade.stages import Stage
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.catalog.suites import resolve_suites
from bench.core.threat import NORMS, Norm
from bench.data import load_split
from bench.protocols.robustness.presets import MinimumNormParameters
from benchmarks.strength.exact import exact_distance
from benchmarks.strength.layers import Layers

FILE = Path(__file__).parent / "exact.npz"
NETS: dict[str, tuple[int, list[int]]] = {"one_layer": (0, [40]), "two_layers": (0, [24, 24]), "conv": (4, [16])}
"""Channels of a first convolution, 3x3 with stride 2, or 0 for none; widths of the hidden layers after it."""
LARGEST: dict[Norm, float] = {"linf": 0.5, "l2": 3.0, "l1": 15.0}
app = typer.Typer(add_completion=False)


def small(images: Tensor) -> Tensor:
    """(N, 1, 28, 28) -> (N, 1, 7, 7), means of 4x4 pixels."""
    return nn.functional.avg_pool2d(images, 4)


def empty_net(name: str) -> nn.Sequential:
    channels, widths = NETS[name]
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2), nn.ReLU()] if channels else []
    layers.append(nn.Flatten())
    for before, after in itertools.pairwise([9 * channels if channels else 49, *widths]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


@dataclass(frozen=True, slots=True)
class Known:
    """A net, images (N, 1, 7, 7) that it classifies right, labels (N,), and norm -> (N, 2) bounds of the distance."""

    name: str
    net: nn.Sequential
    images: Tensor
    labels: Tensor
    bounds: dict[Norm, Tensor]


def known(file: Path = FILE) -> list[Known]:
    """What a file holds of each net."""
    with np.load(file) as stored:
        names = [key.removesuffix("/images") for key in stored.files if key.endswith("/images")]
        return [_known(stored, name) for name in names]


def _known(stored: Any, name: str) -> Known:
    net = empty_net(name)
    net.load_state_dict({key: torch.from_numpy(stored[f"{name}/{key}"]) for key in net.state_dict()})
    net.requires_grad_(False).eval()
    images, labels = torch.from_numpy(stored[f"{name}/images"]), torch.from_numpy(stored[f"{name}/labels"])
    return Known(name, net, images, labels, {norm: torch.from_numpy(stored[f"{name}/{norm}"]) for norm in NORMS})


@app.command()
def train(
    data_dir: Path, folder: Path = Path(), net: Annotated[list[str], typer.Option()] = list(NETS),  # noqa: B006
) -> None:  # fmt: skip
    """Train the nets on the training split: FOLDER/NAME.pt."""
    data = load_split("fashion_mnist", "train", data_dir=data_dir)
    images, labels = small(data.pixels(slice(0, len(data.labels)))), data.labels
    for name in net:
        torch.manual_seed(0)
        model, steps = empty_net(name), 1400
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
        for _ in range(steps):
            chosen = torch.randint(len(images), (256,))
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        torch.save(model.state_dict(), folder / f"{name}.pt")


@app.command()
def solve(
    folder: Path = Path(), net: Annotated[list[str], typer.Option()] = list(NETS), images: int = 24,  # noqa: B006
    split: Literal["train", "test"] = "test", data_dir: Path | None = None, file: Path = FILE, seconds: float = 120.0,
) -> None:  # fmt: skip
    """Exact distances of the first images that each net of FOLDER/NAME.pt classifies right; a net at a time."""
    data = load_split("fashion_mnist", split, data_dir=data_dir)
    stored: dict[str, Any] = dict(np.load(file)) if file.exists() else {}
    for name in net:
        model = empty_net(name)
        model.load_state_dict(torch.load(folder / f"{name}.pt"))
        model.requires_grad_(False)
        shown, labels = small(data.pixels(slice(0, 2 * images))), data.labels[: 2 * images]
        right = (model(shown).argmax(1) == labels).nonzero().squeeze(1)[:images]
        shown, labels = shown[right].contiguous(), labels[right]
        found, layers = minimum_norm(model, shown, labels), Layers.of(model, (1, 7, 7))
        stored |= {f"{name}/{key}": value.numpy() for key, value in model.state_dict().items()}
        stored |= {f"{name}/images": shown.numpy(), f"{name}/labels": labels.numpy()}
        for norm in NORMS:
            began, rows = time.process_time(), []
            for image, label, start in zip(shown, labels, found.images[norm], strict=True):
                point, near = (one.flatten().double().numpy() for one in (image, start))
                exact = exact_distance(layers, point, int(label), norm, start=near, seconds=seconds)
                rows.append((exact.lower, exact.upper, exact.solved))
            stored[f"{name}/{norm}"] = np.array([row[:2] for row in rows])
            solved = sum(row[2] for row in rows)
            sys.stdout.write(f"{name}, {norm}: {solved} of {len(rows)} solved, {time.process_time() - began:.0f} s\n")
            sys.stdout.flush()
        np.savez_compressed(file, **stored)


def minimum_norm(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResults:
    """The suite minimum_norm's attack in L-inf, L2 and L1, from radii that are these images' largest."""
    parameters = resolve_suites(["minimum_norm"])[0].file.parameters
    section = {"datasets": {"small": {"largest": LARGEST}}}
    plan = MinimumNormParameters.model_validate(parameters | section).plan()
    results = AttackResults.start(labels, labels, images)
    run = plan.entries[0].prepared(None)
    for norm, radii in plan.radii_of("small").items():
        run_attack(run, _examples(model, images, labels), norm, radii, results=results)
    return results


def cascade_breaks(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    """(N,) bool: the verdict of autoattack_fast's cascade."""
    stages = tuple(Stage(**one) for one in resolve_suites(["autoattack_fast"])[0].file.parameters["stages"])
    results = AttackResults.start(labels, labels)
    run = named_attack("cascade", {"stages": stages})
    run_attack(run, _examples(model, images, labels), norm, [eps], results=results)
    return results.broken(norm, eps)


def _examples(model: nn.Module, images: Tensor, labels: Tensor) -> Examples:
    return Examples(model, images, labels, torch.arange(len(labels)), num_classes=10)


@app.command()
def report(file: Path = FILE) -> None:
    """How far minimum_norm is above the exact distance, and how often the cascade says what is so.

    The cascade is asked at three radii, midway between neighbouring exact distances around the quartiles.
    """
    for one in known(file):
        found = minimum_norm(one.net, one.images, one.labels)
        for norm in NORMS:
            lower, upper = one.bounds[norm].T
            solved = upper - lower <= 1e-4 * upper
            ratio = (found.distances[norm] / upper)[solved]
            asked, equal = 0, 0
            ordered = upper[solved].sort().values
            for share in (0.25, 0.5, 0.75):
                index = int(share * (len(ordered) - 1))
                eps = float(ordered[index : index + 2].mean())
                broken = cascade_breaks(one.net, one.images, one.labels, norm, eps)
                decided = (eps < lower) | (eps > upper)
                asked += int(decided.sum())
                equal += int((broken == (upper < eps))[decided].sum())
            sys.stdout.write(
                f"{one.name}, {norm}: {len(ratio)} images solved, median {float(upper.median()):.4f}; minimum_norm over it "
                f"{float(ratio.min()):.5f} to {float(ratio.max()):.4f}, within 1 % {int((ratio <= 1.01).sum())}, within "
                f"0.1 % {int((ratio <= 1.001).sum())}; cascade's verdict right {equal} of {asked}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    app()
