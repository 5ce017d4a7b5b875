"""How full an attack's batches are, and what the part that is not costs: the most that filling them further could gain.

    OMP_NUM_THREADS=1 python benchmarks/full_batches.py --model standard --model at_linf --examples 1000
    OMP_NUM_THREADS=1 python benchmarks/full_batches.py --model at_linf --one-unit --net resnet18

The sizes of all gradient passes of a run are written down. A pass of so many images costs what the net takes for it,
measured here; passes lost are those beyond what full batches would need. `--one-unit` has all images in one work unit,
as a GPU would; `--net` takes the cost of a pass from a net of benchmarks/real_nets.py in place of the model's own.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

import bench
from bench.attacks.sweep.search import SearchNet
from bench.core.memory import keep_freed_memory
from bench.core.precision import float32_products
from bench.data import load_split
from bench.nets.preparation import prepare_net
from bench.protocols import base
from benchmarks.numerics import replaced
from benchmarks.real_nets import NETS, gradient, seconds

_ROUNDS = 3
_CPU = torch.device("cpu")


def passes(model: str, suite: str, examples: int, batch: int, *, one_unit: bool) -> Counter[int]:
    """Images of a gradient pass -> how many passes of a run had as many."""
    sizes: Counter[int] = Counter()
    call = SearchNet.__call__

    def counted(net: SearchNet, images: torch.Tensor) -> torch.Tensor:
        sizes[len(images)] += 1
        return call(net, images)

    with (
        replaced(SearchNet, "__call__", counted),
        replaced(base, "UNIT_EXAMPLES", examples if one_unit else base.UNIT_EXAMPLES),
    ):
        bench.evaluate(model, suite, examples=examples, batch_size=batch, device="cpu", workers=1)
    return sizes


def costs(net: nn.Module, shape: tuple[int, ...], largest: int) -> tuple[list[int], list[float]]:
    """Sizes of a batch and the seconds that a gradient of each takes, the least of a few."""
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if size < largest] + [largest]
    least = []
    for size in sizes:
        images = torch.rand(size, *shape)
        gradient(net, images)
        calls = max(1, 32 // size)

        def several(images: torch.Tensor = images, calls: int = calls) -> None:
            for _ in range(calls):
                gradient(net, images)

        least.append(min(seconds(several, _CPU) for _ in range(_ROUNDS)) / calls)
    return sizes, least


def row(sizes: Counter[int], batch: int, cost: tuple[list[int], list[float]]) -> dict[str, Any]:
    """What the passes are, and what they cost over full batches of the same images."""
    number, images = sum(sizes.values()), sum(size * count for size, count in sizes.items())
    spent = sum(count * float(np.interp(size, *cost)) for size, count in sizes.items())
    return {
        "passes": number,
        "less than half full": sum(count for size, count in sizes.items() if 2 * size < batch) / number,
        "images in them": sum(size * count for size, count in sizes.items() if 2 * size < batch) / images,
        "passes lost": 1 - math.ceil(images / batch) / number,
        "cost over full batches": spent / (images * cost[1][-1] / cost[0][-1]),
    }


def main(
    model: Annotated[list[str], typer.Option()] = ["standard", "at_linf"],  # noqa: B006
    suite: Annotated[list[str], typer.Option()] = ["cross_norm_quick", "autoattack_fast"],  # noqa: B006
    examples: int = 250,
    batch: int = 256,
    one_unit: bool = False,
    net: Annotated[str, typer.Option(help="Whose passes are timed, of benchmarks/real_nets.py.")] = "",
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    largest = min(batch, examples if one_unit else base.UNIT_EXAMPLES)
    known: dict[str, tuple[list[int], list[float]]] = {}
    print(
        "| | passes | less than half full | images in them | passes lost | cost over full batches |\n|---|---|---|---|---|---|"
    )
    for name in model:
        timed = net or name
        with float32_products():
            if timed not in known:
                made = NETS[net][1]().eval() if net else bench.load_model(name, device=_CPU)
                side = NETS[net][0] if net else None
                shape = (3, side, side) if side else load_split("fashion_mnist", "test").shape[1:]
                known[timed] = costs(prepare_net(made.requires_grad_(False)), shape, largest)
        for one in suite:
            found = row(passes(name, one, examples, batch, one_unit=one_unit), largest, known[timed])
            told = [f"{found['passes']:,}"] + [f"{100 * found[key]:.0f} %" for key in list(found)[1:4]]
            print(f"| `{name}`, `{one}` | {' | '.join(told)} | {found['cost over full batches']:.2f} |", flush=True)
    for timed, (sizes, least) in known.items():
        print(
            f"{timed}, ms an image: "
            + ", ".join(f"{size}: {1000 * one / size:.2f}" for size, one in zip(sizes, least, strict=True))
        )


if __name__ == "__main__":
    typer.run(main)
