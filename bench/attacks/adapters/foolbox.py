"""The one place that knows Foolbox: its attacks by class name, `foolbox:L2DeepFoolAttack`, and HopSkipJump.

Source: Rauber et al., "Foolbox Native", JOSS 2020; Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient
decision-based attack", S&P 2020.
"""

from __future__ import annotations

import inspect
import os
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

_NORMS: dict[float, Norm] = {torch.inf: "linf", 2: "l2", 1: "l1"}


def import_foolbox() -> Any:
    """Import Foolbox; raises BenchError if it cannot be imported."""
    # it imports GitPython, which refuses to be imported where no git is installed
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    return optional_import("foolbox", "an attack of Foolbox", "ribench[foolbox]")


def find(class_name: str) -> Attack:
    """An attack of Foolbox, in the norm that it says it works in, or in every one where it says none.

    Raises:
        BenchError: not installed, or unknown.
    """
    attacks = import_foolbox().attacks
    known = {
        name: value for name, value in vars(attacks).items()
        if inspect.isclass(value) and issubclass(value, attacks.Attack) and not inspect.isabstract(value)
    }  # fmt: skip
    if class_name not in known:
        raise unknown_name(class_name, known, "Foolbox attack")
    found = known[class_name]
    kind = "minimum" if issubclass(found, attacks.base.MinimizationAttack) else "fixed"
    return described(
        partial(_run, class_name, kind), f"foolbox:{class_name}", norms=_norms_of(found), kind=kind,
        parameters=keywords_of(found.__init__, 1, ()), keyed=False,
    )  # fmt: skip


def _norms_of(found: Any) -> tuple[Norm, ...]:
    try:
        return (_NORMS[found().distance.p],)
    except (TypeError, ValueError, AttributeError, KeyError):
        return NORMS


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
    """HopSkipJump, which sees decisions only.

    Args:
        steps: rounds of gradient estimate and line search; eight are about 1,900 queries an image.
    """
    foolbox = import_foolbox()
    with torch.no_grad():
        attack = foolbox.attacks.HopSkipJumpAttack(steps=steps, constraint=norm)
        target = foolbox.PyTorchModel(_Decided(model).eval(), bounds=(0, 1), device=images.device)
        criterion = foolbox.criteria.Misclassification(labels)
        try:
            _, found, fooled = attack(target, images, criterion, epsilons=float(eps[0]))
        except (ValueError, AssertionError):
            # it starts from noise that fools the model for every image, alone and beside the others; where there is
            # none it has nothing to offer
            return AttackResult(images)
    return AttackResult(torch.where(fooled.view(-1, 1, 1, 1), found, images))


class _Decided(nn.Module):
    """The model with a further class, which wins where a logit is NaN or infinite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        finite = logits.isfinite().all(1, keepdim=True)
        nowhere = torch.where(finite, -torch.inf, 1.0)
        return torch.cat([torch.where(finite, logits, 0.0), nowhere], 1)
