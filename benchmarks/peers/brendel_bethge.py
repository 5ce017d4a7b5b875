"""Foolbox's attack of Brendel, Rauber, Kuemmerer, Ustyuzhaninov and Bethge (NeurIPS 2019), one image at a time.

Foolbox takes the trust region to be `lr` times the number of values of the whole batch, so that in a batch of fifty an
image's region would be fifty times as wide as alone: images go in alone. Numba (in the extra `peers`) compiles the
solver of a norm once a process, which takes 25 to 60 s of the processor and is not counted.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

ATTACKS = {
    "linf": "LinfinityBrendelBethgeAttack", "l2": "L2BrendelBethgeAttack",
    "l1": "L1BrendelBethgeAttack", "l0": "L0BrendelBethgeAttack",
}  # fmt: skip


def walk_boundary(norm: str, steps: int, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(N, C, H, W) the points found, where nothing was found the images.

    Args:
        norm: "linf", "l2", "l1" or "l0".
        steps: of the walk along the boundary, a gradient each; the learning rate and its decay are Foolbox's own.
        images: (N, C, H, W) in [0, 1], which the model classifies as labels (N,).
    """
    import foolbox

    target = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device=images.device)
    attack = compiled(norm, steps)
    starts = starting_points(target, images, labels)
    found = images.clone()
    for index in range(len(images)):
        one = slice(index, index + 1)
        if bool(target(starts[one]).argmax(1) != labels[one]):
            found[one] = attack(target, images[one], labels[one], starting_points=starts[one], epsilons=None)[1]
    # what it returns fools the net by 1e-7 of a logit, when asked alone: a ten-thousandth of the way further where the
    # whole batch says otherwise
    further = (images + 1.0001 * (found - images)).clamp(0, 1)
    return torch.where((target(found).argmax(1) != labels)[:, None, None, None], found, further)


@cache
def compiled(norm: str, steps: int) -> Any:
    """The attack, its solver compiled by two steps against a line in four values."""
    import foolbox

    line = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        line[1].weight.copy_(torch.tensor([[-1.0, -1.0, -1.0, -2.0], [1.0, 1.0, 1.0, 2.0]]))
        line[1].bias.copy_(torch.tensor([2.0, -2.0]))
    target = foolbox.PyTorchModel(line.eval(), bounds=(0, 1), device="cpu")
    attack = getattr(foolbox.attacks, ATTACKS[norm])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, label = torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, dtype=torch.int64)
        attack(steps=2)(target, image, label, starting_points=torch.full_like(image, 0.9), epsilons=None)
        return attack(steps=steps)


def starting_points(target: Any, images: Tensor, labels: Tensor) -> Tensor:
    """(N, C, H, W) misclassified points: uniform noise blended in as Foolbox does, else another of the images.

    Nets take noise for one class mostly; where that is the image's own the dataset attack, Foolbox's other way to
    begin, takes an image of another class.
    """
    import foolbox

    criterion = foolbox.criteria.Misclassification(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blended = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=100).run(target, images, criterion)
    dataset = foolbox.attacks.DatasetAttack()
    dataset.feed(target, images)
    other = dataset.run(target, images, criterion)
    fooled = target(blended).argmax(1) != labels
    starts: Tensor = torch.where(fooled[:, None, None, None], blended, other)
    return starts
