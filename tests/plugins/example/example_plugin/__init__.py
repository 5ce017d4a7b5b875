"""One plug-in of each kind: an architecture, a folder of models, a data set, a protocol with its metric, a recipe, an
attack, an attribution method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols import EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.training.methods import Standard
from bench.training.recipe import RecipeTemplate

ZOO = Path(__file__).parent / "zoo"
SLOW_START = RecipeTemplate("slow_start", "cross-entropy, long warm-up", Standard, {}, schedule={"warmup_share": 0.5})


def linear(*, in_channels: int, image_size: int, num_classes: int, mean: list[float], std: list[float]) -> nn.Module:
    """Logistic regression on raw pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def stripes(split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Upright and level stripes, 8x8."""
    count = 40 if split == "train" else 20
    labels = np.arange(count) % 2
    wave = np.where(np.arange(8) % 2 == 0, 255, 0).astype(np.uint8)
    upright = np.broadcast_to(wave, (8, 8))
    images = np.stack([upright if label == 0 else upright.T for label in labels])[:, None]
    return images, labels, ("upright", "level")


class Clean(Protocol):
    """Clean accuracy, and how many images are not classified right."""

    def work(self, dataset: str, count: int) -> int:
        return count

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        labels, (found, findings) = context.labels(), context.clean_pass()
        context.on_progress(len(labels))
        frame = {"example_id": context.example_ids.numpy(), "label": labels.numpy(), "prediction": found.numpy()}
        return UnitResult(pd.DataFrame(frame), {}, findings)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        by_id = records.set_index("example_id")
        wrong = (by_id["label"] != by_id["prediction"]).astype("float64")
        return [clean_accuracy(records), ExampleValues(MetricKey("stripe_errors"), wrong, "lower", "number")]


def make_zoo(*, name: str = "prototypes", confused: bool = False) -> None:
    """Write a model of the zoo: a linear net that tells the stripes apart exactly, or takes one for the other."""
    from bench.catalog.cards import ModelCard, Weights, write_card
    from bench.catalog.state_files import state_bytes
    from bench.core.files import sha256_bytes, write_atomically

    parameters = {"in_channels": 1, "image_size": 8, "num_classes": 2, "mean": [], "std": []}
    net = linear(**parameters)
    images, _, _ = stripes("test")
    prototypes = torch.as_tensor(images[:2]).float().flatten(1) / 255
    net.load_state_dict({"1.weight": prototypes.flip(0) if confused else prototypes, "1.bias": torch.zeros(2)})
    content, folder = state_bytes(net), ZOO / "stripes" / name
    write_atomically(folder / "weights.safetensors", content)
    card = ModelCard(
        schema_version=1, id=name, method="by hand", dataset="stripes", description="confused" if confused else "", num_classes=2, architecture="linear",
        architecture_parameters=parameters, weights=Weights(sha256=sha256_bytes(content), parameters=130),
    )  # fmt: skip
    write_card(folder, card)


def checkers(model: nn.Module, images: Tensor, targets: Tensor, *, size: int = 1) -> Tensor:
    """An attribution method that looks at nothing: every `size`-th column."""
    maps = torch.zeros_like(images)
    maps[..., ::size] = 1.0
    return maps


def darker(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor, share: float = 1.0) -> Tensor:
    """An attack that looks at nothing: every pixel darker, by a share of the radius."""
    return (images - share * eps.to(images.dtype).view(-1, 1, 1, 1)).clamp(0.0, 1.0)
