"""Writes quantus.json, what Quantus 0.6 and captum say of the inputs of quantus_inputs.py; no test needs Quantus.

In an environment of its own: `pip install quantus==0.6.0 captum torch`, then from the repository's root
`PYTHONPATH=. python tests/attributions/quality/make_quantus_values.py`.
"""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.attributions.quality import quantus_inputs as given

quantus: Any = importlib.import_module("quantus")
ROOT = Path(__file__).parent


def gradients(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
    images = torch.as_tensor(inputs).float().requires_grad_(True)
    picked = model(images).gather(1, torch.as_tensor(targets)[:, None].long()).sum()
    return torch.autograd.grad(picked, images)[0].numpy()


class InTurn:
    """A perturbation that gives out prepared copies, one a call."""

    def __init__(self) -> None:
        self.copies = iter(given.perturbed())

    def __call__(self, arr: Any, **_: Any) -> Any:
        return next(self.copies).numpy().reshape(arr.shape)


def captum_infidelity(x: Any, y: Any) -> Any:
    """Of the gradient, at its best scale."""
    images, copies = torch.as_tensor(x), iter(given.perturbed())

    def perturb(inputs: Any) -> Any:
        copy = next(copies)
        return inputs - copy, copy

    maps = torch.as_tensor(gradients(given.net(), x, y))
    return importlib.import_module("captum.metrics").infidelity(
        given.net(), perturb, images, maps, target=torch.as_tensor(y), n_perturb_samples=given.DRAWS,
        max_examples_per_batch=given.COUNT, normalize=True,
    )  # fmt: skip


def values() -> dict[str, Any]:
    x, y, a = given.images().numpy(), given.labels().numpy(), given.maps().numpy()
    common = {"model": given.net(), "x_batch": x, "y_batch": y, "device": "cpu"}
    explained = {**common, "a_batch": gradients(given.net(), x, y), "explain_func": gradients}
    quiet = {"disable_warnings": True, "display_progressbar": False}
    moved = {**quiet, "perturb_func": InTurn, "normalise": False, "nr_samples": given.DRAWS}

    def of(metric: str, keywords: dict[str, Any] | None = None, call: dict[str, Any] | None = None, **own: Any) -> Any:
        keywords = {**quiet, **(keywords or {}), **own}
        if keywords.get("perturb_func") is InTurn:
            keywords["perturb_func"] = InTurn()
        return getattr(quantus, metric)(**keywords)(**{**common, "a_batch": np.abs(a), **(call or {})})

    masks = {"s_batch": given.inside().numpy()[:, None]}
    alone = np.abs(a) / np.abs(a).max((1, 2, 3), keepdims=True)  # Quantus divides by the batch's largest value
    dead = np.abs(a)
    dead[:, :, 0, 0] = 0.0
    shares = [100 * share for share in given.SHARES]
    infidelity = {"perturb_func": InTurn, "perturb_patch_sizes": [4], "n_perturb_samples": 1}
    empty = a.copy()
    empty[:3] = 0.0
    return {
        "sparseness": of("Sparseness"),
        "entropy": of("Complexity"),
        "effective_complexity": of("EffectiveComplexity", call={"a_batch": alone}, eps=0.01),
        "histogram_entropy": [quantus.functions.complexity_func.discrete_entropy(one_map, one_map) for one_map in a],
        "infidelity": of("Infidelity", infidelity, {"a_batch": a}),
        "captum_infidelity": captum_infidelity(x, y),
        "max_sensitivity": of("MaxSensitivity", moved, explained),
        "local_lipschitz": of("LocalLipschitzEstimate", moved, explained),
        "imputed": [
            quantus.noisy_linear_imputation(x[row], np.argsort(-a[row].ravel())[:40], noise=0.0).ravel().tolist()
            for row in range(2)
        ],
        "road": list(of("ROAD", percentages=shares, noise=0.0, abs=True).values()),
        "sufficiency": of("Sufficiency", threshold=0.9),
        "sufficiency_with_a_pixel_that_is_always_zero": of("Sufficiency", call={"a_batch": dead}, threshold=0.9),
        "deletion": of("PixelFlipping", abs=True, features_in_step=8, perturb_baseline=0.0),
        "pointing_game": of("PointingGame", call=masks, abs=True),
        "pointing_game_with_three_empty_maps": of("PointingGame", call={**masks, "a_batch": empty}, normalise=False),
        "relevance_mass": of("RelevanceMassAccuracy", call=masks, abs=True),
        "top_k_inside": of("TopKIntersection", call=masks, abs=True, k=10),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    content = json.dumps(values(), default=lambda value: np.asarray(value).tolist(), indent=1)
    (ROOT / "quantus.json").write_text(content + "\n")
