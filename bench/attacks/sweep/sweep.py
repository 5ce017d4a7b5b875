"""The sweep: one batched gradient attack over many radii at once, for one norm.

Each row of the batch carries one example down the radii, from the largest: an adversarial example found at one radius
is pulled into the next smaller ball and the attack goes on from there; when a radius withstands all its restarts the
example has been decided, and another takes its row. So easy and hard examples share full batches, successes at small
radii settle the larger ones. The restarts begin in a wider ball that shrinks to the radius, which gives them the way in
that a descent from a larger radius has. A restart that has come near goes on with small steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.boundary.search import Boundary, refine_found
from bench.attacks.losses import LOSS_FUNCTIONS, LossName, margin, targeted_margin, wrong_classes
from bench.attacks.norms import per_example
from bench.attacks.projections import project
from bench.attacks.registry import AttackResult, register_attack
from bench.attacks.steps import random_start, steepest_step
from bench.attacks.sweep.restarts import NEAR, SweepSettings, Timetables, restarts_at
from bench.attacks.sweep.schedules import SCHEDULES
from bench.attacks.sweep.search import SearchNet
from bench.attacks.verification import AttackResults
from bench.core.bounds import Steps
from bench.core.devices import exact
from bench.core.keyed_random import keyed_uniform
from bench.core.precision import Precision
from bench.core.threat import Norm


@dataclass(slots=True)
class _ActiveBatch:
    """The examples under attack, a row of every tensor each; `margin` is that of `previous`, the last point seen."""

    example: Tensor
    clean: Tensor
    label: Tensor
    images: Tensor
    previous: Tensor
    margin: Tensor
    radius_index: Tensor
    eps: Tensor
    restart: Tensor
    failures: Tensor
    iteration: Tensor
    found: Tensor
    found_images: Tensor

    def __len__(self) -> int:
        return len(self.example)

    def take(self, chosen: Tensor) -> _ActiveBatch:
        return _ActiveBatch(*(getattr(self, entry.name)[chosen] for entry in fields(self)))

    def put(self, where: Tensor, other: _ActiveBatch) -> None:
        for entry in fields(self):
            getattr(self, entry.name)[where] = getattr(other, entry.name)


@dataclass
class NormSweep:
    """Attack a shard of examples in one norm at all radii; what is verified goes into the results.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1] on the model's device.
        example_ids: (N,) the ids that key the random starts.
        radii: any order, without repetition.
        on_progress: called with the number of examples newly decided.
        precision: of the search; what it claims is verified in float32.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    example_ids: Tensor
    norm: Norm
    radii: Sequence[float]
    settings: SweepSettings
    results: AttackResults
    batch_size: int = 256
    check_every: int = 2
    on_progress: Callable[[int], None] = lambda _: None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        device = self.images.device
        self._search = SearchNet(self.model, self.precision, device.type)
        self._radii = torch.tensor(sorted(self.radii, reverse=True), device=device)
        self._restarts = restarts_at(self.settings, self.norm)
        self._times = Timetables(self._restarts, device)
        wanted = [(restart.loss, restart.target) for restart in self._restarts]
        self._losses = sorted(set(wanted), key=wanted.index)
        self._loss_of = torch.tensor([self._losses.index(loss) for loss in wanted], device=device)
        self._clean_margins = self._targets = self.labels.new_zeros(0)
        self._momentum = SCHEDULES[self.norm].momentum
        self._bad_gradients = torch.zeros((), dtype=torch.int64, device=device)

    def run(self) -> None:
        """Attack every example that the clean model classifies right and that is not yet broken at all radii."""
        smallest = min(self.radii)
        waiting = (~self.results.broken(self.norm, smallest)).nonzero().squeeze(1).to(self.images.device)
        self.on_progress(len(self.labels) - len(waiting))
        if self.settings.targets or self.settings.refine:
            self._look_at_clean_images()
        active = self._enter(waiting[: self.batch_size])
        waiting = waiting[self.batch_size :]
        while len(active):
            with self._search.products():
                for _ in range(self.check_every):
                    self._step(active)
            done = self._harvest(active)
            active, waiting = self._replace(active, done, waiting)
        self.results.bad_gradients += int(self._bad_gradients)

    def _look_at_clean_images(self) -> None:
        """Their margins (N,), and the wrong classes (N, targets) by logits, the last repeated if there are few."""
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in torch.split(self.images, self.batch_size)])
        self._clean_margins = margin(logits, self.labels)
        ordered = wrong_classes(logits, self.labels, self.settings.targets)
        ranks = torch.arange(self.settings.targets, device=ordered.device).clamp_max_(logits.shape[1] - 2)
        self._targets = ordered[:, ranks]

    def _enter(self, examples: Tensor) -> _ActiveBatch:
        """Lanes for new examples, at the largest radius that is not yet broken."""
        clean = self.images[examples]
        zeros = torch.zeros_like(examples)
        radius_index = self._next_radius(examples)
        active = _ActiveBatch(
            example=examples, clean=clean, label=self.labels[examples], images=clean, previous=clean,
            margin=torch.zeros_like(self._radii[radius_index]), radius_index=radius_index,
            eps=self._radii[radius_index], restart=zeros,
            failures=zeros.clone(), iteration=zeros.clone(),
            found=torch.zeros_like(zeros, dtype=torch.bool), found_images=clean.clone(),
        )  # fmt: skip
        return self._start(active)

    def _next_radius(self, examples: Tensor) -> Tensor:
        """The index of the largest radius that the results do not show broken."""
        radii, distances = exact(self._radii) * (1 + 1e-6), self.results.distances[self.norm][examples.cpu()]
        return (radii >= distances.to(radii.device)[:, None]).sum(1).clamp_max_(len(radii) - 1).to(self._radii.device)

    def _start(self, active: _ActiveBatch) -> _ActiveBatch:
        """Put examples at a fresh random start of their radius."""
        key = active.radius_index * 1024 + active.restart
        uniform = keyed_uniform(
            self.settings.seed, f"sweep/{self.norm}", self.example_ids[active.example], active.clean.shape[1:],
            extra=key,
        )  # fmt: skip
        radius = active.eps * self._times.widths[active.restart, 0]
        noise = random_start(active.clean, radius, self.norm, uniform)
        active.images = project(active.clean + noise, active.clean, radius, self.norm)
        active.previous = active.images.clone()
        active.iteration = torch.zeros_like(active.iteration)
        return active

    def _step(self, active: _ActiveBatch) -> None:
        """One gradient step of every example; nothing here waits for the device."""
        current = active.images.detach().requires_grad_(True)
        logits = self._search(current)
        (gradient,) = torch.autograd.grad(self._loss(logits, active).sum(), current)
        with torch.no_grad():
            current = current.detach()
            # a NaN would spread over the image and the attack would end there, unseen: count it, go on without it
            self._bad_gradients += (~gradient.flatten(1).sum(1).isfinite()).sum()
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            times, restart = self._times, active.restart
            progress = torch.minimum(active.iteration, times.steps[restart])
            running = (active.iteration <= times.steps[restart]) & (times.widths[restart, progress] == 1.0)
            active.margin = margin(logits, active.label).detach()
            hit = self._search.claims(active.margin, logits) & ~active.found & running
            # lerp with weight 0 or 1 is exact, and ten times as fast as `where` on a CPU
            active.found_images = torch.lerp(active.found_images, current, per_example(hit.to(current.dtype), current))
            active.found |= hit
            size = active.eps * times.sizes[restart, progress]
            sparsity = times.sparsities[restart, progress]
            moved = steepest_step(gradient, current, size, self.norm, sparsity=sparsity).add_(current)
            moved.add_(current - active.previous, alpha=self._momentum)
            active.previous = current
            radius = active.eps * times.widths[restart, progress + 1]
            active.images = project(moved, active.clean, radius, self.norm)
            active.iteration += 1
        self.results.gradient_evaluations += len(active)

    def _loss(self, logits: Tensor, active: _ActiveBatch) -> Tensor:
        losses = [
            LOSS_FUNCTIONS[name](logits, active.label)
            if target is None
            else targeted_margin(logits, active.label, self._targets[active.example, target])
            for name, target in self._losses
        ]
        if len(losses) == 1:
            return losses[0]
        return torch.stack(losses, 1).gather(1, self._loss_of[active.restart][:, None]).squeeze(1)

    def _harvest(self, active: _ActiveBatch) -> Tensor:
        """Verify what was found, move the others to their next radius or restart; returns which are done."""
        done = torch.zeros_like(active.found)
        claimed = active.found.nonzero().squeeze(1)
        exhausted = ((active.iteration > self._times.steps[active.restart]) & ~active.found).nonzero().squeeze(1)
        if len(claimed):
            done[claimed] = self._descend(active, claimed)
        if len(exhausted):
            done[exhausted] = self._give_up(active, exhausted)
        return done

    def _descend(self, active: _ActiveBatch, claimed: Tensor) -> Tensor:
        part = active.take(claimed)
        verified = self.results.judge(
            self.model, part.found_images, part.clean, part.label, eps=part.eps, norm=self.norm, examples=part.example
        )
        broken = self.results.broken(self.norm, float(self._radii[-1]))[part.example.cpu()]
        finished = verified & broken.to(verified.device)
        part.found = torch.zeros_like(part.found)
        lower = self._next_radius(part.example)
        part.radius_index = torch.where(verified, lower, part.radius_index)
        part.eps = self._radii[part.radius_index]
        pulled = project(part.found_images, part.clean, part.eps, self.norm)
        part.images = torch.where(per_example(verified, pulled), pulled, part.images)
        part.previous = torch.where(per_example(verified, pulled), pulled, part.previous)
        part.iteration = torch.where(verified, 0, part.iteration)
        part.restart = torch.where(verified, 0, part.restart)
        part.failures = torch.where(verified, 0, part.failures)
        active.put(claimed, part)
        return finished

    def _give_up(self, active: _ActiveBatch, exhausted: Tensor) -> Tensor:
        part = active.take(exhausted)
        near = torch.zeros_like(part.found)
        if self.settings.refine:
            near = part.margin >= NEAR * self._clean_margins[part.example]
        following = self._times.next_restart(part.restart, near)
        failed = following == len(self._restarts)
        part.restart = torch.where(failed, 0, following)
        part.failures = part.failures + failed.long()
        patience = self.settings.patience or len(self._radii)
        finished = failed & ((part.failures >= patience) | (part.radius_index == len(self._radii) - 1))
        part.radius_index = torch.where(failed & ~finished, part.radius_index + 1, part.radius_index)
        part.eps = self._radii[part.radius_index]
        ended, refines = part.previous, self._times.refines[part.restart]
        part = self._start(part)
        part.images = torch.where(per_example(refines, ended), ended, part.images)
        part.previous = torch.where(per_example(refines, ended), ended, part.previous)
        active.put(exhausted, part)
        return finished

    def _replace(self, active: _ActiveBatch, done: Tensor, waiting: Tensor) -> tuple[_ActiveBatch, Tensor]:
        """Put waiting examples in the place of those that are done; where none waits the batch gets smaller."""
        free = done.nonzero().squeeze(1)
        if not len(free):
            return active, waiting
        self.on_progress(len(free))
        entering = waiting[: len(free)]
        if len(entering):
            active.put(free[: len(entering)], self._enter(entering))
        if len(entering) < len(free):
            keep = torch.ones_like(done)
            keep[free[len(entering) :]] = False
            active = active.take(keep.nonzero().squeeze(1))
        return active, waiting[len(free) :]


@register_attack("sweep", kind="curve", needs_gradients=True)
def sweep(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, ids: Tensor, radii: Tensor, results: AttackResults,
    seed: int = 0, batch_size: int = 256, precision: Precision = "float32",
    on_progress: Callable[[int], None] = lambda _: None, steps: Steps = 40,
    losses: Annotated[tuple[LossName, ...], Field(min_length=1, max_length=100)] = ("margin", "cross_entropy"),
    patience: Annotated[int, Field(ge=0, lt=1 << 31)] = 1, targets: dict[Norm, Steps] | None = None,
    refine: Annotated[int, Field(ge=0, le=100_000)] = 0, boundary: Boundary | None = None,
) -> AttackResult:  # fmt: skip
    """All radii in one go; parameters are those of bench.attacks.sweep.restarts.SweepSettings, `targets` by norm.

    With `boundary` it goes on from what was found to where it is nearest (bench.attacks.boundary)."""
    if boundary is not None:
        results.keep_images(images, boundary.norms)
    settings = SweepSettings(steps, losses, patience, seed, targets=(targets or {}).get(norm, 0), refine=refine)
    NormSweep(
        model, images, labels, ids, norm=norm, radii=radii.tolist(), settings=settings, results=results,
        batch_size=batch_size, check_every=2 if images.device.type == "cpu" else 5, on_progress=on_progress,
        precision=precision,
    ).run()  # fmt: skip
    if boundary is not None and norm in boundary.norms:
        refine_found(
            model, images, labels, ids, norm=norm, results=results, settings=boundary, seed=seed, batch_size=batch_size,
            among=~results.broken(norm, float(radii.min())) if boundary.standing else None,
        )  # fmt: skip
    return AttackResult(None)
