"""The one place that knows torchattacks: its attacks by class name, `torchattacks:PGD`.

torchattacks is imported when an attack of it runs and not before (its wheel carries a second top-level package and
pins an old requests).
"""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from bench.attacks.registry import Attack, AttackResult, described
from bench.core.errors import BenchError
from bench.core.keywords import Keyword, keywords_of
from bench.core.names import unknown_name
from bench.core.packages import optional_import

REFUSED = {
    "AutoAttack": "it runs its parts with 10 steps in place of 100; use pyautoattack",
    "FAB": "its L1 crashes and its comparisons are faulty",
    "AFAB": "its L1 crashes and its comparisons are faulty",
    "MultiAttack": "name its attacks one by one instead, the worst case is taken anyway",
    "LGV": "it trains a surrogate model",
}


def import_torchattacks() -> Any:
    """Import torchattacks, quietly; raises BenchError if it cannot be imported."""
    with warnings.catch_warnings(action="ignore"):
        return optional_import("torchattacks", "an attack of torchattacks", "torchattacks")


def find(class_name: str) -> Attack:
    """An attack of torchattacks; `relative_parameters` are keywords given as multiples of eps, e.g. `alpha`.

    It is given whole work units, since it draws its noise for the batch; one without a radius runs once.

    Raises:
        BenchError: unknown or refused class.
    """
    if class_name in REFUSED:
        raise BenchError(f"torchattacks' {class_name} is not accepted: {REFUSED[class_name]}.")
    module = import_torchattacks()
    known = {name for name, value in vars(module).items() if inspect.isclass(value)} - set(REFUSED)
    if class_name not in known:
        raise unknown_name(class_name, known, "torchattacks attack")
    parameters = keywords_of(getattr(module, class_name).__init__, 2, {"eps"})
    takes_eps = "eps" in inspect.signature(getattr(module, class_name)).parameters
    if takes_eps:
        names = Literal[tuple(parameters)]  # type: ignore[valid-type]
        parameters["relative_parameters"] = Keyword(dict[names, float], {})  # type: ignore[valid-type]
    return described(
        partial(_run, class_name, takes_eps), f"torchattacks:{class_name}", norms=(),
        kind="fixed" if takes_eps else "minimum", parameters=parameters, keyed=False, whole_units=True,
    )  # fmt: skip


def _run(
    class_name: str, takes_eps: bool, model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor,
    relative_parameters: dict[str, float] | None = None, **parameters: Any,
) -> AttackResult:  # fmt: skip
    radius = float(eps[0])
    relative = {name: factor * radius for name, factor in (relative_parameters or {}).items()}
    own = {"eps": radius} if takes_eps else {}
    # a keyword given twice, by itself and relative to eps, is an error of this call
    attack = getattr(import_torchattacks(), class_name)(model, **own, **parameters, **relative)
    return AttackResult(attack(images, labels))
