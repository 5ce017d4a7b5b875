"""Pairs of an example and a restart at it, which is a target class or a restart, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from bench.attacks.losses import wrong_classes


def nearest_classes(model: nn.Module, images: Tensor, labels: Tensor, count: int, *, batch_size: int) -> Tensor:
    """(N, count) the wrong classes, by the images' logits, in their order; fewer if there are few."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(images, batch_size)])
    return wrong_classes(logits, labels, count)


def pair_batches(
    count: int, restarts: int, batch_size: int, broken: Callable[[], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pairs, examples (n,) and numbers of restarts (n,): the first of all, then the others together.

    Most of what breaks breaks at the first restart; what stands is put to all the others in full batches.

    Args:
        broken: (count,) bool, asked before each batch; what is broken is left out.
    """
    device = broken().device
    everyone, numbers = torch.arange(count, device=device), torch.arange(restarts, device=device)
    for part in (numbers[:1], numbers[1:]):
        examples, restart = everyone.repeat(len(part)), part.repeat_interleave(count)
        while len(examples):
            standing = ~broken()[examples]
            examples, restart = examples[standing], restart[standing]
            if len(examples):
                yield examples[:batch_size], restart[:batch_size]
            examples, restart = examples[batch_size:], restart[batch_size:]
