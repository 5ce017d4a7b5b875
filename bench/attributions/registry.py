"""The contract of an attribution method, and how a name becomes one: ours, captum's, a plug-in's, a user's file's.

A method is a function `attribute(model, images, targets, *, ...) -> (N, C, H, W)`:

    model: images (N, C, H, W) in [0, 1] -> logits (N, K), in eval mode, parameters without gradient
    images: (N, C, H, W) float32 in [0, 1] on the model's device; they require gradients
    targets: (N,) int64 beside them, the class whose logit is explained

It takes what it needs of `ids` (N,) int64 and `seed`, which together key random numbers so that no map depends on
other images, and of `keep_graph`, which says that its maps are to be differentiated with respect to `images`. Further
keywords are its parameters, which a suite may give. It returns signed attributions, (N, 1, H, W) where it tells
channels not apart. Only one that is registered as differentiable is attacked itself.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model
from bench.attacks.user_files import UserFile, load_function, named_function
from bench.attributions.foreign import checked_maps
from bench.catalog.programs import parse_program
from bench.core.errors import BenchError, reason_of
from bench.core.keywords import Keyword, checked_keywords, keywords_of
from bench.core.memory import is_out_of_memory
from bench.core.names import select_names, unknown_name
from bench.core.packages import load_plugin, plugin_names
from bench.core.torch_state import twice_differentiable
from bench.leaderboard.findings import Finding

GROUP = "bench.attributions"
CAPTUM = "captum:"
"""`captum:NAME` is one of captum's methods, see bench.attributions.adapters.captum."""
Look = Callable[..., list[Finding]]
"""`look(model, images, **parameters)`: what a reader of the maps should know of the method on this net."""
OFFERED = ("ids", "seed", "keep_graph")
_MARK = "__bench_attribution__"
_Function = TypeVar("_Function", bound=Callable[..., Tensor])


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What is to be explained.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) the class whose logit is explained.
        example_ids: (N,) on the images' device, key the noise of methods that have any.
        keep_graph: maps and logits can be differentiated with respect to `images`, which then require gradients.
    """

    images: Tensor
    labels: Tensor
    example_ids: Tensor
    seed: int = 0
    keep_graph: bool = False


@dataclass(frozen=True, slots=True)
class AttributionMethod:
    """An attribution method with the parameters that it is called with; others have their defaults.

    Attributes:
        takes: which of OFFERED it is called with.
        keywords: what may be given.
        differentiable: its maps can be differentiated with respect to the images, which an attack on them needs.
        signed: whether a map can have values below zero.
        trusted: ours; of others' methods, what they raise or return wrong is told in their name.
        look: see `findings`.
    """

    name: str
    function: Callable[..., Tensor]
    takes: frozenset[str]
    keywords: Mapping[str, Keyword]
    differentiable: bool = False
    signed: bool = True
    trusted: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    look: Look | None = None

    def findings(self, model: nn.Module, images: Tensor) -> list[Finding]:
        """What a reader of the maps should know of this method on this net, looked at with a few images (N, C, H, W).

        The model must be in eval mode with its parameters' gradients off.
        """
        return [] if self.look is None else self.look(model, images, **self.parameters)

    def given(self, /, **parameters: Any) -> AttributionMethod:
        """The method with these parameters; raises BenchError for one that is unknown or out of bounds."""
        return replace(self, parameters=checked_keywords(f"attribution method {self.name}", self.keywords, parameters))

    def maps(self, model: nn.Module, request: MapRequest) -> Tensor:
        """Attributions (N, C, H, W), detached unless the request keeps the graph.

        The model must be in eval mode with its parameters' gradients off; `attribute` sees to that.
        """
        return self._call(model, self._inputs(request), request)

    def maps_and_logits(self, model: nn.Module, request: MapRequest) -> tuple[Tensor, Tensor]:
        """The maps, and logits (N, K) of the images: by the way where the method needs them itself."""
        images, seen = self._inputs(request), []

        def remember(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if given and given[0] is images:
                seen.append(output)

        hook = model.register_forward_hook(remember)
        try:
            maps = self._call(model, images, request)
        finally:
            hook.remove()
        if not seen:
            with torch.set_grad_enabled(request.keep_graph), twice_differentiable(request.keep_graph):
                seen.append(model(request.images))
        return maps, seen[-1]

    def _inputs(self, request: MapRequest) -> Tensor:
        images = request.images if request.images.requires_grad else request.images.detach().requires_grad_(True)
        return images if self.trusted else images.clone()  # others may write into them

    def _call(self, model: nn.Module, images: Tensor, request: MapRequest) -> Tensor:
        offered = {"ids": request.example_ids, "seed": request.seed, "keep_graph": request.keep_graph}
        keywords = {name: value for name, value in offered.items() if name in self.takes} | dict(self.parameters)
        if self.trusted:
            found = self.function(model, images, request.labels, **keywords)
        else:
            found = checked_maps(
                lambda: self.function(model, images, request.labels, **keywords), request.images,
                f"attribution method {self.name}", key=(request.seed, request.example_ids), graph=request.keep_graph,
            )  # fmt: skip
        return found if request.keep_graph else found.detach()


def register_attribution(
    name: str, *, differentiable: bool = False, signed: bool = True, look: Look | None = None
) -> Callable[[_Function], _Function]:
    """Give a function a name by which suites can call it, and say what it does; see this module's docstring."""

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, {"name": name, "differentiable": differentiable, "signed": signed, "look": look})
        return function

    return mark


@lru_cache
def our_methods() -> dict[str, AttributionMethod]:
    """The methods of this package, by name, with their default parameters."""
    from bench.attributions import methods

    modules = dict.fromkeys((*methods.SHOWN_FIRST, *(module.name for module in pkgutil.iter_modules(methods.__path__))))
    every = [one for name in modules for one in vars(importlib.import_module(f"{methods.__name__}.{name}")).values()]
    found = [_described(one, **getattr(one, _MARK)) for one in every if hasattr(one, _MARK)]
    return {method.name: method for method in found}


def find_method(name: str, file: UserFile | None = None) -> AttributionMethod:
    """The method of a name with its default parameters: ours, `captum:NAME`, a plug-in's, or `FILE.py:FUNCTION`.

    Args:
        file: the file of the user's; only what the user has named is opened.

    Raises:
        BenchError: unknown, or not to be loaded.
    """
    ours = our_methods()
    if name in ours:
        return ours[name]
    if name.startswith(CAPTUM):
        found: AttributionMethod = _captum().find(name.removeprefix(CAPTUM))
        return found
    function = named_function(name)
    if function is not None:
        return method_of(load_function(name, *function, file), ":".join(function))
    if name in plugin_names(GROUP):
        return method_of(load_plugin(GROUP, name), name)
    if f"{CAPTUM}{name}" in _captum().names():
        raise BenchError(f"unknown attribution method {name!r}; captum's is called {CAPTUM}{name}.")
    raise unknown_name(name, [*method_names(), f"{CAPTUM}NAME", "FILE.py:FUNCTION"], "attribution method")


def _captum() -> Any:
    return importlib.import_module("bench.attributions.adapters.captum")


def method_of_file(name: str, parameters: Mapping[str, Any]) -> AttributionMethod:
    """A method in a file that the user has not named yet: its name and parameters are known, it cannot be called."""
    label = ":".join(named_function(name) or (name,))
    return AttributionMethod(label, _not_loaded, frozenset(), {}, trusted=False, parameters=parameters)


def _not_loaded(*_: Any) -> Tensor:
    raise RuntimeError("the file of this attribution method is not loaded")


def method_named(name: str) -> AttributionMethod:
    """As `find_method`; the file of a `FILE.py:FUNCTION` is read, since here the user has named it."""
    program = parse_program(name) if named_function(name) else None
    return find_method(name, UserFile.read(program.path) if program is not None else None)


def methods_named(patterns: Sequence[str]) -> list[AttributionMethod]:
    """Methods by names, wildcards or `all` (which leaves captum's out), or FILE.py:FUNCTION, each once.

    Raises:
        BenchError: a pattern matches nothing, or a method cannot be loaded.
    """
    names: list[str] = []
    for pattern in patterns:
        known = _captum().names() if pattern.startswith(CAPTUM) else method_names()
        names += [pattern] if named_function(pattern) else select_names([pattern], known, "attribution method")
    return list({method.name: method for method in map(method_named, names)}.values())


def method_names() -> list[str]:
    """The names of our methods and the plug-ins'."""
    return [*our_methods(), *plugin_names(GROUP)]


def attribute(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: AttributionMethod,
    *,
    example_ids: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Signed attributions of the logit of `labels`, computed in eval mode; the model's own mode is restored.

    Args:
        model: images in [0, 1] in, logits out.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) the class that is explained.
        method: e.g. `find_method("smoothgrad").given(samples=32)`.
        example_ids: (N,) key the noise of methods that have any; 0..N-1 by default.

    Returns:
        (N, C, H, W) on the device of `images`, detached; (N, 1, H, W) for Grad-CAM.

    Raises:
        BenchError: the net does not take these images, has no such class, or the method does not support it.
    """
    ids = torch.arange(len(images)) if example_ids is None else example_ids
    whole, parts = (images, labels, ids.to(images.device)), []
    with attacked_model(model):
        for pixels, truth, keys in zip(*(torch.split(one, batch_size) for one in whole), strict=True):
            try:
                parts.append(method.maps(model, MapRequest(pixels, truth, keys, seed)))
            except (RuntimeError, IndexError) as error:
                if is_out_of_memory(error):
                    raise
                what = f"{method.name} failed on images of shape {tuple(images.shape[1:])}"
                raise BenchError(f"{what}: {reason_of(error)}.") from error
    return torch.cat(parts)


def _described(function: Callable[..., Tensor], name: str, **facts: Any) -> AttributionMethod:
    taken = frozenset(OFFERED) & inspect.signature(function).parameters.keys()
    return AttributionMethod(name, function, taken, keywords_of(function, 3, OFFERED), **facts)


def method_of(found: object, name: str) -> AttributionMethod:
    """The method that a function of others is, as it was registered, if it was; raises BenchError if it is none."""
    if not callable(found):
        raise BenchError(f"attribution method {name} is a {type(found).__name__}, not a function.")
    try:
        return _described(found, **{**getattr(found, _MARK, {}), "name": name}, trusted=False)
    except ValueError as error:
        raise BenchError(f"the parameters of attribution method {name} cannot be read ({error}).") from error
