"""The one place that knows Foolbox: its attacks by class name, `foolbox:L2DeepFoolAttack`, and HopSkipJump.

Source: Rauber et al., "Foolbox Native", JOSS 2020; Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient
decision-based attack", S&P 2020.
"""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.registry import Attack, AttackResult, described, register_attack
from bench.core.bounds import Steps
from bench.core.keywords import keywords_of
from bench.core.names import unknown_name
from bench.core.packages import optional_import
from bench.core.threat import NORMS, Norm

logger = logging.getLogger(__name__)

DIRECTIONS = 10
"""So many times noise is drawn for an image to start from; what fools the model at none seldom does later."""
_NORMS: dict[float, Norm] = {torch.inf: "linf", 2: "l2", 1: "l1"}


def import_foolbox() -> Any:
    """Import Foolbox; raises BenchError if it cannot be imported."""
    # it imports GitPython, which refuses to be imported where no git is installed
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    return optional_import("foolbox", "an attack of Foolbox", "ribench[foolbox]")


def find(class_name: str) -> Attack:
    """An attack of Foolbox, in its own norm, or in all if it says none; raises BenchError: not installed, unknown."""
    attacks = import_foolbox().attacks
    known = {
        name: value for name, value in vars(attacks).items()
        if inspect.isclass(value) and issubclass(value, attacks.Attack) and not inspect.isabstract(value)
    }  # fmt: skip
    if class_name not in known:
        raise unknown_name(class_name, known, "Foolbox attack")
    found: Any = known[class_name]
    kind = "minimum" if issubclass(found, attacks.base.MinimizationAttack) else "fixed"
    norms = NORMS
    with suppress(TypeError, ValueError, AttributeError, KeyError):
        norms = (_NORMS[found().distance.p],)
    return described(
        partial(_run, class_name, kind), f"foolbox:{class_name}", norms=norms, kind=kind,
        parameters=keywords_of(found.__init__, 1, ()), keyed=False,
    )  # fmt: skip


def _run(
    class_name: str, kind: str, model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor, **parameters: Any
) -> AttackResult:
    foolbox = import_foolbox()
    attack = getattr(foolbox.attacks, class_name)(**parameters)
    target = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    radius = float(eps[0]) if kind == "fixed" else None
    _, found, _ = attack(target, images, foolbox.criteria.Misclassification(labels), epsilons=radius)
    return AttackResult(found)


@register_attack("hop-skip-jump", norms=("linf", "l2"), kind="fixed", keyed=False, require=import_foolbox)
def hop_skip_jump(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, eps: Tensor, steps: Steps = 64
) -> AttackResult:
    """HopSkipJump, which sees decisions only, from noise, or from the nearest image of another answer.

    Args:
        steps: rounds of gradient estimate and line search; eight are about 1,900 queries an image.
    """
    with torch.no_grad():
        decided = _Decided(model).eval()
        try:
            return AttackResult(_walked(decided, images, labels, norm=norm, eps=float(eps[0]), steps=steps))
        except (ValueError, AssertionError):
            if decided.failing:
                raise
            logger.warning("HopSkipJump leaves %d images as they are: the model answers otherwise when asked again.",
                           len(images))  # fmt: skip
            return AttackResult(images)


def _walked(decided: _Decided, images: Tensor, labels: Tensor, *, norm: Norm, eps: float, steps: int) -> Tensor:
    """What the attack ends at within eps (N, C, H, W), or the image."""
    foolbox = import_foolbox()
    target = foolbox.PyTorchModel(decided, bounds=(0, 1), device=images.device)
    misclassified = foolbox.criteria.Misclassification
    blended = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50, directions=DIRECTIONS)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of images that no noise fools
        starts = blended.run(target, images, misclassified(labels))
    unfooled = (decided(starts).argmax(1) == labels).nonzero().squeeze(1)
    if len(unfooled):
        apart = torch.cdist(images[unfooled].flatten(1), images.flatten(1))
        same = decided(images).argmax(1) == labels[unfooled, None]
        starts[unfooled] = images[apart.masked_fill(same, torch.inf).argmin(1)]
    rows = (decided(starts).argmax(1) != labels).nonzero().squeeze(1)
    walked = images.clone()
    if len(rows):
        attack = foolbox.attacks.HopSkipJumpAttack(steps=steps, constraint=norm)
        _, found, fooled = attack(
            target, images[rows], misclassified(labels[rows]), epsilons=eps, starting_points=starts[rows]
        )
        walked[rows] = torch.where(fooled.view(-1, 1, 1, 1), found, images[rows])
    return walked


class _Decided(nn.Module):
    """The model with a further class, which wins where a logit is NaN or infinite; `failing` once it has raised."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.failing = model, False

    def forward(self, images: Tensor) -> Tensor:
        self.failing = True
        logits: Tensor = self.model(images)
        self.failing = False
        finite = logits.isfinite().all(1, keepdim=True)
        nowhere = torch.where(finite, -torch.inf, 1.0)
        return torch.cat([torch.where(finite, logits, 0.0), nowhere], 1)
