"""Four suites on single maps as Quantus 0.6 and captum compute them; see benchmarks/against_quantus.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import captum.attr
import captum.metrics
import numpy as np
import quantus
import torch
from captum.attr._utils import lrp_rules
from torch import Tensor, nn

from bench.attributions.adapters.captum_doubts import give_rules
from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import pixel_ranks
from bench.attributions.quality.controls import controls
from bench.attributions.registry import attribute
from bench.protocols import EvaluationContext, Protocol
from bench.protocols.explanations.base import Batch

STEPS = 16
QUIET = {"disable_warnings": True, "display_progressbar": False}
Values = dict[tuple[str, str], np.ndarray]
"""(metric, subject) -> a number for each image."""


def comparable(metric: str, subject: str) -> bool:
    """Not LRP: captum's alpha-1 rule takes inputs for positive, which normalised pixels are not. Nor where the image
    itself has several largest pixels, of which Quantus counts any as a hit and ours the share inside."""
    return subject != "lrp_epsilon_plus" and (metric, subject) != ("pointing_game", "control_image")


def lrp(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    for module in model.modules():
        rules = {nn.Conv2d: lrp_rules.Alpha1_Beta0_Rule, nn.Linear: lrp_rules.EpsilonRule}
        if type(module) in rules:
            module.rule = rules[type(module)]()
    give_rules(model)
    return captum.attr.LRP(model).attribute(inputs, target=targets)


CAPTUM: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "gradient": lambda model, x, y: captum.attr.Saliency(model).attribute(x, target=y, abs=False),
    "input_x_gradient": lambda model, x, y: captum.attr.InputXGradient(model).attribute(x, target=y),
    "integrated_gradients": lambda model, x, y: captum.attr.IntegratedGradients(model).attribute(
        x, target=y, n_steps=16, internal_batch_size=len(x)
    ),
    "guided_backprop": lambda model, x, y: captum.attr.GuidedBackprop(model).attribute(x, target=y),
    "lrp_epsilon_plus": lrp,
}


class Peers:
    """One suite as Quantus and captum compute it."""

    def __init__(self, protocol: Protocol, plain: nn.Module, context: EvaluationContext, at_once: int) -> None:
        self.protocol, self.context, self.net, self.at_once = protocol, context, plain, at_once
        ids = context.example_ids
        self.images, self.labels = context.images(), context.labels()
        self.batch = Batch(self.images, self.labels, ids, plain(self.images).argmax(1).detach())
        self.names = [method.name for method in protocol.subjects()]
        self.controls = {one.name: one for one in controls(protocol.parameters.attributions[0])}
        self.found: Values = {}
        self.seconds: dict[str, float] = {}

    def explain(self, name: str, model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        """Signed maps (N, C, H, W) of one subject; the controls are ours, the blurred one of captum's map."""
        images = torch.as_tensor(inputs, dtype=torch.float32).detach().clone()
        labels = torch.as_tensor(targets)
        if name in CAPTUM:
            cuts = zip(images.split(self.at_once), labels.split(self.at_once), strict=True)
            return torch.cat([CAPTUM[name](model, x.requires_grad_(True), y).detach() for x, y in cuts]).numpy()
        found = attribute(model, images, labels, self.controls[name], example_ids=self.batch.example_ids)
        return found.detach().numpy()

    def judge(self, metric: str, name: str, maker: Any, **call: Any) -> Any:
        """One metric of Quantus for one subject, timed."""
        began = time.process_time()
        count = len(self.images)
        given = {"x_batch": self.images.numpy(), "y_batch": self.labels.numpy(), "model": self.net, "device": "cpu"}
        found = maker(**{**given, "batch_size": count, "explain_func": partial(self.explain, name), **call})
        self.seconds[metric] = self.seconds.get(metric, 0.0) + time.process_time() - began
        return found

    def keep(self, metric: str, name: str, found: Any) -> None:
        self.found[metric, name] = np.asarray(found, dtype=np.float64).reshape(-1)

    def clean(self, images: Tensor | None = None) -> dict[str, np.ndarray]:
        began = time.process_time()
        images = self.images if images is None else images
        maps = {name: self.explain(name, self.net, images, self.labels) for name in self.names}
        self.seconds["maps"] = self.seconds.get("maps", 0.0) + time.process_time() - began
        return maps


def alone(maps: np.ndarray) -> np.ndarray:
    """Heat maps (N, 1, H, W), each over its own largest value; Quantus would take the batch's."""
    heat = np.abs(maps).sum(1, keepdims=True)
    return heat / np.maximum(heat.max((1, 2, 3), keepdims=True), 1e-30)


def ranks(maps: np.ndarray) -> np.ndarray:
    """(N, 1, H, W), largest for the most important pixel, without ties."""
    places = pixel_ranks(heat_maps(torch.from_numpy(maps)), torch.arange(len(maps)))
    return (places[0].numel() - places).double().numpy()[:, None]


def complexity(peers: Peers, prepared: dict[str, Any]) -> None:
    plain = {**QUIET, "normalise": False}
    metrics = {
        "sparseness": quantus.Sparseness(**plain), "entropy": quantus.Complexity(**plain),
        "effective_complexity": quantus.EffectiveComplexity(eps=0.01, **plain),
    }  # fmt: skip
    for name, maps in peers.clean().items():
        for metric, maker in metrics.items():
            found = np.asarray(peers.judge(metric, name, maker, a_batch=alone(maps)))
            peers.keep(metric, name, found / 784 if metric == "effective_complexity" else found)


def localisation(peers: Peers, prepared: dict[str, Any]) -> None:
    images, inside = prepared["mosaics"][0], prepared["mosaics"][1].numpy()[:, None]
    plain = {**QUIET, "normalise": False, "abs": False}
    metrics = {
        "pointing_game": quantus.PointingGame(**plain), "relevance_mass": quantus.RelevanceMassAccuracy(**plain),
        "top_k_inside": quantus.TopKIntersection(k=78, **plain),
    }  # fmt: skip
    for name, maps in peers.clean(images).items():
        positive = np.maximum(maps, 0.0)
        for metric, maker in metrics.items():
            given = ranks(positive) if metric == "top_k_inside" else alone(positive)
            call = {"x_batch": images.numpy(), "a_batch": given, "s_batch": inside}
            peers.keep(metric, name, peers.judge(metric, name, maker, **call))


def sanity_checks(peers: Peers, prepared: dict[str, Any]) -> None:
    common = {**QUIET, "normalise": False, "abs": True, "similarity_func": quantus.correlation_spearman}
    for name, maps in peers.clean().items():
        call = {"model": prepared["drawn"]}
        cascade = quantus.MPRT(layer_order="top_down", **common)
        found = peers.judge("cascade", name, cascade, **call, a_batch=np.abs(maps))
        for layer, values in list(found.items())[1:]:
            peers.keep(f"cascade/{'all' if layer == list(found)[-1] else layer}", name, values)
        rise = quantus.EfficientMPRT(
            layer_order="top_down", complexity_func_kwargs={"n_bins": 100}, abs=False, normalise=False, **QUIET
        )
        found = peers.judge("efficient_mprt", name, rise, **call, a_batch=maps)
        peers.keep("efficient_mprt", name, found)
        other = lambda model, inputs, targets, name=name, **_: peers.explain(name, model, inputs, prepared["asked"])  # noqa: E731
        logit = quantus.RandomLogit(num_classes=10, **common)
        call = {"a_batch": np.abs(maps), "explain_func": other}
        peers.keep("random_logit", name, peers.judge("random_logit", name, logit, **call))


class InTurn:
    """A perturbation that gives out prepared copies (N, C, H, W), one a call, from the first again after the last."""

    def __init__(self, copies: Tensor) -> None:
        self.copies, self.calls = copies.numpy(), 0

    def __call__(self, arr: np.ndarray, **_: Any) -> np.ndarray:
        copy = self.copies[self.calls % len(self.copies)]
        self.calls += 1
        return copy.reshape(arr.shape)


def infidelities(peers: Peers, maps: dict[str, np.ndarray], prepared: dict[str, Any]) -> None:
    """Raw by Quantus, which cannot have what a map foretells where the pixel is black: there, and scaled, by captum."""
    copies, images = prepared["blackened"], peers.images
    for name, found in maps.items():
        contributions = name in prepared["contributions"]
        if name in CAPTUM and name != "lrp_epsilon_plus":
            slopes = found / np.where(images.numpy() > 0, images.numpy(), 1.0) if contributions else found
            metric = quantus.Infidelity(
                perturb_func=InTurn(copies), perturb_patch_sizes=[14], n_perturb_samples=len(copies) // 4,
                normalise=False, abs=False, **QUIET,
            )  # fmt: skip
            peers.keep("infidelity_raw", name, peers.judge("infidelity_raw", name, metric, a_batch=slopes))
        elif name in CAPTUM:
            peers.keep("infidelity_raw", name, _captums(peers, "infidelity_raw", found, prepared, contributions))
        scaled = _captums(peers, "infidelity", found, prepared, contributions)
        peers.keep("infidelity", name, scaled / prepared["power"])


def _captums(peers: Peers, metric: str, found: np.ndarray, prepared: dict[str, Any], contributions: bool) -> Tensor:
    copies, turns, began = prepared["blackened"], iter(range(len(prepared["blackened"]))), time.process_time()

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        turn = next(turns)
        return (prepared["inside"][turn] if contributions else inputs - copies[turn]), copies[turn]

    raw = captum.metrics.infidelity(
        peers.net, perturb, peers.images, torch.from_numpy(found), target=peers.labels, n_perturb_samples=len(copies),
        max_examples_per_batch=len(found), normalize=metric == "infidelity",
    )  # fmt: skip
    peers.seconds[metric] = peers.seconds.get(metric, 0.0) + time.process_time() - began
    return raw.detach()


def removals(peers: Peers, maps: dict[str, np.ndarray], prepared: dict[str, Any]) -> None:
    """ROAD and the two curves, which look at the order of pixels alone."""
    noise, road = prepared["noise"].numpy(), peers.protocol.parameters.road
    ground = float(prepared["ground"])
    for name, found in maps.items():
        most = ranks(found)
        orders = {
            "road": most,
            "deletion": most,
            "road_least": most.max() + 1 - most,
            "insertion": most.max() + 1 - most,
        }
        for metric in ("road", "road_least"):
            turns = iter(range(len(road.shares) * len(noise)))

            def impute(arr: np.ndarray, indices: np.ndarray, turns: Any = turns, **_: Any) -> np.ndarray:
                filled = quantus.noisy_linear_imputation(arr, indices, noise=0.0)
                filled.reshape(len(arr), -1)[:, indices] += noise[next(turns) % len(noise)].reshape(len(arr), -1)[
                    :, indices
                ]
                return np.clip(filled, 0.0, 1.0).astype(np.float32)

            maker = quantus.ROAD(
                percentages=[100 * share for share in road.shares], perturb_func=impute, normalise=False, abs=False,
                **QUIET,
            )  # fmt: skip
            shares = peers.judge(metric, name, maker, a_batch=orders[metric])
            peers.keep(metric, name, [np.mean(list(shares.values()))])
        for metric in ("deletion", "insertion"):
            maker = quantus.PixelFlipping(
                features_in_step=784 // STEPS, perturb_baseline=ground, normalise=False, abs=False, **QUIET
            )
            curve = np.asarray(peers.judge(metric, name, maker, a_batch=orders[metric], softmax=True))
            curve = np.concatenate([prepared["clean"][:, None], curve], 1)
            peers.keep(metric, name, np.trapezoid(curve, dx=1 / STEPS, axis=1))


def faithfulness(peers: Peers, prepared: dict[str, Any]) -> None:
    maps = peers.clean()
    infidelities(peers, maps, prepared)
    moved = prepared["moved"]
    for name, found in maps.items():
        common = {"normalise": False, "abs": False, "nr_samples": len(moved), **QUIET}
        call = {"a_batch": found}
        largest = quantus.MaxSensitivity(perturb_func=InTurn(moved), **common)
        peers.keep("max_sensitivity", name, peers.judge("max_sensitivity", name, largest, **call))
        steepest = quantus.LocalLipschitzEstimate(perturb_func=InTurn(moved), **common)
        slopes = np.asarray(peers.judge("local_lipschitz", name, steepest, **call))
        peers.keep("local_lipschitz", name, slopes / np.linalg.norm(found.reshape(len(found), -1), axis=1))
        enough = quantus.Sufficiency(threshold=prepared["near"][name], normalise=False, abs=False, **QUIET)
        share = peers.judge("sufficiency", name, enough, a_batch=alone(found))
        if np.isfinite(prepared["near"][name]).all():  # else a pixel is zero in all maps, and Quantus says 0
            peers.keep("sufficiency", name, share)
    removals(peers, maps, prepared)


SUITES: dict[str, Callable[[Peers, dict[str, Any]], None]] = {
    "complexity_quick": complexity, "localisation_quick": localisation, "sanity_checks_quick": sanity_checks,
    "faithfulness_quick": faithfulness,
}  # fmt: skip
