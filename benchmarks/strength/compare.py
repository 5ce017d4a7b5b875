"""What the cascade, its longer form, our AutoAttack and pyautoattack's own break of any model, and what each alone does.

    python benchmarks/strength/compare.py at_linf --dataset mnist --data-dir DIR --eps 0.3 --examples 500
    python benchmarks/strength/compare.py my_net.py:make_net --weights my.safetensors --norm l2 --eps 1.5
    python benchmarks/strength/compare.py benchmarks/strength/nets.py:pool --weights NETS/pool_trades.pt \\
        --dataset mnist --data-dir DIR --eps 0.3 --split train --first 55000

Attacks are tuned on training images of nets that were made for it (benchmarks/strength/nets.py), never on test images.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from peers.attacks import plain_autoattack
from peers.autoattack import suite_autoattack, suite_cascade, theirs
from peers.problem import Problem, load
from torch import Tensor

from bench.catalog.sources import SourceOptions
from bench.core.memory import keep_freed_memory
from bench.core.threat import Norm
from bench.data.loading import Split

OURS = {
    "cascade": suite_cascade,
    "autoattack": suite_autoattack,
}


def main(
    model: str, norm: str = "linf", eps: float = 0.1, dataset: str = "fashion_mnist", examples: int = 250,
    split: str = "test", first: Annotated[int, typer.Option(help="the first image")] = 0,
    weights: Path | None = None, data_dir: Path | None = None,
    plain: Annotated[bool, typer.Option(help="pyautoattack's own too, which takes the longest")] = True,
) -> None:  # fmt: skip
    """Robust accuracy, seconds of the processor, and each pair's disagreements both ways."""

    def problem(*, prepared: bool) -> Problem:
        return load(
            model, examples, prepared=prepared, split=cast(Split, split), data_dir=data_dir, dataset=dataset, first=first,
            options=SourceOptions(weights=weights),
        )  # fmt: skip

    verdicts: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    one, threat = problem(prepared=False), cast(Norm, norm)
    if plain:
        verdicts["pyautoattack"], seconds["pyautoattack"] = theirs(one, plain_autoattack, threat, eps)
    keep_freed_memory()
    one = problem(prepared=True)
    for name, attack in OURS.items():
        began = one.clock()
        verdicts[name] = attack(one, threat, eps)
        seconds[name] = one.clock() - began
    longest = max(seconds.values())
    sys.stdout.write(f"{model}, {dataset} {split}, {norm} {eps:g}, {examples} images from {first} on\n")
    for name, broken in verdicts.items():
        sys.stdout.write(
            f"  {name:14}robust {100 * float((~broken).double().mean()):6.2f} %{seconds[name]:9.1f} s"
            f"{100 * seconds[name] / longest:8.1f} %\n"
        )
    for left, right in itertools.combinations(verdicts, 2):
        for this, that in ((left, right), (right, left)):
            alone = (verdicts[this] & ~verdicts[that]).nonzero().squeeze(1) + first
            sys.stdout.write(f"  {this} breaks {len(alone)} that {that} does not: {alone.tolist()[:12]}\n")


if __name__ == "__main__":
    typer.run(main)
