"""The sweep: one batched gradient attack over many radii at once, for one norm.

Each lane of the batch carries one example down the ladder of radii, from the largest: an adversarial example found at
one radius is pulled into the next smaller ball and the attack goes on from there; when a radius withstands all its
restarts the example has been decided, and the lane takes the next example. So easy and hard examples share full
batches, successes at small radii settle the larger ones, and no work is done twice. The restarts begin in a wider ball
that shrinks to the radius, which gives them the way in that a descent from a larger radius has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from bench.attacks.losses import LOSS_FUNCTIONS, LossName, margin, others, targeted_margin
from bench.attacks.norms import per_example
from bench.attacks.projections import project
from bench.attacks.schedules import SCHEDULES, ball_widths
from bench.attacks.search import SearchNet
from bench.attacks.steps import random_start, steepest_step
from bench.attacks.verification import Ledger, verify
from bench.core.keyed_random import keyed_uniform
from bench.core.precision import Precision
from bench.core.threat import Norm


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What a suite pins of the sweep.

    Attributes:
        steps: gradient steps per example, radius and restart.
        losses: one attempt for each loss, in this order.
        patience: how many radii in a row may withstand the attack before the smaller ones are taken as withstanding
            too (any point of a smaller ball lies in the larger one); 0 attacks every radius.
        targets: where not 0, the restarts attack so many classes one by one with the margin, the nearest to the clean
            image first, in place of the losses after the first.
        seed: keys the random starts, together with the example's id.
    """

    steps: int = 40
    losses: tuple[LossName, ...] = ("margin", "cross_entropy")
    patience: int = 1
    seed: int = 0
    targets: int = 0

    @property
    def attempts(self) -> list[tuple[LossName, int | None]]:
        """The first attempt at a radius and its restarts: a loss, and the rank of its target class if it has one."""
        if self.targets:
            return [(self.losses[0], None), *(("margin", rank) for rank in range(self.targets))]
        return [(loss, None) for loss in self.losses]


@dataclass(slots=True)
class _Lanes:
    """The batch: row i of every tensor belongs to lane i."""

    example: Tensor
    clean: Tensor
    label: Tensor
    images: Tensor
    previous: Tensor
    rung: Tensor
    eps: Tensor
    restart: Tensor
    failures: Tensor
    iteration: Tensor
    found: Tensor
    found_images: Tensor

    def __len__(self) -> int:
        return len(self.example)

    def take(self, chosen: Tensor) -> _Lanes:
        return _Lanes(*(getattr(self, entry.name)[chosen] for entry in fields(self)))

    def join(self, other: _Lanes) -> _Lanes:
        return _Lanes(*(torch.cat([getattr(self, entry.name), getattr(other, entry.name)]) for entry in fields(self)))

    def put(self, where: Tensor, other: _Lanes) -> None:
        for entry in fields(self):
            getattr(self, entry.name)[where] = getattr(other, entry.name)


@dataclass(slots=True)
class NormSweep:
    """Attack a shard of examples in one norm at all radii; what is verified goes into the ledger.

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
    ledger: Ledger
    batch_size: int = 256
    check_every: int = 2
    on_progress: Callable[[int], None] = lambda _: None
    precision: Precision = "float32"
    _search: SearchNet = field(init=False)
    _ladder: Tensor = field(init=False)
    _step_sizes: Tensor = field(init=False)
    _sparsities: Tensor = field(init=False)
    _widths: Tensor = field(init=False)
    _attempts: list[tuple[LossName, int | None]] = field(init=False)
    _targets: Tensor = field(init=False)
    _momentum: float = field(init=False)
    _bad_gradients: Tensor = field(init=False)

    def __post_init__(self) -> None:
        device = self.images.device
        self._search = SearchNet(self.model, self.precision, device.type)
        self._ladder = torch.tensor(sorted(self.radii, reverse=True), device=device)
        schedule = SCHEDULES[self.norm]
        steps, self._attempts = self.settings.steps, self.settings.attempts
        again = replace(schedule, dense=schedule.restart_dense)
        # (attempts, steps + 1) and (attempts, steps + 2); sizes are over the ball's width, which is a multiple of eps
        later = len(self._attempts) - 1
        self._sparsities = torch.stack([s.sparsities(steps, device) for s in [schedule] + [again] * later])
        self._widths = torch.tensor(
            [ball_widths(width, steps) for width in [1.0] + [schedule.restart_width] * later], device=device
        )
        self._step_sizes = schedule.step_sizes(steps, device) * self._widths[:, :-1]
        self._targets = self.labels.new_zeros((len(self.labels), 0))
        self._momentum = schedule.momentum
        self._bad_gradients = torch.zeros((), dtype=torch.int64, device=device)

    def run(self) -> None:
        """Attack every example that the clean model classifies right and that is not yet broken at all radii."""
        smallest = min(self.radii)
        waiting = (~self.ledger.broken(self.norm, smallest)).nonzero().squeeze(1).to(self.images.device)
        self.on_progress(len(self.labels) - len(waiting))
        if self.settings.targets:
            self._targets = self._nearest_classes()
        lanes = self._enter(waiting[: self.batch_size])
        waiting = waiting[self.batch_size :]
        while len(lanes):
            with self._search.products():
                for _ in range(self.check_every):
                    self._step(lanes)
            done = self._harvest(lanes)
            lanes, waiting = self._replace(lanes, done, waiting)
        self.ledger.bad_gradients += int(self._bad_gradients)

    def _nearest_classes(self) -> Tensor:
        """(N, targets) the wrong classes by their logits in the clean image; the last is repeated if there are few."""
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in torch.split(self.images, self.batch_size)])
        ordered = others(logits, self.labels).argsort(1, descending=True)
        ranks = torch.arange(self.settings.targets, device=ordered.device).clamp_max_(logits.shape[1] - 2)
        return ordered[:, ranks]

    def _enter(self, examples: Tensor) -> _Lanes:
        """Lanes for new examples, at the largest radius that is not yet broken."""
        clean = self.images[examples]
        zeros = torch.zeros_like(examples)
        rung = self._next_rung(examples)
        lanes = _Lanes(
            example=examples, clean=clean, label=self.labels[examples], images=clean, previous=clean, rung=rung,
            eps=self._ladder[rung], restart=zeros, failures=zeros.clone(), iteration=zeros.clone(),
            found=torch.zeros_like(zeros, dtype=torch.bool), found_images=clean.clone(),
        )  # fmt: skip
        return self._start(lanes)

    def _next_rung(self, examples: Tensor) -> Tensor:
        """The first rung of the ladder (largest radius) that the ledger does not show broken."""
        distances = self.ledger.distances[self.norm][examples.cpu()].to(self._ladder.device)
        return (self._ladder.double()[None] * (1 + 1e-6) >= distances[:, None]).sum(1).clamp_max_(len(self._ladder) - 1)

    def _start(self, lanes: _Lanes) -> _Lanes:
        """Put the lanes at a fresh random start of their radius."""
        key = lanes.rung * 1024 + lanes.restart
        uniform = keyed_uniform(
            self.settings.seed, f"sweep/{self.norm}", self.example_ids[lanes.example], lanes.clean.shape[1:], key
        )
        radius = lanes.eps * self._widths[lanes.restart, 0]
        noise = random_start(lanes.clean, radius, self.norm, uniform)
        lanes.images = project(lanes.clean + noise, lanes.clean, radius, self.norm)
        lanes.previous = lanes.images.clone()
        lanes.iteration = torch.zeros_like(lanes.iteration)
        return lanes

    def _step(self, lanes: _Lanes) -> None:
        """One gradient step of every lane; nothing here waits for the device."""
        current = lanes.images.detach().requires_grad_(True)
        logits = self._search(current)
        (gradient,) = torch.autograd.grad(self._loss(logits, lanes).sum(), current)
        with torch.no_grad():
            current = current.detach()
            # a NaN would spread over the image and the attack would end there, unseen: count it, go on without it
            self._bad_gradients += (~gradient.flatten(1).sum(1).isfinite()).sum()
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            progress = lanes.iteration.clamp_max(self.settings.steps)
            running = (lanes.iteration <= self.settings.steps) & (self._widths[lanes.restart, progress] == 1.0)
            hit = self._search.claims(margin(logits, lanes.label), logits) & ~lanes.found & running
            # lerp with weight 0 or 1 is exact, and ten times as fast as `where` on a CPU
            lanes.found_images = torch.lerp(lanes.found_images, current, per_example(hit.to(current.dtype), current))
            lanes.found |= hit
            size = lanes.eps * self._step_sizes[lanes.restart, progress]
            sparsity = self._sparsities[lanes.restart, progress]
            moved = steepest_step(gradient, current, size, self.norm, sparsity).add_(current)
            moved.add_(current - lanes.previous, alpha=self._momentum)
            lanes.previous = current
            radius = lanes.eps * self._widths[lanes.restart, progress + 1]
            lanes.images = project(moved, lanes.clean, radius, self.norm)
            lanes.iteration += 1
        self.ledger.gradient_evaluations += len(lanes)

    def _loss(self, logits: Tensor, lanes: _Lanes) -> Tensor:
        losses = [
            LOSS_FUNCTIONS[name](logits, lanes.label)
            if rank is None
            else targeted_margin(logits, lanes.label, self._targets[lanes.example, rank])
            for name, rank in self._attempts
        ]
        if len(losses) == 1:
            return losses[0]
        return torch.stack(losses, 1).gather(1, lanes.restart[:, None]).squeeze(1)

    def _harvest(self, lanes: _Lanes) -> Tensor:
        """Verify what was found, move lanes to their next radius or restart; returns which lanes are done."""
        done = torch.zeros_like(lanes.found)
        claimed = lanes.found.nonzero().squeeze(1)
        exhausted = ((lanes.iteration > self.settings.steps) & ~lanes.found).nonzero().squeeze(1)
        if len(claimed):
            done[claimed] = self._descend(lanes, claimed)
        if len(exhausted):
            done[exhausted] = self._give_up(lanes, exhausted)
        return done

    def _descend(self, lanes: _Lanes, claimed: Tensor) -> Tensor:
        part = lanes.take(claimed)
        verified, distances, predictions = verify(
            self.model, part.found_images, part.clean, part.label, part.eps, self.norm
        )
        self.ledger.claims += len(claimed)
        self.ledger.rejected += int((~verified).sum())
        self.ledger.record(
            part.example[verified].cpu(),
            self.norm,
            {norm: value[verified] for norm, value in distances.items()},
            predictions[verified],
        )
        finished = verified & self.ledger.broken(self.norm, float(self._ladder[-1]))[part.example.cpu()].to(
            verified.device
        )
        part.found = torch.zeros_like(part.found)
        lower = self._next_rung(part.example)
        part.rung = torch.where(verified, lower, part.rung)
        part.eps = self._ladder[part.rung]
        pulled = project(part.found_images, part.clean, part.eps, self.norm)
        part.images = torch.where(per_example(verified, pulled), pulled, part.images)
        part.previous = torch.where(per_example(verified, pulled), pulled, part.previous)
        part.iteration = torch.where(verified, 0, part.iteration)
        part.restart = torch.where(verified, 0, part.restart)
        part.failures = torch.where(verified, 0, part.failures)
        lanes.put(claimed, part)
        return finished

    def _give_up(self, lanes: _Lanes, exhausted: Tensor) -> Tensor:
        part = lanes.take(exhausted)
        part.restart = part.restart + 1
        failed = part.restart >= len(self._attempts)
        part.failures = part.failures + failed.long()
        part.restart = torch.where(failed, 0, part.restart)
        patience = self.settings.patience or len(self._ladder)
        finished = failed & ((part.failures >= patience) | (part.rung == len(self._ladder) - 1))
        part.rung = torch.where(failed & ~finished, part.rung + 1, part.rung)
        part.eps = self._ladder[part.rung]
        lanes.put(exhausted, self._start(part))
        return finished

    def _replace(self, lanes: _Lanes, done: Tensor, waiting: Tensor) -> tuple[_Lanes, Tensor]:
        """Fill the lanes that are done with waiting examples; drop those that none waits for."""
        free = done.nonzero().squeeze(1)
        if not len(free):
            return lanes, waiting
        self.on_progress(len(free))
        entering = waiting[: len(free)]
        if len(entering):
            lanes.put(free[: len(entering)], self._enter(entering))
        if len(entering) < len(free):
            keep = torch.ones_like(done)
            keep[free[len(entering) :]] = False
            lanes = lanes.take(keep.nonzero().squeeze(1))
        return lanes, waiting[len(free) :]
