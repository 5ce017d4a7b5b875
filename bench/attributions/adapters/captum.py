"""The one place that knows captum: its attribution methods by class name, `captum:Occlusion`.

captum is imported when a method of it is named and not before. Its parameters have its names and defaults; those that
it takes as tensors are given as numbers (`baselines` a grey level, `feature_mask` the side of square patches), and what
would decide memory is set here, so that the batch bounds it. Random numbers are keyed by example: the noise of
NoiseTunnel and GradientShap is drawn here by captum's formulas, since captum draws it for the batch as a whole, and
methods that draw perturbations get one image at a time, as many perturbations together as the batch has images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attributions.adapters.captum_doubts import OURS, doubt_of, give_rules, hooked_copy
from bench.attributions.layers import find_layer, named_features
from bench.attributions.methods.grad_cam import last_convolution
from bench.attributions.registry import AttributionMethod
from bench.core.bounds import Steps
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_normal, keyed_uniform, stream_key
from bench.core.keywords import Keyword, keywords_of
from bench.core.names import unknown_name
from bench.core.packages import optional_import
from bench.core.torch_state import random_numbers_of
from bench.leaderboard.findings import Finding

CLASSES = (
    "Saliency", "InputXGradient", "IntegratedGradients", "GuidedBackprop", "Deconvolution", "DeepLift", "DeepLiftShap",
    "GradientShap", "GuidedGradCam", "LRP", "Occlusion", "FeatureAblation", "ShapleyValueSampling", "KernelShap",
    "Lime",
)  # fmt: skip
TUNNEL = "NoiseTunnel"
_HOOKING = frozenset({"GuidedBackprop", "Deconvolution", "DeepLift", "DeepLiftShap", "GuidedGradCam", "LRP"})
_DRAWING = frozenset({"ShapleyValueSampling", "KernelShap", "Lime"})
_SET_HERE = (
    "inputs", "target", "additional_forward_args", "return_convergence_delta", "custom_attribution_func", "verbose",
    "show_progress", "internal_batch_size", "perturbations_per_eval", "nt_samples_batch_size", "return_input_shape",
    "draw_baseline_from_distrib", "device_ids", "layer", "interpretable_model", "similarity_func", "perturb_func",
)  # fmt: skip
_Grey = Annotated[float, Field(ge=0, le=1)]
_Window = tuple[Annotated[int, Field(gt=0)], ...]
_GIVEN: dict[str, Keyword] = {
    "baselines": Keyword(Annotated[_Grey, Field(description="grey level of what stands for nothing")], 0.0),
    "feature_mask": Keyword(
        Annotated[int | None, Field(gt=0, description="side of the square patches, over all channels, that are one "
        "feature each; a seventh of the smaller side of the image if not given")], None,
    ),
    "sliding_window_shapes": Keyword(
        Annotated[_Window, Field(description="channels, rows, columns; all channels and a seventh of the "
        "smaller side of the image if not given")], (),
    ),
    "strides": Keyword(Annotated[_Window, Field(description="half of the window if not given")], ()),
    "n_steps": Keyword(Annotated[int, Field(gt=0, le=1000)], 50),
    "n_samples": Keyword(Steps, 25),
    "nt_samples": Keyword(Steps, 5),
    "nt_type": Keyword(Literal["smoothgrad", "smoothgrad_sq", "vargrad"], "smoothgrad"),
    "stdevs": Keyword(Annotated[float, Field(ge=0, le=100, description="of the noise, pixels in [0, 1]")], 1.0),
    "eps": Keyword(Annotated[float, Field(gt=0)], 1e-10),
    "layer": Keyword(Annotated[str, Field(description="name of a module; the last convolution if not given")], ""),
}  # fmt: skip
"""Parameters that are not given as captum takes them, or that need bounds."""
_GREYS = Keyword(
    Annotated[tuple[_Grey, ...], Field(min_length=1, description="grey levels, each as likely")], (0.0, 1.0)
)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is explained: images (N, C, H, W), targets and ids (N,)."""

    model: nn.Module
    images: Tensor
    targets: Tensor
    ids: Tensor
    seed: int

    def at(self, images: Tensor, *stream: object) -> _Batch:
        """Other images of the same examples, with other random numbers."""
        return replace(self, images=images.detach().requires_grad_(True), seed=stream_key(self.seed, *stream))


_Maps = Callable[[_Batch, dict[str, Any]], Tensor]
"""Maps (N, C, H, W) with these parameters."""


def names() -> list[str]:
    """All names, in the order in which the reference shows them; captum is not imported."""
    return [f"captum:{one}" for one in (*CLASSES, TUNNEL, *(f"{TUNNEL}:{one}" for one in CLASSES))]


def find(name: str) -> AttributionMethod:
    """A method of captum: `Occlusion`, `NoiseTunnel:Occlusion`; `NoiseTunnel` alone stands around Saliency.

    Raises:
        BenchError: unknown, or captum cannot be imported.
    """
    if f"captum:{name}" not in names():
        raise unknown_name(f"captum:{name}", names(), "attribution method")
    outer, _, inner = name.partition(":") if name.startswith(TUNNEL) else ("", "", name)
    inner = inner or "Saliency"
    maps: _Maps = partial(_OWN_WAY.get(inner, _whole), inner)
    keywords = _keywords(inner)
    if outer:
        maps, keywords = partial(_tunnel, maps), keywords | _keywords(TUNNEL)
    return AttributionMethod(
        f"captum:{name}", partial(_attribute, maps), frozenset({"ids", "seed"}), keywords, trusted=False,
        look=partial(_look, f"captum:{name}", inner),
    )  # fmt: skip


def _class(name: str) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return getattr(optional_import("captum.attr", "an attribution method of captum", "captum"), name)


def _keywords(class_name: str) -> dict[str, Keyword]:
    """What a suite may give: parameters of captum's class and of its `attribute`, less those that are set here."""
    wanted = _class(class_name)
    found = keywords_of(wanted.__init__, 2, _SET_HERE) | keywords_of(wanted.attribute, 2, _SET_HERE)
    for name in found.keys() & _GIVEN.keys():
        default = found[name].default
        found[name] = replace(_GIVEN[name], default=default) if isinstance(default, int | float) else _GIVEN[name]
    if class_name in ("DeepLiftShap", "GradientShap"):
        found["baselines"] = _GREYS
    if class_name == "GuidedGradCam":
        found["layer"] = _GIVEN["layer"]
    return found


def _look(name: str, class_name: str, model: nn.Module, images: Tensor, **parameters: Any) -> list[Finding]:
    """Where captum is known to be wrong on this net, and which layer it looks at."""
    found = []
    if class_name == "GuidedGradCam" and not parameters.get("layer"):
        layer, _ = last_convolution(model, images, name)
        evidence = f"{name} looks at the last convolution, {layer}"
        found.append(Finding(f"layer_{name}", "note", evidence, "`layer = ...` names another"))
    if doubt := doubt_of(class_name, model, images):
        advice = f"compare {OURS[class_name]}, which has no such fault"
        found.append(Finding(f"doubtful_{name}", "warning", f"{name} is known to be wrong here: {doubt}", advice))
    return found


def _attribute(
    maps: _Maps, model: nn.Module, images: Tensor, targets: Tensor, *, ids: Tensor, seed: int, **parameters: Any
) -> Tensor:
    with warnings.catch_warnings(action="ignore"):  # of hooks, which go on a copy
        return maps(_Batch(model, images, targets, ids, seed=seed), parameters).detach()


def _whole(class_name: str, batch: _Batch, parameters: dict[str, Any]) -> Tensor:
    """captum's own way, the batch at once."""
    wanted, model = _class(class_name), batch.model
    own = keywords_of(wanted.__init__, 2, _SET_HERE)
    built = {name: value for name, value in parameters.items() if name in own}
    called = {name: value for name, value in parameters.items() if name not in own}
    if class_name in _HOOKING:
        model = hooked_copy(model)
    if class_name == "LRP":
        give_rules(model)
    if class_name == "GuidedGradCam":
        built["layer"] = model.get_submodule(_channels_first_layer(batch, called.pop("layer", "")))
    if class_name == "IntegratedGradients":
        called["internal_batch_size"] = len(batch.images)
    found: Tensor = wanted(model, **built).attribute(batch.images, target=batch.targets, **called)
    return found


def _channels_first_layer(batch: _Batch, layer: str) -> str:
    """The full name of the layer; captum takes what comes after its channels for rows and columns."""
    first = batch.images[:1].detach().requires_grad_(True)
    layer = layer or last_convolution(batch.model, first, "captum:GuidedGradCam")[0]
    _, features, to_grid = named_features(batch.model, first, layer, "captum:GuidedGradCam")
    if to_grid(features).shape != features.shape:
        raise BenchError(
            f"captum:GuidedGradCam takes channels-first features only, not those of {layer}; use grad_cam."
        )
    return find_layer(batch.model, layer)


def _patches(class_name: str, batch: _Batch, parameters: dict[str, Any]) -> Tensor:
    """Square patches as features, and a window that slides over them."""
    channels, height, width = batch.images.shape[1:]
    seventh = max(1, min(height, width) // 7)
    given = dict(parameters)
    if class_name == "Occlusion":
        window = given.get("sliding_window_shapes") or (channels, seventh, seventh)
        for name, sizes in (("sliding_window_shapes", window), ("strides", given.get("strides") or window)):
            if len(sizes) != 3:
                raise BenchError(
                    f"captum:Occlusion's {name} are channels, rows and columns; these are {len(sizes)} sizes."
                )
        given["sliding_window_shapes"] = window
        given["strides"] = given.get("strides") or tuple(max(1, one // 2) for one in window)
        return _whole(class_name, batch, given)
    side = given.pop("feature_mask", None) or seventh
    rows, columns = (torch.arange(size, device=batch.images.device) // side for size in (height, width))
    numbers = rows[:, None] * (int(columns[-1]) + 1) + columns
    given["feature_mask"] = numbers.expand(1, channels, -1, -1).contiguous()
    return _one_by_one(class_name, batch, given) if class_name in _DRAWING else _whole(class_name, batch, given)


def _one_by_one(class_name: str, batch: _Batch, parameters: dict[str, Any]) -> Tensor:
    """Each image with random numbers of its own, its perturbations together in batches."""
    found = []
    for row, number in enumerate(batch.ids.tolist()):
        one = slice(row, row + 1)
        alone = replace(batch, images=batch.images[one].detach(), targets=batch.targets[one])
        with random_numbers_of(batch.images.device, batch.seed, class_name, number), torch.no_grad():
            found.append(_whole(class_name, alone, {**parameters, "perturbations_per_eval": len(batch.ids)}))
    return torch.cat(found)


def _deep_lift_shap(class_name: str, batch: _Batch, parameters: dict[str, Any]) -> Tensor:  # noqa: ARG001
    """The mean of DeepLIFT's maps over the baselines, one after the other."""
    greys = parameters.get("baselines", _GREYS.default)
    others = {name: value for name, value in parameters.items() if name != "baselines"}
    maps = [_whole("DeepLift", batch.at(batch.images), {**others, "baselines": grey}) for grey in greys]
    return torch.stack(maps).mean(0)


def _gradient_shap(class_name: str, batch: _Batch, parameters: dict[str, Any]) -> Tensor:
    """Gradients at random points between a noisy image and a baseline, times their difference."""
    n_samples: int = parameters.get("n_samples", 5)
    stdevs: float = parameters.get("stdevs", 0.0)
    greys = batch.images.new_tensor(parameters.get("baselines", _GREYS.default))
    total = torch.zeros_like(batch.images)
    for sample in range(n_samples):
        key = torch.full_like(batch.ids, sample)
        noisy = _noisy(batch, stdevs, class_name, key)
        where, which = keyed_uniform(batch.seed, class_name, batch.ids, (2, 1, 1, 1), extra=key).to(noisy).unbind(1)
        baseline = greys[(which * len(greys)).long()]
        slope = _whole("Saliency", batch.at(torch.lerp(baseline, noisy, where)), {"abs": False})
        total += slope * (noisy - baseline) if parameters.get("multiply_by_inputs", True) else slope
    return total / n_samples


def _noisy(batch: _Batch, stdevs: float, stream: str, key: Tensor) -> Tensor:
    noise = keyed_normal(batch.seed, stream, batch.ids, batch.images.shape[1:], extra=key)
    return batch.images.detach() + stdevs * noise.to(batch.images)


def _tunnel(maps: _Maps, batch: _Batch, parameters: dict[str, Any]) -> Tensor:
    """The mean map of noisy images, the mean of its squares, or the maps' variance."""
    given = dict(parameters)
    nt_samples: int = given.pop("nt_samples", 5)
    stdevs, nt_type = given.pop("stdevs", 1.0), given.pop("nt_type", "smoothgrad")
    total, squares = torch.zeros_like(batch.images), torch.zeros_like(batch.images)
    for sample in range(nt_samples):
        noisy = _noisy(batch, stdevs, TUNNEL, torch.full_like(batch.ids, sample))
        found = maps(batch.at(noisy, TUNNEL, sample), given)
        total, squares = total + found.detach(), squares + found.detach().square()
    mean, square = total / nt_samples, squares / nt_samples
    return {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean.square()}[nt_type]


_OWN_WAY: dict[str, Callable[[str, _Batch, dict[str, Any]], Tensor]] = {
    **dict.fromkeys((*_DRAWING, "Occlusion", "FeatureAblation"), _patches),
    "DeepLiftShap": _deep_lift_shap,
    "GradientShap": _gradient_shap,
}
