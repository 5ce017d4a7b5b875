"""What a claim needs of the models themselves: gradient stability, the criteria under scaling, the bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.catalog.models import list_models, load_model
from bench.data import load_split
from bench.leaderboard.statistics.intervals import bootstrap
from bench.nets.intake import copy_net
from bench.studies.study import Bound, ScaleInvariance
from bench.studies.values import Effect, MissingInputError
from bench.training.measures import noisy_gradients

Array = npt.NDArray[np.float64]
EXAMPLES = 1000


class Computations:
    """Effects computed on the first 1,000 test images of a data set; each model's numbers once."""

    def __init__(
        self, dataset: str, *, registry: Path | None = None, data_dir: Path | None = None, download: bool = False
    ) -> None:
        data = load_split(dataset, "test", data_dir=data_dir, download=download)
        count = min(EXAMPLES, len(data))
        self.entries = {entry.card.id: entry for entry in list_models(dataset, registry)}
        self.images, self.labels = data.pixels(slice(0, count)), data.labels[:count]
        self._similarities: dict[tuple[str, float], Tensor] = {}

    def __call__(self, claim: ScaleInvariance | Bound) -> Effect:
        return self._scaling(claim) if isinstance(claim, ScaleInvariance) else self._bound(claim)

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

    def _scaling(self, claim: ScaleInvariance) -> Effect:
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

    def _bound(self, claim: Bound) -> Effect:
        """Rank correlation of the cosine distance with the bound's ratio, less that with the change's norm alone."""
        clean, noisy = self._gradients(self._model(claim.model), claim.radius)
        change = (noisy - clean).norm(dim=1)
        ratio = change / (clean.norm(dim=1) + noisy.norm(dim=1)).clamp_min(1e-30)
        distance = 0.5 * (1.0 - F.cosine_similarity(clean, noisy, eps=1e-30))
        holds = float((distance <= ratio.square() + 1e-6).float().mean())
        columns = np.stack([value.double().numpy() for value in (distance, ratio, change)])
        low, high = bootstrap(lambda drawn: np.array([_gain(part.T) for part in drawn]), columns.T, resamples=200)
        value = _gain(columns)
        if holds < 1.0:  # a theorem: then something is wrong, and the claim must not pass
            value, low, high = -1.0, -1.0, -1.0
        reason = (
            f"cosine distance at most (|change| / (|g| + |g'|))^2 on {100 * holds:.1f} % of the images; effect: its "
            "rank correlation with that ratio less the one with |change| alone"
        )
        return Effect(float(value), float(low), float(high), f"{columns.shape[1]} images", reason=reason)


def _gain(columns: Array) -> float:
    from scipy.stats import spearmanr

    with_ratio = spearmanr(columns[0], columns[1]).statistic
    return float(with_ratio - spearmanr(columns[0], columns[2]).statistic)


def _criterion(name: str, clean: Tensor, noisy: Tensor) -> Tensor:
    """The terms of LGA, section 1.2, per image."""
    if name == "l2":
        return (clean - noisy).square().sum(1)
    return 0.5 * (1.0 - F.cosine_similarity(clean.double(), noisy.double(), eps=1e-30))
