"""Nothing counts before it is verified: inside the ball, inside [0, 1], misclassified by the plain float32 model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.attacks.losses import answers
from bench.attacks.norms import distance, exact_distances, per_example
from bench.core.devices import exact
from bench.core.precision import float32_products
from bench.core.threat import NORMS, Norm

RELATIVE_TOLERANCE = 1e-6
"""An adversarial example of distance d counts at radius eps when d <= eps * (1 + RELATIVE_TOLERANCE)."""
_ROUNDING = 1e-3
"""How far, in 255ths, float32 may put a pixel from the 255th that it is."""


@dataclass(slots=True)
class AttackResults:
    """The smallest verified adversarial perturbation found for each example, in each norm.

    Attributes:
        distances: norm -> (N,) float64, infinity where none was found, 0 where the clean image is misclassified.
        predictions: norm -> (N,) int64, what the model says of that adversarial example; -1 where none was found, or
            where it says NaN or infinity.
        found_in: norm -> (N,) int64, the index in NORMS of the norm whose attack found it; -1 where none.
        claims: how many adversarial examples attacks have claimed.
        rejected: how many of the claims did not verify.
        outside: how many of the rejected lay outside of the ball that they were claimed for.
        gradient_evaluations: how many image gradients the attacks have taken.
        queries: how many images else the attacks have put through the model, where that is counted.
        bad_gradients: how many of them were NaN or infinite somewhere; those entries were taken as 0.
        images: norm -> (N, C, H, W) float32 on the CPU, the adversarial examples themselves where `found_in` says that
            there is one; empty where they are not kept.
    """

    distances: dict[Norm, Tensor]
    predictions: dict[Norm, Tensor]
    found_in: dict[Norm, Tensor]
    claims: int = 0
    rejected: int = 0
    outside: int = 0
    gradient_evaluations: int = 0
    queries: int = 0
    bad_gradients: int = 0
    images: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, clean_predictions: Tensor, labels: Tensor, keep: Tensor | None = None) -> AttackResults:
        """Results in which the examples that are misclassified without any attack are broken at distance 0.

        Args:
            keep: the clean images (N, C, H, W), where adversarial ones are to be kept.
        """
        wrong = clean_predictions != labels
        distances = torch.full(labels.shape, torch.inf, dtype=torch.float64).masked_fill_(wrong, 0.0)
        predictions = torch.where(wrong, clean_predictions, -1)
        results = cls(
            {norm: distances.clone() for norm in NORMS},
            {norm: predictions.clone() for norm in NORMS},
            {norm: torch.full_like(labels, -1) for norm in NORMS},
        )
        if keep is not None:
            results.keep_images(keep)
        return results

    def keep_images(self, clean: Tensor, norms: Sequence[Norm] = NORMS) -> None:
        """Keep what is found in these norms, where nothing has been found yet; `clean` (N, C, H, W) are its likes."""
        self.images = self.images or {norm: torch.zeros(clean.shape) for norm in norms}

    def counters(self) -> dict[str, int]:
        """What the attacks took, as a work unit reports it."""
        broken_by_no_number = [self.distances[norm].isfinite() & (self.predictions[norm] == -1) for norm in NORMS]
        unanswered = torch.stack(broken_by_no_number).any(0)
        return {
            "gradient_evaluations": self.gradient_evaluations,
            "queries": self.queries,
            "claims": self.claims,
            "rejected_claims": self.rejected,
            "outside_claims": self.outside,
            "bad_gradients": self.bad_gradients,
            "non_finite_logits": int(unanswered.sum()),
        }

    def broken(self, norm: Norm, eps: float) -> Tensor:
        """(N,) bool: a verified adversarial example lies within the ball. Monotone in eps by construction."""
        return self.distances[norm] <= eps * (1.0 + RELATIVE_TOLERANCE)

    def judge(
        self,
        model: nn.Module,
        images: Tensor,
        clean: Tensor,
        labels: Tensor,
        eps: Tensor,
        norm: Norm,
        examples: Tensor,
        claimed: Tensor | None = None,
    ) -> Tensor:
        """Verify claims, as `verify` does, count them, and record what holds, the first of each example.

        Args:
            examples: (n,) what the images are claims about, as indices of these results.
            claimed: (n,) bool, which of the images are claims; None for all.

        Returns:
            (n,) bool: which claims hold.
        """
        verified, distances, predictions = verify(model, images, clean, labels, eps=eps, norm=norm)
        if claimed is not None:
            verified &= claimed.to(verified.device)
        count = len(images) if claimed is None else int(claimed.sum())
        chosen = verified.nonzero().squeeze(1)
        self.claims += count
        self.rejected += count - len(chosen)
        chosen = first_of_each(examples.to(chosen.device), chosen)
        measured = {other: values[chosen] for other, values in distances.items()}
        rows = chosen.to(images.device)
        found = pull_inside(images[rows], clean[rows], eps[chosen.to(eps.device)], norm) if self.images else None
        self.record(examples.to(chosen.device)[chosen].cpu(), norm, measured, predictions[chosen], images=found)
        return verified.to(images.device)

    def record(
        self, examples: Tensor, norm: Norm, distances: dict[Norm, Tensor], predictions: Tensor, *,
        images: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Enter verified adversarial examples, each into the balls of every norm. `examples` are unique indices."""
        found_in = torch.full_like(examples, NORMS.index(norm))
        images = None if images is None else images.cpu()
        for other in NORMS:
            self._improve(other, examples, distances[other].cpu(), predictions.cpu(), found_in=found_in, images=images)

    def add(self, others: AttackResults, examples: Tensor) -> None:
        """Enter what others found about `examples` (n,), which is what they are about, and what it took."""
        for norm in NORMS:
            self._improve(
                norm, examples, others.distances[norm], others.predictions[norm], found_in=others.found_in[norm],
                images=others.images.get(norm),
            )  # fmt: skip
        for name in COSTS:
            setattr(self, name, getattr(self, name) + getattr(others, name))

    def _improve(
        self, norm: Norm, examples: Tensor, distances: Tensor, predictions: Tensor, *, found_in: Tensor,
        images: Tensor | None,
    ) -> None:  # fmt: skip
        better = distances < self.distances[norm][examples]
        chosen = examples[better]
        self.distances[norm][chosen] = distances[better]
        self.predictions[norm][chosen] = predictions[better]
        self.found_in[norm][chosen] = found_in[better]
        if norm in self.images and images is not None:
            self.images[norm][chosen] = images[better]


COSTS = ("claims", "rejected", "outside", "gradient_evaluations", "queries", "bad_gradients")


def first_of_each(examples: Tensor, chosen: Tensor) -> Tensor:
    """Of the rows `chosen` (m,) the first of each example; examples: (n,)."""
    unique, place = torch.unique(examples[chosen], return_inverse=True)
    first = torch.full_like(unique, len(chosen))
    first.scatter_reduce_(0, place, torch.arange(len(chosen), device=place.device), "amin")
    return chosen[first]


def pull_inside(images: Tensor, clean: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """Repair rounding: clip to [0, 1] and pull what oversteps the ball back into it, in float64; float32 out.

    An attack that computes in float32 oversteps its ball by some 1e-8 a pixel; without this, such points would be
    thrown away and the model would look more robust than it is. Points far outside are pulled in too, and then have to
    fool the model from there. L-inf clips each pixel, L2 and L1 shrink the perturbation; the result is rounded towards
    the clean image, so that no pixel's perturbation grows.
    """
    inside = images.clamp(0.0, 1.0)
    origin = exact(clean)
    delta = exact(inside) - origin
    length = distance(delta, norm)
    radius = exact(eps)
    if norm == "linf":
        bound = per_example(radius, delta)
        pulled = torch.minimum(torch.maximum(delta, -bound), bound)
    else:
        pulled = delta * per_example((radius / length.clamp_min(1e-300)).clamp_max(1.0), delta)
    rounded = (origin + pulled).float()
    grown = (rounded.double() - origin).abs() > pulled.abs()
    rounded = torch.where(grown, torch.nextafter(rounded, clean.to(rounded.device)), rounded)
    return torch.where(per_example((length > radius).to(images.device), inside), rounded.to(images.device), inside)


def round_inside(images: Tensor, clean: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """The images in whole 255ths, as files of pictures hold them, (N, C, H, W) float32.

    A pixel becomes the nearest 255th; where the image would so leave its ball, the nearest towards the clean image.
    """
    found, base = 255.0 * exact(images), 255.0 * exact(clean)
    nearest, radius = found.round(), exact(eps) * (1.0 + RELATIVE_TOLERANCE)
    inward = torch.where(found > base, found.floor(), found.ceil())
    inward = torch.where((found - nearest).abs() < _ROUNDING, nearest, inward)
    if norm == "linf":  # pixel by pixel
        nearest = torch.where((nearest - base).abs() <= 255.0 * per_example(radius, found), nearest, inward)
    outside = distance((nearest - base) / 255.0, norm) > radius
    rounded = torch.where(per_example(outside, found), inward, nearest)
    return rounded.clamp(0.0, 255.0).float().div_(255.0).to(images.device)


def verify(
    model: nn.Module, images: Tensor, clean: Tensor, labels: Tensor, eps: Tensor, norm: Norm
) -> tuple[Tensor, dict[Norm, Tensor], Tensor]:
    """Judge claimed adversarial examples by the plain model.

    Args:
        images: (N, C, H, W) claimed adversarial examples.
        eps: (N,) radii they claim to keep.

    Returns:
        verified (N,) bool, exact distances in every norm of the repaired images, and their predictions (N,), -1 where
        a logit is NaN or infinite: such an answer is as wrong as any. All three lie where `exact` leaves values.
    """
    repaired = pull_inside(images, clean, eps, norm)
    with torch.no_grad(), float32_products():
        predictions = answers(model(repaired))
    distances = exact_distances(repaired, clean)
    inside_ball = distances[norm] <= exact(eps) * (1.0 + RELATIVE_TOLERANCE)
    inside_box = ((repaired >= 0.0) & (repaired <= 1.0)).flatten(1).all(1)
    fooled = ((predictions != labels) & inside_box).to(inside_ball.device)
    return fooled & inside_ball, distances, predictions.to(inside_ball.device)
