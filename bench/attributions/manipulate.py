"""Attacking heat maps: one batched loop for every attack, inside an L-inf ball and [0, 1], the prediction kept.

The attack descends on the net itself, or on its softplus twin where it has ReLUs; which iterate is kept is decided on
the net itself. A step of one of our methods does not wait for the device, but for the first where gradients go by rules
(guided back-propagation, LRP): whether the rules' logits are the net's own is then looked at once, and again in each
look at the net itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.attacks.losses import answers
from bench.attacks.norms import distance, per_example
from bench.attacks.verification import RELATIVE_TOLERANCE, pull_inside
from bench.attributions.activations import has_relu, smooth
from bench.attributions.heat_maps import heat_maps, mass_centres
from bench.attributions.manipulations import Goal, MapAttack, RandomSign
from bench.attributions.operations import checked_before
from bench.attributions.registry import AttributionMethod, MapRequest
from bench.attributions.similarity import PreparedMaps
from bench.core.devices import exact
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform

_ADAM_TRAVEL = 4.0
"""Adam's step size is this times eps over the number of steps (LGA, section 4.4)."""
_SIGN_TRAVEL = 4.0
"""The sign attacks' step size is this times eps over the number of steps. Chosen: 2, 4 and 10 were tried at 40 steps
on 60 images of `standard` and `lga`; 2 is weaker, 4 and 10 differ by less than 3 % of the score either way."""


@dataclass(slots=True)
class Manipulated:
    """What an attack found.

    Attributes:
        images: (N, C, H, W) verified: inside the ball (measured in float64) and [0, 1], prediction kept. The clean
            image where nothing verified, or nothing was stronger than it.
        kept: (N,) whether any perturbed image that was looked at kept the prediction.
        rejected_claims: how many claimed images did not verify.
        bad_gradients: how many image gradients were NaN or infinite somewhere; those entries were taken as 0.
        flat_gradients: how many examples never had a gradient other than zero.
    """

    images: Tensor
    kept: Tensor
    gradient_evaluations: int
    claims: int
    rejected_claims: int
    bad_gradients: int
    flat_gradients: int


def manipulate(
    model: nn.Module, request: MapRequest, method: AttributionMethod, attack: MapAttack, goal: Goal, *, eps: float,
    check_every: int,
) -> Manipulated:  # fmt: skip
    """Attack the heat maps of a batch; the model in eval mode, its parameters' gradients off.

    Args:
        goal: made with `make_goal`.
        eps: radius of the L-inf ball, pixels in [0, 1].
        check_every: steps between two looks at the attacked net; the last iterate is always looked at.

    Raises:
        BenchError: the method cannot be differentiated.
    """
    if not method.differentiable:
        raise BenchError(f"{method.name} cannot be differentiated, so it cannot be attacked; attack gradient instead.")
    search = _Search(model, request, method, attack, goal=goal, eps=eps)
    if isinstance(attack, RandomSign):
        search.draw_signs(attack.steps)
    else:
        search.descend(check_every)
    return search.verified()


def make_goal(attack: MapAttack, maps: Tensor, logits: Tensor, donors: Tensor, top_share: float) -> Goal:
    """What `attack` aims at, from clean heat maps (N, H, W), logits (N, K) and other images' heat maps (N, H, W)."""
    top = PreparedMaps(maps, top_share).top
    return Goal(maps, logits, target=attack.target(maps, donors), top=top, centres=mass_centres(maps))


def heat_maps_and_logits(model: nn.Module, request: MapRequest, method: AttributionMethod) -> tuple[Tensor, Tensor]:
    """Heat maps (N, H, W) and logits (N, K) of the request's images, with their graph where it asks for one."""
    maps, logits = method.maps_and_logits(model, request)
    return heat_maps(maps), logits


class _Search:
    """The state of one attack on one batch: where it is, and the best iterate so far."""

    def __init__(
        self,
        model: nn.Module,
        request: MapRequest,
        method: AttributionMethod,
        attack: MapAttack,
        goal: Goal,
        eps: float,
    ) -> None:
        self.model, self.request, self.method = model, request, method
        self.attack, self.goal, self.eps = attack, goal, eps
        self.clean = request.images.detach()
        self.prediction = goal.logits.argmax(1)
        self.low = (self.clean - eps).clamp_min(0.0)
        self.high = (self.clean + eps).clamp_max(1.0)
        self.best = self.clean.clone()
        self.best_score = attack.score(goal.maps, goal)
        self.kept = torch.zeros_like(self.prediction, dtype=torch.bool)
        self.claimed = torch.zeros_like(self.kept)
        self.bad = torch.zeros((), dtype=torch.int64, device=self.clean.device)
        self.moved = torch.zeros_like(self.kept)
        self.evaluations = 0

    def descend(self, check_every: int) -> None:
        """All steps of a gradient attack, with looks at the net itself in between."""
        betas: list[float | None] = list(self.attack.betas())
        if not has_relu(self.model, self.clean[:1]):
            betas = [None] * len(betas)
        step = _STEPS[self.attack.optimizer](self.eps, self.attack.steps)
        current = self.clean
        if self.attack.random_start:
            stream, ids = f"manipulate/{self.attack.kind}", self.request.example_ids
            uniform = keyed_uniform(self.request.seed, stream, ids, current.shape[1:])
            current = torch.lerp(self.low, self.high, uniform)
        for number, beta in enumerate(betas, start=1):
            gradient = self._gradient(current, beta)
            current = torch.minimum(torch.maximum(current - step(gradient, number), self.low), self.high)
            if number % check_every == 0 or number == len(betas):
                self._look(current)

    def draw_signs(self, draws: int) -> None:
        """The control: the first of some random corners of the ball that keeps the prediction."""
        ids = self.request.example_ids
        for draw in range(draws):
            uniform = keyed_uniform(
                self.request.seed, "random_sign", ids, self.clean.shape[1:], extra=torch.full_like(ids, draw)
            )
            signs = torch.where(uniform < 0.5, -1.0, 1.0)
            candidate = torch.minimum(torch.maximum(self.clean + self.eps * signs, self.low), self.high)
            with torch.no_grad():
                keeps = answers(self.model(candidate)) == self.prediction
            self._take(candidate, keeps & ~self.kept)
            self.kept |= keeps
            self.moved |= True

    def verified(self) -> Manipulated:
        """The best images, repaired, and put back to the clean ones where they do not verify."""
        eps = torch.full((len(self.clean),), self.eps, device=self.clean.device)
        repaired = pull_inside(self.best, self.clean, eps, "linf")
        with torch.no_grad():
            keeps = answers(self.model(repaired)) == self.prediction
        length = distance(exact(repaired) - exact(self.clean), "linf")
        inside = (length <= self.eps * (1 + RELATIVE_TOLERANCE)).to(keeps.device)
        box = ((repaired >= 0.0) & (repaired <= 1.0)).flatten(1).all(1)
        good = keeps & inside & box
        return Manipulated(
            images=torch.where(per_example(good, repaired), repaired, self.clean),
            kept=self.kept,
            gradient_evaluations=self.evaluations,
            claims=int(self.claimed.sum()),
            rejected_claims=int((self.claimed & ~good).sum()),
            bad_gradients=int(self.bad),
            flat_gradients=int((~self.moved).sum()),
        )

    def _gradient(self, images: Tensor, beta: float | None) -> Tensor:
        """d loss / d image, by double back-propagation through the (twin's) map."""
        current = images.detach().requires_grad_(True)
        request = replace(self.request, images=current, keep_graph=True)
        with torch.enable_grad():
            with smooth(beta), checked_before(self.evaluations > 0):
                maps, logits = heat_maps_and_logits(self.model, request, self.method)
            loss = self.attack.loss(maps, logits, self.goal).sum()
            if not loss.requires_grad:  # a net that is linear: its map does not depend on the image
                return torch.zeros_like(images)
            (gradient,) = torch.autograd.grad(loss, current, materialize_grads=True)
        self.evaluations += 2 * len(images)
        finite = gradient.flatten(1).sum(1).isfinite()
        self.bad += (~finite).sum()
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        self.moved |= gradient.flatten(1).abs().amax(1) > 0
        return gradient

    def _look(self, candidate: Tensor) -> None:
        """Keep the candidates that are stronger on the net itself than anything before, and keep the prediction."""
        maps, logits = heat_maps_and_logits(self.model, replace(self.request, images=candidate), self.method)
        self.evaluations += len(candidate)
        score = self.attack.score(maps.detach(), self.goal)
        keeps = answers(logits.detach()) == self.prediction
        better = keeps & (score < self.best_score) & maps.detach().flatten(1).isfinite().all(1)
        self.kept |= keeps
        self.best_score = torch.where(better, score, self.best_score)
        self._take(candidate, better)

    def _take(self, candidate: Tensor, chosen: Tensor) -> None:
        self.best = torch.lerp(self.best, candidate, per_example(chosen.to(candidate.dtype), candidate))
        self.claimed |= chosen


class _Adam:
    """Adam's step (Kingma and Ba 2015), without weight decay."""

    def __init__(self, eps: float, steps: int) -> None:
        self.size = _ADAM_TRAVEL * eps / steps
        self.mean = self.square = torch.zeros(())

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        if number == 1:
            self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.mean.lerp_(gradient, 0.1)
        self.square.lerp_(gradient.square(), 0.001)
        corrected = self.mean / (1 - 0.9**number)
        return self.size * corrected / ((self.square / (1 - 0.999**number)).sqrt_() + 1e-8)


_STEPS: dict[str, Callable[[float, int], Callable[[Tensor, int], Tensor]]] = {
    "adam": _Adam,
    "sign": lambda eps, steps: lambda gradient, _: _SIGN_TRAVEL * eps / steps * gradient.sign(),
}
