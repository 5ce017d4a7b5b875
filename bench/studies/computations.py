"""What a claim needs of the models themselves: gradient stability, the criteria under scaling, the bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.pgd import attacked_model
from bench.attributions.gradients import gradient_maps, true_logit_gradient
from bench.catalog.models import list_models, load_model
from bench.core.devices import exact
from bench.core.keyed_random import keyed_uniform
from bench.data import load_split
from bench.leaderboard.statistics.intervals import NORMAL_QUANTILE, bootstrap
from bench.nets.intake import copy_net
from bench.studies.study import ScaleInvariance
from bench.studies.values import Effect, MissingInputError
from bench.training.measures import noisy_gradients

Array = npt.NDArray[np.float64]
EXAMPLES = 1000
_BATCH_SIZE = 250


class Computations:
    """Effects computed on the first 1,000 test images of a data set; each model's numbers once.

    Models are known by what follows `prefix` in their ids.
    """

    def __init__(
        self,
        dataset: str,
        *,
        registry: Path | None = None,
        data_dir: Path | None = None,
        download: bool = False,
        prefix: str = "",
    ) -> None:
        self.data = data = load_split(dataset, "test", data_dir=data_dir, download=download)
        count = min(EXAMPLES, len(data))
        known = [entry for entry in list_models(dataset, registry) if entry.card.id.startswith(prefix)]
        self.entries = {entry.card.id.removeprefix(prefix): entry for entry in known}
        self.images, self.labels = data.pixels(slice(0, count)), data.labels[:count]
        self._similarities: dict[tuple[str, float], Tensor] = {}
        self._bounds: dict[tuple[str, float], Array] = {}

    def similarities(self, name: str, radius: float) -> Tensor:
        """Cosine between each image's gradient and that of a uniformly perturbed copy; (N,)."""
        key = (name, radius)
        if key not in self._similarities:
            clean, noisy = self._gradients(self._model(name), radius)
            self._similarities[key] = F.cosine_similarity(clean, noisy, eps=1e-30)
        return self._similarities[key]

    def _model(self, name: str) -> nn.Module:
        if name not in self.entries:
            raise MissingInputError(f"model {name} is not in the registry")
        return load_model(self.entries[name])

    def _gradients(self, model: nn.Module, radius: float) -> tuple[Tensor, Tensor]:
        """At the clean and the noisy images; (N, D) each."""
        batches = noisy_gradients(model, self.images, self.labels, torch.arange(len(self.images)), radii=[radius])
        clean, noisy = zip(*((clean, noisy) for clean, (noisy,) in batches), strict=True)
        return torch.cat(clean), torch.cat(noisy)

    def scaling(self, claim: ScaleInvariance) -> Effect:
        """How far the criterion's factor is from the expected one, against a tolerance of 1 %."""
        model = self._model(claim.model)
        scaled = copy_net(model)
        last = [module for module in scaled.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(claim.factor)
            last.bias.mul_(claim.factor)
        before, after = (_criterion(claim.criterion, *self._gradients(net, 4.0)) for net in (model, scaled))
        ratios = (after / before.clamp_min(1e-30)).double().numpy()
        error = np.abs(ratios[before.numpy() > np.quantile(before.numpy(), 0.05)] / claim.expected - 1.0)
        # the identity holds image by image, up to rounding: the effect is the room left under a tolerance of 1 %
        low, median, high = (0.01 - float(np.quantile(error, level)) for level in (0.975, 0.5, 0.025))
        reason = (
            f"last layer times {claim.factor:g}: the {claim.criterion} criterion times {np.median(ratios):.6g}, "
            f"expected {claim.expected:g} (effect: tolerance of 0.01 less the relative error)"
        )
        return Effect(median, low, high, f"{len(error)} images", reason=reason)

    def bound(self, name: str, radius: float) -> Array:
        """LGA's cosine distance, its bound by the Hessian, and what the Hessian does to d, image by image; (3, N).

        With g and g' the gradients at an image and at its copy x + d under uniform noise of `radius` / 255, the
        distance (1 - cos(g, g')) / 2 is at most (|g' - g| / (|g| + |g'|))^2 (Dunkl and Williams 1964). H d is
        g' - g to first order, which makes (|H d| / |g'|)^2 a bound for nets that are smooth enough, and for no ReLU
        net, whose H is 0. Source: LGA, sections 1.5 and 4.6; the paper's own statement could not be recovered.
        """
        key = (name, radius)
        if key not in self._bounds:
            model, ids = self._model(name), torch.arange(len(self.images))
            with attacked_model(model):
                parts = [self._bound(model, part, radius) for part in torch.split(ids, _BATCH_SIZE)]
            self._bounds[key] = torch.cat(parts, 1).double().numpy()
        return self._bounds[key]

    def _bound(self, model: nn.Module, ids: Tensor, radius: float) -> Tensor:
        inputs, labels = self.images[ids].requires_grad_(True), self.labels[ids]
        noise = radius / 255 * (2.0 * keyed_uniform(0, "stability", ids, inputs.shape[1:]) - 1.0)
        noisy = gradient_maps(model, inputs.detach() + noise, labels).flatten(1)
        maps = true_logit_gradient(model(inputs), inputs, labels, differentiable=True)
        (product,) = torch.autograd.grad(maps, inputs, noise, allow_unused=True) if maps.requires_grad else (None,)
        change = torch.zeros(len(ids)) if product is None else product.flatten(1).norm(dim=1)
        clean = maps.detach().flatten(1)
        distance = 0.5 * (1.0 - F.cosine_similarity(exact(clean), exact(noisy), eps=1e-30))
        ratio = change / noisy.norm(dim=1).clamp_min(1e-30)
        return torch.stack([distance, ratio.square().double(), change.double()])


def rank_gain(columns: Array) -> tuple[float, float]:
    """How much higher the first column's rank correlation is with the second than with the third; standard error.

    Args:
        columns: (3, N).
    """
    low, high = bootstrap(lambda drawn: np.array([_gain(part.T) for part in drawn]), columns.T, resamples=200)
    return _gain(columns), float(high - low) / (2 * NORMAL_QUANTILE)


def _gain(columns: Array) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(columns[0], columns[1]).statistic - spearmanr(columns[0], columns[2]).statistic)


def _criterion(name: str, clean: Tensor, noisy: Tensor) -> Tensor:
    """The terms of LGA, section 1.2, per image."""
    if name == "l2":
        return (clean - noisy).square().sum(1)
    return 0.5 * (1.0 - F.cosine_similarity(exact(clean), exact(noisy), eps=1e-30))
