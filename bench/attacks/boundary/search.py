"""Along the decision boundary to its point nearest the image: refines misclassified images that another attack found.

Every image starts from several points: the one found, towards the class it has and the next ones; the image itself; and
random corners of the ball of the distance found, in L1 instead few pixels that gradients far from the image choose.
Each row takes gradient steps, shorter and shorter, inside a ball that shrinks below the smallest distance found so far
wherever the row is misclassified, and widens towards it elsewhere: an image's rows share the smallest distance, so that
no row looks where another has been nearer. In L1 every other row steps along the whole gradient, of which the ball's
projection leaves few pixels, the rows between move few pixels from the start, and the last steps lead towards the
nearest point of the linearised boundary in the box, which moves each pixel as far as it needs. After a few steps only
an image's most promising rows go on: in which basin a row is shows early. Where a suite says so, values of the nearest
point in L1 are then exchanged for others (bench.attacks.boundary.swaps), and a short walk follows each exchange.

Sources of the parts: the ball that follows the distance, Rony et al., CVPR 2019 (DDN), and Pintor et al., NeurIPS 2021
(FMN); the linearised boundary, Croce and Hein, ICML 2020 (FAB).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.boundary.few_pixels import FAR_POINTS, FarGradients, few_pixels
from bench.attacks.boundary.swaps import exchanged
from bench.attacks.fab.hyperplanes import towards_hyperplane
from bench.attacks.losses import answers, others, targeted_margin, wrong_classes
from bench.attacks.norms import at_unit_size, distance, per_example
from bench.attacks.pgd import attacked_model
from bench.attacks.projections import project
from bench.attacks.steps import random_start, steepest_step
from bench.attacks.verification import AttackResults
from bench.core.bounds import Steps
from bench.core.devices import exact
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section

BISECTIONS = 8
NARROWED = 0.1
"""After this share of the steps only the most promising rows go on."""
DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
TANGENT = 0.85
"""L1 alone: from this share of the steps on they lead to the linearised boundary."""
TANGENT_PACE = (0.5, 0.1)
SPARSITY = (0.02, 0.001)
"""L1 alone, before that: the share of pixels that move in every second row."""
DENSE = 0.3
"""L1 alone, before that: the L2 length of the other rows' steps, as a share of the steps that `PACES` gives."""
SWAP_STEPS = 12
"""L1 alone: gradient steps towards the linearised boundary after an exchange."""
SHRINKING = (0.05, 0.0005)
"""By what share of itself the ball shrinks or widens in the first step and in the last; geometrically in between."""


class Boundary(Section):
    """What a suite pins.

    Attributes:
        steps: gradient steps per row.
        targets: rows from the point found, towards so many classes, the one found first.
        restarts: rows that aim at no class, the first from the image itself, the others from random corners; in L1 as
            many of them as `few_pixels` gives.
        kept: how many of an image's rows go on after a few steps; 0 for all.
        norms: those in which it is done.
        swaps: in L1 so many rounds of exchanging one value of the nearest point for another, where `restarts` > 1.
        standing: only where an image stands at some radius: the others' verdicts are settled, their distances are not.
    """

    steps: Steps
    targets: Steps = 1
    restarts: int = Field(default=0, ge=0, le=1000)
    kept: int = Field(default=0, ge=0, le=1000)
    swaps: int = Field(default=0, ge=0, le=1000)
    norms: tuple[Norm, ...] = Field(default=NORMS, strict=False)
    standing: bool = False


PACES: dict[Norm, tuple[float, float]] = {"linf": (0.3, 0.005), "l2": (0.3, 0.005), "l1": (1.0, 0.02)}
"""The first and the last step's length over the ball's radius, in L1 its share of the way to the linearised boundary.
Chosen on training images of at_l2, ir_smoothgrad (Fashion-MNIST) and of a small net whose distances are known."""
MOMENTUM = 0.5
"""The share of the last move that is added to the next; chosen as the paces are."""


def refine_found(
    model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, *, norm: Norm, results: AttackResults,
    settings: Boundary, seed: int, batch_size: int, among: Tensor | None = None,
) -> None:  # fmt: skip
    """Bring the nearest images that the results keep closer in one norm; what verifies goes into the results.

    Args:
        images: (N, C, H, W) in [0, 1] on the model's device, where labels and ids (N,) are too.
        among: (N,) bool on the CPU, the images that are worth it; None for all.
    """
    known = results.distances[norm].isfinite() & (results.found_in[norm] >= 0)
    rows = (known if among is None else known & among).nonzero().squeeze(1)
    if not len(rows):
        return
    size = max(1, batch_size // (settings.targets + settings.restarts))
    for begin in range(0, len(rows), size):
        part = rows[begin : begin + size]
        chosen = part.to(images.device)
        clean, truth, found = images[chosen], labels[chosen], results.images[norm][part].to(images.device)
        uniform = [
            keyed_uniform(seed, f"boundary/{norm}", ids[chosen], clean.shape[1:], extra=torch.full_like(truth, one))
            for one in range(1, 1 + max(0, settings.restarts - 1) * (FAR_POINTS if norm == "l1" else 1))
        ]
        with attacked_model(model):
            search = _Search(model, clean, truth, found, norm=norm, settings=settings, uniform=uniform)
            results.gradient_evaluations += len(uniform) * len(part) if norm == "l1" else 0
            for step in range(settings.steps):
                results.gradient_evaluations += len(search.labels)
                narrows = step == int(NARROWED * settings.steps)
                search.step(step / max(1, settings.steps - 1), kept=settings.kept if narrows else 0)
            search.measure()
            for _ in range(settings.swaps if search.far is not None else 0):
                results.gradient_evaluations += search.swap()
        results.bad_gradients += int(search.bad_gradients)
        nearest = distance(exact(search.best) - exact(clean), norm)
        results.judge(model, search.best, clean, truth, eps=nearest, norm=norm, examples=chosen)


class _Search:
    """One batch of images (n) in several rows each (R): tensors of the rows have R * n entries, the first n row 0's."""

    def __init__(
        self, model: nn.Module, images: Tensor, labels: Tensor, found: Tensor, *, norm: Norm,
        settings: Boundary, uniform: list[Tensor],
    ) -> None:  # fmt: skip
        self.model, self.norm = model, norm
        self.images, self.truth = images, labels
        self.far: FarGradients | None = None
        self.changing = torch.arange(len(labels), device=images.device)
        self.best = _bisected(model, images, labels, found)
        self.nearest = distance(self.best - images, norm)
        aimed = _targets(model, images, labels, self.best, count=settings.targets)
        if norm == "l1":
            few: list[Tensor] = []
            if uniform:
                few, self.far = few_pixels(model, images, labels, uniform, at_once=settings.restarts)
            around = [_bisected(model, images, labels, one) for one in few[: settings.restarts - 1]]
        else:
            around = [
                project(images + random_start(images, self.nearest, norm, one.round()), images, self.nearest, norm)
                for one in uniform
            ]
        restarts = [images, *around] if settings.restarts else []
        rows = len(aimed) + len(restarts)
        self.points = torch.cat([self.best.repeat(len(aimed), 1, 1, 1), *restarts])
        self.previous = self.points
        self.clean, self.labels, self.eps = images.repeat(rows, 1, 1, 1), labels.repeat(rows), self.nearest.repeat(rows)
        self.aimed = torch.cat([aimed.flatten(), labels.repeat(len(restarts))])
        self.bad_gradients = torch.zeros((), dtype=torch.int64, device=images.device)

    def step(self, share: float, kept: int) -> None:
        """One gradient step of every row, `share` of all steps being done; nothing here waits for the device.

        Args:
            kept: how many rows of each image are left after it; 0 for all.
        """
        given = self.points.detach().requires_grad_(True)
        logits = self.model(given)
        # a restart aims at no class: at whichever is nearest
        aim = torch.where(self.aimed == self.labels, others(logits, self.labels).argmax(1), self.aimed)
        gain = targeted_margin(logits, self.labels, aim)
        (gradient,) = torch.autograd.grad(gain.sum(), given)
        with torch.no_grad():
            self.bad_gradients += (~gradient.flatten(1).sum(1).isfinite()).sum()
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            gain = gain.detach().nan_to_num(0.0, 0.0, 0.0)
            self._remember(logits, share)
            order = self._most_promising(gradient, gain) if kept else None
            moved = self._moved(gradient, gain, share)
            moved += MOMENTUM * (self.points - self.previous)
            self.previous = self.points
            self.points = project(moved, self.clean, self.eps, self.norm)
            if order is not None:
                count = len(self.nearest)
                rows = (order[:kept] * count + torch.arange(count, device=order.device)).flatten()
                self.points, self.previous, self.eps = self.points[rows], self.previous[rows], self.eps[rows]
                self.clean, self.labels, self.aimed = self.clean[rows], self.labels[rows], self.aimed[rows]

    def _most_promising(self, gradient: Tensor, gain: Tensor) -> Tensor:
        """(R, n) each image's rows, those with the shortest way first: so far, and on to the linearised boundary."""
        slope = at_unit_size(torch.cat([gradient.flatten(1), gain[:, None]], 1))
        to_boundary = -slope[:, -1] / distance(slope[:, :-1], DUAL[self.norm])
        length = distance(self.points - self.clean, self.norm) + to_boundary
        return length.nan_to_num(torch.inf).view(-1, len(self.nearest)).argsort(stable=True, dim=0)

    def measure(self) -> None:
        """Look at the points that the last step led to."""
        with torch.no_grad():
            self._remember(self.model(self.points), 1.0)

    def swap(self) -> int:
        """Exchange one value of each nearest point for another, where that is shorter, and walk on from there.

        Images that a round leaves as they are would be left so by the next ones, which pass them over.

        Returns:
            how many gradients it took.
        """
        asked = self.changing
        if self.far is None or not len(asked):
            return 0
        before = self.best[asked]
        with torch.no_grad():
            points = exchanged(self.model, self.images[asked], self.truth[asked], before, far=self.far.take(asked))
        changed = (points != before).flatten(1).any(1)
        rows, points = asked[changed], points[changed]
        self.changing = rows
        if not len(rows):
            return 0
        walk = _Search(
            self.model, self.images[rows], self.truth[rows], points, norm=self.norm,
            settings=Boundary(steps=SWAP_STEPS), uniform=[],
        )  # fmt: skip
        for step in range(SWAP_STEPS):
            walk.step(TANGENT + (1 - TANGENT) * step / (SWAP_STEPS - 1), kept=0)
        walk.measure()
        self.bad_gradients += walk.bad_gradients
        self.best[rows], self.nearest[rows] = walk.best, walk.nearest
        return SWAP_STEPS * len(rows)

    def _remember(self, logits: Tensor, share: float) -> None:
        """Keep each image's nearest misclassified point; shrink the balls of such rows, widen the others'."""
        wrong = answers(logits) != self.labels
        length = distance(self.points - self.clean, self.norm)
        nearest, row = torch.where(wrong, length, torch.inf).view(-1, len(self.nearest)).min(0)
        points = self.points.view(-1, *self.best.shape)[row, torch.arange(len(row), device=row.device)]
        self.best = torch.where(per_example(nearest < self.nearest, points), points, self.best)
        self.nearest = torch.minimum(self.nearest, nearest)
        shrink = _between(SHRINKING, _in_phase(share, self.norm))
        followed = torch.minimum(self.eps, length) * (1 - shrink)
        below = self.nearest.repeat(len(self.eps) // len(row)) * (1 - SHRINKING[1])
        self.eps = torch.minimum(torch.where(wrong, followed, self.eps * (1 + shrink)), below)

    def _moved(self, gradient: Tensor, gain: Tensor, share: float) -> Tensor:
        within = _in_phase(share, self.norm)
        if self.norm == "l1" and share >= TANGENT:
            return torch.lerp(self.points, self._tangent(gradient, gain), _between(TANGENT_PACE, within))
        sparsity = torch.full_like(self.eps, _between(SPARSITY, within))
        size = _between(PACES[self.norm], within)
        steps = steepest_step(gradient, self.points, size * self.eps, self.norm, sparsity=sparsity)
        if self.norm == "l1":
            dense = steepest_step(gradient, self.points, DENSE * size * self.eps, "l2", sparsity=sparsity)
            even = torch.arange(len(steps), device=steps.device) // len(self.nearest) % 2 == 0
            steps = torch.where(per_example(even, steps), dense, steps)
        return steps.add_(self.points)

    def _tangent(self, gradient: Tensor, gain: Tensor) -> Tensor:
        """The points of the box nearest to the images at which the gain would be 0, were the net linear."""
        clean, slope = self.clean.flatten(1), at_unit_size(torch.cat([gradient.flatten(1), gain[:, None]], 1))
        excess = slope[:, -1] + torch.einsum("nd,nd->n", clean - self.points.flatten(1), slope[:, :-1])
        move = towards_hyperplane(clean[None], slope[:, :-1], excess[None], self.norm)[0]
        return (clean + move).view_as(self.points)


def _in_phase(share: float, norm: Norm) -> float:
    """How much of its phase is done: L1 has two, others one."""
    if norm != "l1":
        return share
    return (share - TANGENT) / (1 - TANGENT) if share >= TANGENT else share / TANGENT


def _bisected(model: nn.Module, images: Tensor, labels: Tensor, found: Tensor) -> Tensor:
    """The last misclassified point met on the way from `found` to the image, halving where the boundary may be."""
    low, high = torch.zeros(len(images), device=images.device), torch.ones(len(images), device=images.device)
    best = found
    with torch.no_grad():
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            point = torch.lerp(images, found, per_example(middle, images))
            wrong = answers(model(point)) != labels
            best = torch.where(per_example(wrong, point), point, best)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return best


def _targets(model: nn.Module, images: Tensor, labels: Tensor, found: Tensor, count: int) -> Tensor:
    """(T, N) wrong classes: what the found image is taken for, then those with the largest logits at the clean one."""
    with torch.no_grad():
        at_found, at_clean = model(found), model(images)
    first = wrong_classes(at_found, labels, 1)
    return wrong_classes(at_clean.scatter(1, first, torch.inf), labels, count).T


def _between(ends: tuple[float, float], share: float) -> float:
    first, last = ends
    return float(first * (last / first) ** share)
