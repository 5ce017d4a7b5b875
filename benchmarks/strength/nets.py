"""Nets on which attacks are tuned, and others on which they are then reported; they differ where the zoo's are alike.

    python benchmarks/strength/nets.py DATA_DIR NETS       # all, or those named with --net: NETS/NAME.pt
    python benchmarks/strength/compare.py benchmarks/strength/nets.py:pool --weights NETS/pool_trades.pt ...

They learn from the first 55,000 training images. Attacks are tuned on the last 5,000, on nets for development alone;
test images and the nets for reporting are looked at once a version. benchmarks/strength/deviations.csv has the counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from bench.core.memory import keep_freed_memory
from bench.data import load_split
from bench.nets.preparation import prepare_net
from bench.training.methods import Batch
from bench.training.methods.adversarial import Adversarial
from bench.training.methods.trades import Trades

TRAINED_ON = 55_000
BATCH = 128


def pool() -> nn.Sequential:
    """Two convolutions with max-pooling, as the nets of TRADES on MNIST, smaller."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def deep_pool() -> nn.Sequential:
    """Four convolutions of 3x3, two of them before each max-pooling, the first with a stride."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 9, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def lenet_softplus() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=2, padding=2), nn.Softplus(10), nn.Conv2d(6, 16, 5), nn.Softplus(10),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Softplus(10), nn.Linear(120, 84), nn.Softplus(10),
        nn.Linear(84, 10),
    )  # fmt: skip


def wide_pool() -> nn.Sequential:
    """As `pool`, with kernels of 5x5 and half as many channels more."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 49, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def strided() -> nn.Sequential:
    """Convolutions with strides and no pooling, through which interval bounds stay tight."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def wide_strided() -> nn.Sequential:
    """Wider, with kernels of 5x5."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(24, 40, 5, stride=2, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(40 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def deep_strided() -> nn.Sequential:
    """Three convolutions of 3x3 and two hidden layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 96), nn.ReLU(), nn.Linear(96, 64),
        nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def deep_mlp() -> nn.Sequential:
    """Ten narrow layers."""
    layers = [layer for before in (784, *[64] * 8) for layer in (nn.Linear(before, 64), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))


def wide_mlp() -> nn.Sequential:
    """One wide layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 10))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.layers(images) + self.shortcut(images))


def residual() -> nn.Sequential:
    """Four residual blocks with batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), _Block(8, 8, 1), _Block(8, 16, 2), _Block(16, 16, 1),
        _Block(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


class _Winners(nn.Module):
    """k-winners-take-all, Xiao, Zhong and Zheng 2020: a tenth of the layer's values stay, the others are 0."""

    def forward(self, values: Tensor) -> Tensor:
        flat = values.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0.0).view_as(values)


def winners() -> nn.Sequential:
    return nn.Sequential(*(_Winners() if isinstance(layer, nn.ReLU) else layer for layer in strided()))


class _Quantised(nn.Module):
    """Eight grey levels; rounding has no gradient, and the straight-through one is given in its place."""

    def forward(self, images: Tensor) -> Tensor:
        return images + ((7.0 * images).round() / 7.0 - images).detach()


def quantised() -> nn.Sequential:
    return nn.Sequential(_Quantised(), *strided())


class _Saturating(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return 20.0 * torch.tanh(logits / 4.0)


def saturating() -> nn.Sequential:
    """Logits that hardly grow any more where the net is sure."""
    return nn.Sequential(*strided(), _Saturating())


@dataclass(frozen=True, slots=True)
class NetRecipe:
    """How a net is trained.

    Attributes:
        eps: L-inf radius of training, and of comparing.
        steps: of training, BATCH images each.
        beta: weight of TRADES' divergence, 1/lambda in its paper.
        attack_steps: of PGD in training.
        smoothing: of labels, where the loss is plain cross-entropy.
        seed: of the weights that training begins with, and of its batches.
    """

    use: Literal["development", "report"]
    net: Callable[[], nn.Sequential]
    loss: Literal["trades", "adversarial", "interval", "standard"]
    eps: float
    steps: int
    dataset: str = "mnist"
    beta: float = 6.0
    attack_steps: int = 4
    smoothing: float = 0.0
    seed: int = 0


NETS = {
    "pool_trades": NetRecipe("development", pool, "trades", 0.3, 500),
    "deep_pool_trades": NetRecipe("development", deep_pool, "trades", 0.3, 600, beta=2.0),
    "lenet_softplus": NetRecipe("development", lenet_softplus, "adversarial", 0.2, 400),
    "residual_smooth": NetRecipe("development", residual, "standard", 0.03, 200, smoothing=0.2),
    "winners": NetRecipe("development", winners, "adversarial", 0.1, 300),
    "pool_fashion": NetRecipe("development", pool, "trades", 0.1, 300, dataset="fashion_mnist", beta=3.0),
    "interval_low": NetRecipe("development", strided, "interval", 0.1, 600, seed=1),
    "interval_high": NetRecipe("development", strided, "interval", 0.3, 900, seed=2),
    "interval_wide": NetRecipe("development", wide_strided, "interval", 0.2, 500, seed=3),
    "interval_deep": NetRecipe("development", deep_strided, "interval", 0.15, 700, seed=4),
    "wide_pool_trades": NetRecipe("development", wide_pool, "trades", 0.3, 400, beta=4.0, seed=5),
    "pool_trades_low": NetRecipe("development", pool, "trades", 0.2, 400, beta=3.0, seed=6),
    "pool_trades_weak": NetRecipe("report", pool, "trades", 0.3, 400, beta=2.0),
    "deep_pool_adversarial": NetRecipe("report", deep_pool, "adversarial", 0.3, 500),
    "interval": NetRecipe("report", strided, "interval", 0.2, 600),
    "deep_standard": NetRecipe("report", deep_mlp, "standard", 0.03, 500),
    "wide_adversarial": NetRecipe("report", wide_mlp, "adversarial", 0.1, 200, attack_steps=3),
    "quantised": NetRecipe("report", quantised, "adversarial", 0.2, 300),
    "saturating": NetRecipe("report", saturating, "standard", 0.05, 200, smoothing=0.1),
    "residual_fashion": NetRecipe("report", residual, "adversarial", 0.06, 200, dataset="fashion_mnist"),
}


def interval_logits(net: nn.Sequential, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """(N, K) the worst logits in the ball by interval bounds (Gowal et al. 2018): the true one's low, others' high."""
    low, high = (images - eps).clamp_min(0.0), (images + eps).clamp_max(1.0)
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            middle, reach = layer((low + high) / 2), (high - low) / 2
            weight = layer.weight.abs()
            if isinstance(layer, nn.Conv2d):
                reach = F.conv2d(reach, weight, stride=layer.stride, padding=layer.padding)
            else:
                reach = F.linear(reach, weight)
            low, high = middle - reach, middle + reach
        else:
            low, high = layer(low), layer(high)
    return torch.where(F.one_hot(labels, low.shape[1]).bool(), low, high)


def loss_of(recipe: NetRecipe, net: nn.Sequential, batch: Batch) -> Tensor:
    """The radius grows from 0 over the first two thirds of training, else nets stay at one answer at L-inf 0.3."""
    eps = recipe.eps * min(1.0, max(0.01, 1.5 * batch.progress))
    if recipe.loss == "trades":
        terms = Trades(eps=eps, beta=recipe.beta, steps=recipe.attack_steps).loss_terms(net, batch)
    elif recipe.loss == "adversarial":
        terms = Adversarial(norm="linf", eps=eps, steps=recipe.attack_steps).loss_terms(net, batch)
    else:
        clean = F.cross_entropy(net(batch.images), batch.labels, label_smoothing=recipe.smoothing)
        if recipe.loss == "standard":
            return clean
        share = 0.5 * min(1.0, 1.5 * batch.progress)
        worst = F.cross_entropy(interval_logits(net, batch.images, batch.labels, eps), batch.labels)
        return (1 - share) * clean + share * worst
    return torch.stack(list(terms.values())).sum()


def trained(recipe: NetRecipe, data_dir: Path | None) -> nn.Sequential:
    data = load_split(recipe.dataset, "train", data_dir=data_dir)
    torch.manual_seed(recipe.seed)
    net, generator = prepare_net(recipe.net()), torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, recipe.steps)
    for step in range(recipe.steps):
        chosen = torch.randint(TRAINED_ON, (BATCH,), generator=generator)
        batch = Batch(
            data.pixels(chosen),
            data.labels[chosen],
            None,
            pixel_std=torch.ones(1, 1, 1, 1),
            generator=generator,
            progress=step / recipe.steps,
        )
        loss = loss_of(recipe, net.train(), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net.eval()


def main(
    data_dir: Path, folder: Path, net: Annotated[list[str], typer.Option()] = list(NETS),  # noqa: B006
) -> None:  # fmt: skip
    """Train nets, one after another."""
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    for name in net:
        began = time.process_time()
        model = trained(NETS[name], data_dir)
        torch.save(model.state_dict(), folder / f"{name}.pt")
        data = load_split(NETS[name].dataset, "train", data_dir=data_dir)
        held = slice(TRAINED_ON, TRAINED_ON + 2000)
        with torch.no_grad():
            right = (model(data.pixels(held)).argmax(1) == data.labels[held]).double().mean()
        sys.stdout.write(f"{name}: {100 * float(right):.1f} % right, {time.process_time() - began:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
