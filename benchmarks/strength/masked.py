"""Deliberately masked nets: what makes a net hard to attack by its gradients, and no harder to fool, put around any net.

    python benchmarks/strength/masked.py at_linf --kind plain --examples 250        # the report on the net itself
    python benchmarks/strength/masked.py standard --eps 0.1 --examples 56           # and on all kinds of it, in L-inf
    python benchmarks/strength/masked.py benchmarks/strength/nets.py:winners --weights NETS/winners.pt --kind plain \\
        --dataset mnist --data-dir DIR --eps 0.1 --split train --first 55000 --examples 56

Each kind takes a net of images in [0, 1] and gives logits of the same classes; the masking report must find out
all of which anything stands.
Source: Athalye, Carlini and Wagner, ICML 2018 (shattered, stochastic, vanishing gradients).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from bench.catalog.models import load_model, resolve_models
from bench.catalog.sources import SourceOptions
from bench.catalog.suites import resolve_suites
from bench.core.memory import keep_freed_memory
from bench.data import ImageDataset, load_split
from bench.data.loading import Split
from bench.nets.preparation import prepare_net
from bench.protocols import EvaluationContext
from bench.protocols.robustness import unit
from bench.protocols.robustness.presets import AutoAttackFast


class Around(nn.Module):
    """A net behind `given`, which sees the images, and before `said`, which sees its logits."""

    def __init__(
        self, net: nn.Module, *, given: Callable[[Tensor], Tensor] = lambda images: images,
        said: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.given, self.said = net, given, said

    def forward(self, images: Tensor) -> Tensor:
        return self.said(self.net(self.given(images)))


class _StraightThrough(torch.autograd.Function):
    """Five grey levels; the gradient is passed straight through, but for its sign, which is wrong in every other pixel."""

    @staticmethod
    def forward(_: Any, images: Tensor) -> Tensor:
        return _five_levels(images)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        signs = torch.rand(gradients[0].shape[1:], generator=torch.Generator().manual_seed(0)).round() * 2 - 1
        return gradients[0] * signs.to(gradients[0])


def _five_levels(images: Tensor) -> Tensor:
    return (images * 4).round() / 4


def _shattered(images: Tensor) -> Tensor:
    """A ripple of a fiftieth of the range, whose slope is a hundred times that of the image and changes sign at once."""
    return images + 0.02 * torch.sin(5000.0 * images)


class Stepped(Around):
    """A bright corner, which no gradient shows, takes as much from the answer as gradient attacks leave on near images.

    The corner has 5x5 pixels; where its mean is above `bright`, what a net says loses `share` of its range.
    """

    def __init__(self, net: nn.Module, *, bright: float = 0.09, share: float = 0.1) -> None:
        super().__init__(net)
        self.bright, self.share = bright, share

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        lit = images[..., :5, :5].flatten(1).mean(1) > self.bright
        spread = (logits.amax(1) - logits.mean(1)).detach()
        loss = (self.share * spread * lit)[:, None] * nn.functional.one_hot(logits.argmax(1), logits.shape[1])
        return logits - loss


MASKED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "quantised": lambda net: Around(net, given=_five_levels),
    "straight_through": lambda net: Around(net, given=_StraightThrough.apply),
    "shattered": lambda net: Around(net, given=_shattered),
    "flat": lambda net: Around(net, said=lambda logits: 30.0 * torch.tanh(logits)),
    "stepped": Stepped,
    "saturated": lambda net: Around(net, said=lambda logits: 1000.0 * logits),
    "noisy": lambda net: Around(net, given=lambda images: images + 0.1 * torch.randn_like(images)),
    "detached": lambda net: Around(net, given=torch.Tensor.detach),
}
RUN = [kind for kind in MASKED if kind != "detached"]
"""A net without any gradient is refused by the suite."""


def report(net: nn.Module, data: ImageDataset, images: range, eps: float | None) -> str:
    """What the suite autoattack_fast says of a net, at its radii or in L-inf alone, and what the report on masking takes."""
    seconds, probe = [0.0], unit.probe

    def timed(*given: Any, **named: Any) -> dict[str, int]:
        began = time.process_time()
        counts = probe(*given, **named)
        seconds[0] += time.process_time() - began
        return counts

    parameters = resolve_suites(["autoattack_fast"])[0].file.parameters
    if eps is not None:
        parameters = parameters | {"datasets": {data.name: {"reference": {"linf": eps}}}}
    protocol = AutoAttackFast.from_parameters(parameters, "the suite")
    context = EvaluationContext(
        net, "net", data, images.start, stop=images.stop, seed=0, device=torch.device("cpu"), batch_size=256,
        examples=max(len(images), 1000 if eps is None else 0),
    )  # fmt: skip
    unit.probe = timed
    began = time.process_time()
    result = protocol.evaluate(context)
    took, unit.probe = time.process_time() - began, probe
    rows = result.records[result.records["norm"] == "linf"]
    found = {one.id.removeprefix("masking_"): one.evidence for one in protocol.findings(result.counters)}
    verdict = found.pop("gradient_masking", "not probed").partition(";")[0]
    signs = ", ".join(f"{name} {text.rpartition(': ')[2]}" for name, text in found.items())
    return (
        f"{verdict:11} robust {100 * (1 - rows['broken'].mean()):5.1f} %, {took:5.1f} s, "
        f"{100 * seconds[0] / took:2.0f} % of it the report; {signs}"
    )


def main(
    model: str, kind: Annotated[list[str], typer.Option()] = ["plain", *RUN],  # noqa: B006
    eps: float | None = None, dataset: str = "fashion_mnist", examples: int = 56, split: str = "test", first: int = 0,
    weights: Path | None = None, data_dir: Path | None = None,
) -> None:  # fmt: skip
    """The masking report of `bench run --suite autoattack_fast`, of a net and of what masks its gradients."""
    keep_freed_memory()
    torch.set_num_threads(1)
    data = load_split(dataset, cast(Split, split), data_dir=data_dir)
    for one in kind:
        net = load_model(resolve_models([model], dataset, options=SourceOptions(weights=weights))[0])
        net = prepare_net(net) if one == "plain" else MASKED[one](net)
        sys.stdout.write(f"{model}, {one:17}{report(net, data, range(first, first + examples), eps)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
