"""FAB-T: the nearest misclassified point, by steps onto linearised class boundaries, one target class at a time.

Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020, with
AutoAttack's settings. What is ours: targets are attacked in one batch of (example, target) pairs, an example leaves
with all its pairs as soon as it is broken within the radius, and a pair leaves that has settled outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.fab.hyperplanes import towards_hyperplane
from bench.attacks.losses import answers
from bench.attacks.norms import at_unit_size, distance, per_example
from bench.attacks.registry import AttackResult, register_attack
from bench.attacks.target_pairs import nearest_classes, pair_batches
from bench.attacks.verification import RELATIVE_TOLERANCE
from bench.core.bounds import Steps
from bench.core.threat import Norm

LARGEST_BIAS = 0.1
"""At most this share of a step is taken from the clean image in place of the current point."""
OVERSHOOT = 1.05
BACKWARD = 0.9
"""A misclassified point is moved towards the clean image, to this share of its distance."""
CHECK_EVERY = 5
"""Steps between two looks at what is broken, each of which waits for the device."""
SETTLED_FROM = 20
"""Steps after which pairs may be given up, looked at every second CHECK_EVERY."""
SLACK = 1.5
LOST_BEYOND = 3.0
"""A pair is given up when its nearest misclassified point, at distance d, is out of reach of the radius: when it came
nearer by a factor g over the second half of its steps, and even SLACK * g^2 would not do. Farther than LOST_BEYOND
radii away it goes on: nets with flat surroundings hold FAB there for long, and then let it jump.

Measured on at_linf, at_l2, ir_smoothgrad and lga, 40 images, three norms, half, once and twice the reference radius:
of 786 examples that FAB-T breaks, none is lost, and an image that stands takes a half to two thirds less gradients.
"""


@register_attack("fab-t", needs_gradients=True)
def fab_targeted(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, eps: Tensor, batch_size: int = 256,
    iterations: Steps = 100, targets: Steps = 9, patient: bool = False,
) -> AttackResult:  # fmt: skip
    """Look for the nearest misclassified points on the ways to the classes that are nearest to each image.

    Args:
        eps: (N,) an example is done with when a point within this distance is found.
        targets: how many classes, by the clean images' logits.
        patient: never give a pair up.
        batch_size: the most (example, target) pairs that are attacked at once.

    Returns:
        the nearest misclassified points found within the radius; the images where none was.
    """
    found = images.clone()
    nearest = torch.full((len(images),), torch.inf, device=images.device)
    classes = nearest_classes(model, images, labels, targets, batch_size=batch_size)
    for examples, number in pair_batches(len(images), classes.shape[1], batch_size, nearest.isfinite):
        _Search(
            model, images[examples], labels[examples], classes[examples, number], examples=examples, norm=norm,
            eps=eps[examples], patient=patient, found=found, nearest=nearest,
        ).run(iterations)  # fmt: skip
    return AttackResult(found)


@dataclass
class _Search:
    """FAB on one batch of pairs."""

    model: nn.Module
    clean: Tensor
    labels: Tensor
    targets: Tensor
    examples: Tensor
    norm: Norm
    eps: Tensor
    patient: bool
    found: Tensor
    nearest: Tensor

    def run(self, iterations: int) -> None:
        self.points = self.clean
        # (steps so far, N) how near each pair's nearest misclassified point has been
        self.reached = self.clean.new_full((1, len(self.clean)), torch.inf)
        for iteration in range(iterations):
            gap, gradient = self._linearised()
            with torch.no_grad():
                self._advance(gap, gradient)
                self._turn_back()
                if (iteration + 1) % CHECK_EVERY == 0 and not self._drop_done(iteration + 1):
                    return

    def _linearised(self) -> tuple[Tensor, Tensor]:
        """(N,) the target's logit over the true one's, and its gradient (N, D)."""
        images = self.points.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.model(images)
            pair = logits.gather(1, torch.stack([self.targets, self.labels], 1))
            gap = pair[:, 0] - pair[:, 1]
            (gradient,) = torch.autograd.grad(gap.sum(), images)
        return gap.detach().nan_to_num(0.0, 0.0, 0.0), gradient.flatten(1).nan_to_num(0.0, 0.0, 0.0)

    def _advance(self, gap: Tensor, gradient: Tensor) -> None:
        """Onto the linearised boundary and a little beyond, from the point and, in part, from the clean image."""
        both = torch.stack([self.points.flatten(1), self.clean.flatten(1)])
        # gap + gradient . (z - point) at the point and at the clean image
        shift = torch.einsum("nd,nd->n", both[1] - both[0], gradient)
        # the distance over the gradient at a unit size: both may be of any
        plane = at_unit_size(torch.cat([gradient, torch.stack([gap, gap + shift], 1)], 1))
        moves = towards_hyperplane(both, plane[:, :-2], plane[:, -2:].T, self.norm)
        near, far = (distance(move, self.norm).clamp_min_(1e-8) for move in moves)
        bias = (near / (near + far)).clamp_max_(LARGEST_BIAS)[:, None]
        ends = both.add_(moves, alpha=OVERSHOOT)
        self.points = torch.lerp(ends[0], ends[1], bias).clamp_(0.0, 1.0).view_as(self.clean)

    def _turn_back(self) -> None:
        """Keep what is misclassified within the radius, and move what is misclassified towards the clean image."""
        wrong = answers(self.model(self.points)) != self.labels
        move = self.points - self.clean
        length = distance(move, self.norm)
        nearest = torch.minimum(self.reached[-1], torch.where(wrong, length, torch.inf))
        self.reached = torch.cat([self.reached, nearest[None]])
        self._keep(torch.where(wrong & (length <= self._times_eps(1.0 + RELATIVE_TOLERANCE)), length, torch.inf))
        share = torch.where(wrong, BACKWARD, 1.0)
        self.points = move.mul_(per_example(share, move)).add_(self.clean)

    def _keep(self, lengths: Tensor) -> None:
        """Enter, per example, the nearest of its pairs' points (infinite: none)."""
        before = self.nearest.clone()
        self.nearest.scatter_reduce_(0, self.examples, lengths, "amin")
        better = (lengths < before[self.examples]) & (lengths == self.nearest[self.examples])
        if self.found.device.type == "cpu" and not bool(better.any()):
            return
        self.found[self.examples[better]] = self.points[better]

    def _drop_done(self, steps: int) -> bool:
        """Let the pairs go that are given up or whose example is broken; returns whether anything is left."""
        kept = ~self.nearest[self.examples].isfinite()
        if not self.patient and steps >= SETTLED_FROM and steps % (2 * CHECK_EVERY) == 0:
            kept &= ~self._out_of_reach(steps)
        if not bool(kept.all()):
            self.clean, self.labels, self.targets = self.clean[kept], self.labels[kept], self.targets[kept]
            self.examples, self.points, self.reached = self.examples[kept], self.points[kept], self.reached[:, kept]
            self.eps = self.eps[kept]
        return bool(len(self.examples))

    def _out_of_reach(self, steps: int) -> Tensor:
        """(N,) bool: see SLACK; never a pair without a misclassified point at half its steps."""
        half, now = self.reached[steps // 2], self.reached[steps]
        return (now > self._times_eps(SLACK) * (half / now).square()) & (now <= self._times_eps(LOST_BEYOND))

    def _times_eps(self, factor: float) -> Tensor:
        return (self.eps * factor).to(self.clean.dtype)
