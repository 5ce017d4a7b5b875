"""The contract of an attack, and how a name becomes one: ours, another library's, a plug-in's, a file of the user's.

An attack is a function `attack(model, images, labels, *, norm, eps, ids, seed, ...) -> AttackResult`:

    model: images (N, C, H, W) in [0, 1] -> logits (N, K), in eval mode, parameters without gradient
    images: (N, C, H, W) float32 in [0, 1] on the model's device; labels: (N,) int64 beside them
    norm: `linf`, `l2` or `l1`; eps: (N,) float64 (float32 on a device without it), the radius of each example, in
        pixels of [0, 1]
    ids: (N,) int64 key random numbers, together with `seed`, so that no example depends on its neighbours

It takes what it needs of these, and of `batch_size` (images that fit the device's memory at once), `precision` (of the
search, see bench.core.precision) and `on_progress` (called with the number of examples newly decided). Further
keywords are its parameters, which a suite may give. Its kind says when it is called and what its images mean:

    fixed: at one radius, for what stands there; images within eps
    minimum: once, for what stands at the smallest radius; images as near as can be, eps is the largest radius
    curve: once; `radii` (R,) float64, falling, come too; images (R, N, C, H, W), one for each radius. Ours take
        `results` (bench.attacks.verification.AttackResults), have claims judged as they go, and return no images.

Whatever it returns is verified by bench.attacks.running.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

from torch import Tensor

from bench.attacks.user_files import UserFile, load_function, named_function
from bench.core.errors import BenchError
from bench.core.keywords import Keyword, checked_keywords, keywords_of
from bench.core.names import unknown_name
from bench.core.packages import load_plugin, plugin_names
from bench.core.threat import NORMS

Kind = Literal["fixed", "minimum", "curve"]
LIBRARIES = ("torchattacks", "foolbox", "pyautoattack")
"""Modules of bench.attacks.adapters; `LIBRARY:NAME` is one of the library's attacks."""
GROUP = "bench.attacks"
OFFERED = ("norm", "eps", "ids", "seed", "batch_size", "precision", "on_progress", "radii", "results")
_MARK = "__bench_attack__"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class AttackResult:
    """What an attack found.

    Attributes:
        images: (N, C, H, W) perturbed images, adversarial or not; (R, N, C, H, W) of a curve; None where all were
            judged as the attack went.
        gradients: images whose gradient was taken; None lets the model count them, and so with `queries`, the images
            that only went through the model.
    """

    images: Tensor | None
    gradients: int | None = None
    queries: int | None = None


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack by name.

    Attributes:
        norms: those it works in; `l0` counts changed values. Empty where it does not say, so that the suite has to.
        takes: which of OFFERED it is called with.
        parameters: what a suite may give besides.
        needs_gradients: it has nothing to say of a net without gradients; ours alone say so.
        trusted: ours or a known library's; what others' raise or return wrong is told in their name.
        keyed: its random numbers come from `seed` and `ids`; other attacks get torch's generators seeded.
        whole_units: it is given all examples of a work unit, since it draws its numbers for the batch as a whole.
        require: raises BenchError where a package that it needs, and that is an extra, is not installed.
    """

    name: str
    function: Callable[..., AttackResult | Tensor]
    norms: tuple[str, ...]
    kind: Kind
    takes: frozenset[str]
    parameters: Mapping[str, Keyword]
    needs_gradients: bool = False
    trusted: bool = True
    keyed: bool = True
    whole_units: bool = False
    require: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class NamedAttack:
    """An attack with its keywords, checked, and the name of its rows."""

    attack: Attack
    name: str
    keywords: Mapping[str, Any]


def register_attack(
    name: str,
    *,
    norms: tuple[str, ...] = NORMS,
    kind: Kind = "fixed",
    needs_gradients: bool = False,
    keyed: bool = True,
    require: Callable[[], object] | None = None,
) -> Callable[[_Function], _Function]:
    """Give a function a name by which suites can call it, and say what it does: see `Attack`."""
    facts = {
        "name": name, "norms": norms, "kind": kind, "needs_gradients": needs_gradients, "keyed": keyed,
        "require": require,
    }  # fmt: skip

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, facts)
        return function

    return mark


@lru_cache(maxsize=256)
def find_attack(name: str, file: UserFile | None = None) -> Attack:
    """The attack of a name: ours, `LIBRARY:NAME`, a plug-in's, or `FILE.py:FUNCTION`.

    Args:
        file: the file of the user's; only what the user has named is opened.

    Raises:
        BenchError: unknown, not installed, or not to be loaded.
    """
    ours = our_attacks()
    if name in ours:
        return ours[name]
    library, _, inner = name.partition(":")
    if library in LIBRARIES:
        module = importlib.import_module(f"bench.attacks.adapters.{library}")
        return typing.cast(Attack, module.find(inner))
    function = named_function(name)
    if function is not None:
        return attack_of(load_function(name, *function, file), name)
    if name in plugin_names(GROUP):
        return attack_of(load_plugin(GROUP, name), name)
    known = [*ours, *plugin_names(GROUP), *(f"{one}:NAME" for one in LIBRARIES), "FILE.py:FUNCTION"]
    raise unknown_name(name, known, "attack")


def named_attack(
    attack: str, keywords: Mapping[str, Any], name: str | None = None, file: UserFile | None = None
) -> NamedAttack:
    """An attack by name with keywords; raises BenchError. `file` is as in `find_attack`."""
    found = find_attack(attack, file)
    return NamedAttack(found, name or attack, checked_keywords(f"attack {found.name}", found.parameters, keywords))


@lru_cache
def our_attacks() -> dict[str, Attack]:
    """The attacks of this package, by name."""
    import bench.attacks

    names = [module.name for module in pkgutil.walk_packages(bench.attacks.__path__, "bench.attacks.")]
    functions = [
        one for name in names for one in vars(importlib.import_module(name)).values() if inspect.isfunction(one)
    ]
    attacks = [described(one, **getattr(one, _MARK)) for one in functions if hasattr(one, _MARK)]
    return {attack.name: attack for attack in attacks}


def described(function: Callable[..., Any], name: str, **facts: Any) -> Attack:
    """The attack that a function is, by its signature; `facts` are fields of `Attack`."""
    signature = inspect.signature(function).parameters
    facts = {"norms": NORMS, "kind": "fixed"} | facts
    facts.setdefault("parameters", keywords_of(function, 3, OFFERED))
    return Attack(name=name, function=function, takes=frozenset(OFFERED) & signature.keys(), **facts)


def attack_of(found: object, name: str) -> Attack:
    """The attack that a function of others is, as it was registered, if it was; raises BenchError if it is none."""
    if not callable(found):
        raise BenchError(f"attack {name} is a {type(found).__name__}, not a function.")
    try:
        facts = getattr(found, _MARK, {}) | {"name": name, "trusted": False, "keyed": False, "needs_gradients": False}
        attack = described(found, **facts)
    except ValueError as error:
        raise BenchError(f"attack {name} is no function whose parameters can be read ({error}).") from error
    if attack.kind not in typing.get_args(Kind) or not set(attack.norms) <= {*NORMS, "l0"} or not attack.norms:
        raise BenchError(
            f"attack {name} is registered with kind {attack.kind!r} and norms {attack.norms!r}; kinds are "
            f"{', '.join(typing.get_args(Kind))}, norms {', '.join(NORMS)}."
        )
    # judging is not theirs
    return replace(attack, norms=tuple(attack.norms), takes=attack.takes - {"results"})
