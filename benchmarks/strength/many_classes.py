"""The cascade against AutoAttack's components on a net of many classes, and what choosing targets costs.

    python benchmarks/strength/many_classes.py net.py:make --dataset samples --data-dir DIR --eps 0.5/255

Both at one radius: the cascade on all images, the components one after another on what stands, as the suites
autoattack_fast and autoattack have them. For docs/imagenet.md: any model and data set that `bench run` takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
import bench
from bench.attacks.apgd import attack as apgd
from bench.attacks.cascade.attack import Cascade
from bench.attacks.cascade.stages import Stage
from bench.attacks.fab import attack as fab
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.catalog.suites import resolve_suites
from bench.core.threat import Norm
from bench.data import load_split

COMPONENTS = ("apgd-ce", "apgd-t", "fab-t", "square")
CHOOSING: tuple[tuple[Any, Sequence[str]], ...] = (
    (Cascade, ("_pairs", "_remember")),
    (apgd, ("nearest_classes",)),
    (fab, ("nearest_classes",)),
)
"""Where targets are chosen: the clean logits, their order, and the best logits that any attack has reached."""


@contextmanager
def timed(owner: Any, name: str, seconds: list[float]) -> Iterator[None]:
    """Add up what calls of a function of `owner` take."""
    function = getattr(owner, name)

    def measured(*arguments: Any, **keywords: Any) -> Any:
        began = time.process_time()
        result = function(*arguments, **keywords)
        seconds.append(time.process_time() - began)
        return result

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, function)


def attacked(examples: Examples, name: str, keywords: dict[str, Any], norm: Norm, *, eps: float) -> Tensor:
    """(N,) bool, what an attack leaves standing; a line says what it took."""
    labels, choosing, began = examples.labels, [0.0], time.process_time()
    results = AttackResults.start(labels, labels)
    with ExitStack() as stack:
        for owner, functions in CHOOSING:
            for function in functions:
                stack.enter_context(timed(owner, function, choosing))
        if len(examples):
            run_attack(named_attack(name, keywords), examples, norm, [eps], results=results)
    standing, took = ~results.broken(norm, eps), time.process_time() - began
    sys.stdout.write(
        f"{name}: {int(standing.sum())} of {len(examples)} stand; {took:.0f} s of CPU, {results.gradient_evaluations} "
        f"gradients, {results.queries} queries; choosing targets {100 * sum(choosing) / max(took, 1e-9):.1f} % of the time\n"
    )
    sys.stdout.flush()
    return standing


def main(
    model: str, dataset: str = "imagenet", data_dir: Annotated[Path | None, typer.Option()] = None, images: int = 64,
    norm: str = "linf", eps: str = "0.5/255", batch_size: int = 16,
) -> None:  # fmt: skip
    """Attack the first images that the model classifies right."""
    data = load_split(dataset, "test", data_dir=data_dir)
    net = bench.load_model(model, dataset=dataset, num_classes=data.num_classes)
    shown, labels = data.pixels(slice(0, images)), data.labels[:images]
    with torch.no_grad():
        said = torch.cat([net(part).argmax(1) for part in torch.split(shown, batch_size)])
    everything = Examples(
        net, shown, labels, torch.arange(len(labels)), num_classes=data.num_classes, batch_size=batch_size
    )
    right = everything.take((said == labels).nonzero().squeeze(1))
    sys.stdout.write(f"{len(right)} of {len(labels)} images classified right, {norm} at {eps}\n")
    where: Any = norm
    stages = tuple(Stage(**one) for one in resolve_suites(["autoattack_fast"])[0].file.parameters["stages"])
    radius = float(Fraction(eps.partition("/")[0]) / Fraction(eps.partition("/")[2] or "1"))
    ours = attacked(right, "cascade", {"stages": stages}, where, eps=radius)
    theirs = torch.ones_like(ours)
    for name in COMPONENTS:
        rows = theirs.nonzero().squeeze(1)
        theirs[rows] = attacked(right.take(rows), name, {}, where, eps=radius)
    sys.stdout.write(
        f"equal on {int((ours == theirs).sum())} of {len(right)}; only AutoAttack breaks {int((ours & ~theirs).sum())}, "
        f"only the cascade {int((theirs & ~ours).sum())}\n"
    )


if __name__ == "__main__":
    typer.run(main)
