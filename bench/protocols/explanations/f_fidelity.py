"""F-Fidelity: a copy of the net, fine-tuned on images with some pixels masked at random, judges maps by masking few.

Since the copy has seen images with `beta` of their pixels masked, and no more are masked when it judges, it is never
asked about images unlike those it knows; and since those masks were random, no map could leak into it.
Source: Zheng, Shirani, Chen, Lin, Cheng, Guo, Luo, "F-Fidelity", ICLR 2025 (arXiv 2410.02970), in the details as its
authors' code (github.com/AslanDing/Finetune-Fidelity, image/train_model.py and evaluation_model.py) has it. Otherwise
here: maps are those of the judged net, not of its copy; masks of the fine-tuning cover all channels, where the code's
indices reach the first alone; and the copy is not chosen among epochs by its accuracy on the images that are judged.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.losses import answers
from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import pixel_ranks
from bench.core.bounds import Count, Steps
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform
from bench.core.toml_files import Section
from bench.nets.intake import copy_net
from bench.protocols.base import EvaluationContext
from bench.protocols.explanations.base import Batch, Unit
from bench.training.retraining import example_order

_Share = Annotated[float, Field(gt=0, lt=1)]


class FFidelity(Section):
    """How the copy is fine-tuned, and what is masked when it judges."""

    beta: _Share
    """The share of an image's pixels that is masked in fine-tuning, and the most that is when the copy judges."""
    alpha: _Share
    """Of the pixels in question, at most this share: alpha+ and alpha- of the paper, which are equal."""
    shares: Annotated[list[_Share], Field(min_length=1, max_length=100)]
    """Sizes of the explanation: its most important pixels."""
    draws: Steps
    training_examples: Count
    epochs: Steps
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]


def fine_tune(context: EvaluationContext, settings: FFidelity) -> nn.Module:
    """A copy of the net, trained on with Adam on the training split, in eval mode: norms keep their statistics.

    Of each image the share beta of the pixels, anew in each epoch, is masked with the training split's mean colour.

    Raises:
        BenchError: there is no training split, or fewer images than asked for.
    """
    data, count = context.training, settings.training_examples
    if data is None or count > len(data):
        have = "has none" if data is None else f"{data.name} has {len(data)}"
        raise BenchError(f"f_fidelity fine-tunes on {count} training images, {have}; see `bench datasets`.")
    images, labels = data.pixels(slice(0, count)).to(context.device), data.labels[:count].to(context.device)
    fill, ids = _mean_colour(context), torch.arange(count, device=context.device)
    net = copy_net(context.model).requires_grad_(True).eval()
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    for epoch in range(settings.epochs):
        order = example_order(context.seed, epoch, count).to(context.device)
        for chosen in torch.split(order, settings.batch_size):
            epochs = torch.full_like(ids[chosen], epoch)
            uniform = keyed_uniform(context.seed, "f_fidelity/train", ids[chosen], (1, *images.shape[2:]), extra=epochs)
            masked = _lowest(uniform, settings.beta)
            with torch.enable_grad():
                loss = F.cross_entropy(net(torch.where(masked, fill, images[chosen])), labels[chosen])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.requires_grad_(False)


def _lowest(values: Tensor, share: float) -> Tensor:
    """Where the lowest share of each example's values is, rounded down, at least one; bool of their shape."""
    flat = values.flatten(1)
    chosen = flat.topk(max(1, int(share * flat.shape[1])), dim=1, largest=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view(values.shape)


def f_fidelity(
    tuned: nn.Module, unit: Unit, batch: Batch, maps: dict[str, Tensor], *, settings: FFidelity
) -> dict[str, dict[str, Tensor]]:
    """How much more often the copy is right on an image than on the masked one: mean over sizes and draws.

    `f_fidelity` (the paper's FFid+) masks pixels of the explanation, `f_fidelity_least` (FFid-) others: each with
    probability min(alpha, beta P / n), n the number of pixels in question. Draws are keyed by example, the same for all
    maps.
    """
    context, ids = unit.context, batch.example_ids
    fill = _mean_colour(context)
    size = (1, *batch.images.shape[2:])
    pixels = math.prod(size)

    def right(images: Tensor) -> Tensor:
        return (answers(tuned(images)) == batch.labels).float()

    ranks = {name: pixel_ranks(heat_maps(found), ids)[:, None] for name, found in maps.items()}
    totals = {name: torch.zeros(2, len(ids), device=batch.images.device) for name in maps}
    with torch.no_grad():
        clean = right(batch.images)
        for draw in range(settings.draws):
            uniform = keyed_uniform(context.seed, "f_fidelity", ids, size, extra=torch.full_like(ids, draw))
            for share in settings.shares:
                number = min(pixels - 1, max(1, round(share * pixels)))
                for name, places in ranks.items():
                    for side, questioned in enumerate((places < number, places >= number)):
                        rate = min(settings.alpha, settings.beta * pixels / (pixels - number if side else number))
                        masked = questioned & (uniform < rate)
                        totals[name][side] += clean - right(torch.where(masked, fill, batch.images))
    means = {name: total / (settings.draws * len(settings.shares)) for name, total in totals.items()}
    return {name: {"f_fidelity": most, "f_fidelity_least": least} for name, (most, least) in means.items()}


def _mean_colour(context: EvaluationContext) -> Tensor:
    """(1, C, 1, 1), that with which the copy has seen pixels masked."""
    assert context.training is not None  # noqa: S101  (or nothing would have been fine-tuned)
    return context.training.channel_means.view(1, -1, 1, 1).to(context.device)
