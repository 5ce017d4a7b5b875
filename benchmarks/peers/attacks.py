"""What the peers are called as: their PGD, AutoAttack as its users run it, and RobustBench's benchmark()."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.threat import Norm

STEPS = 40
UNIT = 250

Pgd = Callable[[nn.Module, Tensor, Tensor, Norm, float], Tensor]
"""(model, images, labels, norm, eps) -> adversarial images."""


def _torchattacks(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    from bench.attacks.adapters.torchattacks import import_torchattacks

    if norm == "l1":
        raise NotImplementedError("no L1")
    attack = getattr(import_torchattacks(), "PGD" if norm == "linf" else "PGDL2")
    found: Tensor = attack(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS)(images, labels)
    return found


def _foolbox(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    import foolbox

    attack = {
        "linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD,
        "l1": foolbox.attacks.L1ProjectedGradientDescentAttack,
    }[norm](steps=STEPS, rel_stepsize=2.5 / STEPS)  # fmt: skip
    target = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device=images.device)
    _, found, _ = attack(target, images, labels, epsilons=eps)
    return found


def _art(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=10, clip_values=(0, 1),
    )  # fmt: skip
    order = {"linf": "inf", "l2": 2, "l1": 1}[norm]
    attack = ProjectedGradientDescentPyTorch(
        classifier, norm=order, eps=eps, eps_step=2.5 * eps / STEPS, max_iter=STEPS, num_random_init=1,
        batch_size=UNIT, verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(images.cpu().numpy(), labels.cpu().numpy())).to(images.device)


def _adv_lib(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    if norm != "linf":
        raise NotImplementedError("its PGD is L-inf only")
    # adv-lib imports visdom for its live plots; no attack needs it
    sys.modules.setdefault("visdom", ModuleType("visdom"))
    from adv_lib.attacks import pgd_linf

    found: Tensor = pgd_linf(model, images, labels, ε=eps, steps=STEPS, relative_step_size=2.5 / STEPS)
    return found


PEERS: dict[str, Pgd] = {"torchattacks": _torchattacks, "foolbox": _foolbox, "art": _art, "adv-lib": _adv_lib}


def plain_autoattack(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    """As a user runs it: a net whose parameters ask for gradients, 250 images a batch."""
    from pyautoattack import AutoAttack

    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    attack = AutoAttack(model.requires_grad_(True), norm=name, eps=eps, seed=0, device=images.device)
    found: Tensor = attack.run_standard_evaluation(images, labels)[0]
    return found


SEEN: list[Tensor] = []
"""The adversarial images that AutoAttack has handed to RobustBench's benchmark()."""


def robustbench_benchmark(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    """The adversarial images inside RobustBench's benchmark(), after `import_robustbench`."""
    import robustbench.eval as robustbench

    if norm == "l1":
        raise NotImplementedError("no L1")
    robustbench.load_clean_dataset = lambda *_: (images, labels)
    robustbench.benchmark(
        model.requires_grad_(True), len(images), "cifar10", {"linf": "Linf", "l2": "L2"}[norm], eps=eps,
        batch_size=UNIT, device=images.device,
    )  # fmt: skip
    return SEEN[-1]


def import_robustbench(folder: Path) -> None:
    """Import RobustBench from its folder, with what the index has.

    Its 1.1.1 imports `autoattack`, which the index has as `pyautoattack`, and reads CIFAR or ImageNet alone: that name
    and its reader of images are stood in for. Everything else of benchmark() runs as it is.
    """
    sys.path.insert(0, str(folder))  # before the copy of 2022 that torchattacks installs
    _stand_in_for_autoattack()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("robustbench.eval")


def _stand_in_for_autoattack() -> None:
    """The package `autoattack`, under which RobustBench looks for it, with the older calls it makes."""
    import pyautoattack
    import pyautoattack.state

    class AutoAttack(pyautoattack.AutoAttack):  # type: ignore[misc]
        def __init__(self, model: nn.Module, *, log_path: str | None = None, **settings: Any) -> None:
            super().__init__(model, **settings, seed=0)

        def run_standard_evaluation(self, images: Tensor, labels: Tensor, bs: int, state_path: object = None) -> Tensor:
            SEEN.append(super().run_standard_evaluation(images, labels, batch_size=bs)[0])
            return SEEN[-1]

    package = ModuleType("autoattack")
    package.AutoAttack, package.state = AutoAttack, pyautoattack.state  # type: ignore[attr-defined]
    sys.modules |= {"autoattack": package, "autoattack.state": pyautoattack.state}
