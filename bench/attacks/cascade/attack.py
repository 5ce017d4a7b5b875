"""The cascade: a few stages of gradient attack at one radius, from cheap to costly, each on what still stands.

Its aim is AutoAttack's robust accuracy at a small part of its time. An example leaves as soon as it is broken; targeted
stages attack the classes that came nearest first; a batch holds (example, target) pairs of the whole work unit.

Sources of the parts: margin loss, Carlini and Wagner 2017; targets by closeness, Gowal et al. 2019 (MultiTargeted);
steps and starts as in the sweep (bench.attacks.sweep.schedules); queries, Andriushchenko et al. 2020 (Square).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.boundary.few_pixels import FAR_POINTS, shortest_few_pixels
from bench.attacks.boundary.search import Boundary, refine_found
from bench.attacks.cascade.stages import STAGES, Stage
from bench.attacks.losses import answers
from bench.attacks.projections import project
from bench.attacks.registry import AttackResult, register_attack
from bench.attacks.square.attack import walk
from bench.attacks.steps import random_start, steepest_step
from bench.attacks.sweep.schedules import SCHEDULES, ball_widths
from bench.attacks.sweep.search import SearchNet
from bench.attacks.verification import AttackResults, first_of_each
from bench.core.keyed_random import keyed_uniform, stream_key
from bench.core.precision import Precision, as_float32
from bench.core.threat import Norm


@dataclass
class Cascade:
    """Attack a work unit in one norm at one radius; what is verified goes into the results.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1] on the model's device.
        example_ids: (N,) the ids that key the random starts.
        check_every: steps between two looks at what is broken, each of which waits for the device.
        precision: of the search; what it claims is verified in float32.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    example_ids: Tensor
    norm: Norm
    eps: float
    stages: tuple[Stage, ...]
    results: AttackResults
    seed: int = 0
    batch_size: int = 256
    check_every: int = 2
    on_stage: Callable[[], None] = lambda: None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self._search = self._search_in(self.precision)
        # (N, K) the best margin of each class over the true one that any attack has reached, for choosing targets
        self._reached = self.images.new_full((len(self.images), 1), -torch.inf)
        self._clean_margins = self.images.new_zeros(0)
        # where the best attack on each example ended, for refining
        self._ended = self.images.clone()
        self._ended_margins = self.images.new_full((len(self.images),), -torch.inf)
        self._bad_gradients = torch.zeros((), dtype=torch.int64, device=self.images.device)

    def run(self) -> None:
        """Run all stages, or as many as it takes to break everything."""
        number = 0  # among this norm's own: no random start moves where another norm gets a stage
        for stage in self.stages:
            if self.norm in stage.norms:
                near = stage.refine or stage.within < 1.0  # which is not left to rounding
                self._search = self._search_in(as_float32(self.precision) if near else self.precision)
                with self._search.products():
                    self._stage(number, stage, *self._pairs(stage))
                number += 1
            self.on_stage()
        self.results.bad_gradients += int(self._bad_gradients)

    def _search_in(self, precision: Precision) -> SearchNet:
        return SearchNet(self.model, precision, self.images.device.type)

    def _look_at_clean(self) -> None:
        """Take the clean images' margins, of batches in which an example stands: many nets break before they matter."""
        standing = torch.split(~self.results.broken(self.norm, self.eps), self.batch_size)
        rows = torch.cat([part.any().expand(len(part)) for part in standing]).to(self.images.device)
        images, labels = torch.split(self.images, self.batch_size), self.labels[rows, None]
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part, some in zip(images, standing, strict=True) if some.any()])
        gaps = logits.new_full((len(rows), logits.shape[1]), -torch.inf)
        gaps[rows] = _gaps(logits, labels)
        self._clean_margins = gaps.amax(1)
        self._reached = torch.maximum(self._reached, gaps)

    def _pairs(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """The pairs (example, target) of a stage, all examples' nearest class first; target -1 for none."""
        standing = (~self.results.broken(self.norm, self.eps)).nonzero().squeeze(1).to(self.images.device)
        if len(standing) and not len(self._clean_margins) and (stage.targets or stage.within < 1.0):
            self._look_at_clean()
        least = stage.within * self._clean_margins[standing] if stage.within < 1.0 else -torch.inf
        near = self._reached[standing].amax(1) >= least
        if not stage.targets:
            return standing[near], torch.full_like(standing[near], -1)
        count = min(stage.targets, self._reached.shape[1] - 1)
        gaps, targets = self._reached[standing].topk(count, dim=1)
        near = near.expand(count, -1) if stage.gate == "example" else least <= gaps.T
        rank, row = near.nonzero().unbind(1)
        return standing[row], targets[row, rank]

    def _stage(self, number: int, stage: Stage, waiting: Tensor, targets: Tensor) -> None:
        """All pairs of a stage in full batches; a pair whose example has been broken meanwhile is left out."""
        if not len(waiting):
            return
        if stage.outside:
            self._come_in(stage, torch.unique(waiting))
            return
        if stage.queries:
            self._walk(number, stage, torch.unique(waiting))
            waiting, targets = self._alive(waiting, targets)
        while len(waiting):
            batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            target, targets = targets[: self.batch_size], targets[self.batch_size :]
            self._attack(number, stage, batch, target)
            waiting, targets = self._alive(waiting, targets)

    def _alive(self, waiting: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        alive = ~self.results.broken(self.norm, self.eps).to(waiting.device)[waiting]
        return waiting[alive], targets[alive]

    def _walk(self, number: int, stage: Stage, examples: Tensor) -> None:
        """Square from where the best attacks on the examples (n,) ended."""
        seed = stream_key(self.seed, "cascade", number)
        for batch in torch.split(examples, self.batch_size):
            clean, labels = self.images[batch], self.labels[batch]
            found, asked = walk(
                self.model, clean, labels, self._ended[batch], eps=self._radius(clean), ids=self.example_ids[batch],
                seed=seed, batch_size=self.batch_size, queries=stage.queries,
            )  # fmt: skip
            with torch.no_grad():
                logits = self.model(found)
            self.results.queries += asked
            margins = _gaps(logits, labels[:, None]).amax(1).nan_to_num(-torch.inf, torch.inf, -torch.inf)
            hit = answers(logits) != labels
            if bool(hit.any()):
                self._verify(found[hit], clean[hit], labels[hit], batch[hit])
            self._remember_end(batch, found, margins)

    def _come_in(self, stage: Stage, examples: Tensor) -> None:
        """From few pixels, wherever they lie, along the decision boundary towards the examples (n,)."""
        settings = Boundary(steps=stage.steps, targets=max(1, stage.targets), restarts=stage.outside, kept=1)
        for batch in torch.split(examples, self.batch_size):
            clean, labels, ids = self.images[batch], self.labels[batch], self.example_ids[batch]
            found = AttackResults.start(labels.cpu(), labels.cpu(), clean)
            start, length = shortest_few_pixels(self.model, clean, labels, ids, seed=self.seed)
            found.gradient_evaluations += FAR_POINTS * len(batch)
            rows = torch.arange(len(batch), device=batch.device)
            found.judge(self.model, start, clean, labels, eps=length, norm=self.norm, examples=rows)
            refine_found(
                self.model, clean, labels, ids, norm=self.norm, results=found, settings=settings, seed=self.seed,
                batch_size=self.batch_size,
            )  # fmt: skip
            self.results.add(found, batch.cpu())

    def _attack(self, number: int, stage: Stage, examples: Tensor, targets: Tensor) -> None:
        schedule = replace(SCHEDULES[self.norm], dense=stage.dense)
        if stage.first:
            schedule = replace(schedule, first=stage.first)
        widths = ball_widths(stage.widen, stage.steps)
        sizes = schedule.step_sizes(stage.steps, self.images.device) * self.eps
        sparsities = schedule.sparsities(stage.steps, self.images.device)
        clean, labels = self.images[examples], self.labels[examples]
        images = self._start(number, stage, examples, targets, clean=clean)
        previous = images
        reached = self._reached[examples]
        for iteration in range(stage.steps + 1):
            images = images.detach().requires_grad_(True)
            logits = self._search(images)
            # a NaN would stay in what has been reached, and end the attack on its example
            gaps = _gaps(logits, labels[:, None]).nan_to_num(-torch.inf, torch.inf, -torch.inf)
            best = gaps.amax(1)
            aimed = gaps.gather(1, targets[:, None]).squeeze(1) if stage.targets else best
            (gradient,) = torch.autograd.grad(aimed.sum(), images)
            with torch.no_grad():
                images = images.detach()
                self._bad_gradients += (~gradient.flatten(1).sum(1).isfinite()).sum()
                gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
                inside = widths[iteration] == 1.0
                if inside:
                    reached = torch.maximum(reached, gaps.detach())
                self.results.gradient_evaluations += len(examples)
                if inside and (iteration % self.check_every == 0 or iteration == stage.steps):
                    hit = self._search.claims(best, logits)
                    if bool(hit.any()):
                        keep = ~self._verify(images[hit], clean[hit], labels[hit], examples[hit])[examples]
                        self._remember(examples, reached)
                        if not bool(keep.any()):
                            return
                        images, previous, clean, labels, examples, targets, gradient, reached, best = (
                            values[keep]
                            for values in (
                                images, previous, clean, labels, examples, targets, gradient, reached, best,
                            )
                        )  # fmt: skip
                size = (sizes[iteration] * widths[iteration]).expand(len(images))
                sparsity = sparsities[iteration].expand(len(images))
                moved = steepest_step(gradient, images, size, self.norm, sparsity=sparsity).add_(images)
                moved.add_(images - previous, alpha=schedule.momentum)
                previous = images
                images = project(moved, clean, self._radius(clean, widths[iteration + 1]), self.norm)
        self._remember(examples, reached)
        self._remember_end(examples, previous, best.detach())

    def _remember(self, examples: Tensor, reached: Tensor) -> None:
        if self._reached.shape[1] < reached.shape[1]:  # the first logits seen
            self._reached = self._reached.repeat(1, reached.shape[1])
        self._reached.scatter_reduce_(0, examples[:, None].expand_as(reached), reached, "amax")

    def _remember_end(self, examples: Tensor, images: Tensor, margins: Tensor) -> None:
        """Keep the points at which attacks ended (n, C, H, W) where their margins (n,) are the examples' highest."""
        before = self._ended_margins.clone()
        self._ended_margins.scatter_reduce_(0, examples, margins, "amax")
        highest = (margins == self._ended_margins[examples]) & (margins > before[examples])
        chosen = first_of_each(examples, highest.nonzero().squeeze(1))
        self._ended[examples[chosen]] = images[chosen]

    def _radius(self, clean: Tensor, width: float = 1.0) -> Tensor:
        return clean.new_full((len(clean),), self.eps * width)

    def _start(self, number: int, stage: Stage, examples: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        if stage.refine:
            return self._ended[examples]
        if stage.start == 0.0:
            return clean
        shape = (clean.shape[1], stage.cells, stage.cells) if stage.cells else clean.shape[1:]
        uniform = keyed_uniform(
            self.seed, f"cascade/{self.norm}", self.example_ids[examples], shape, extra=number * 4096 + targets + 1
        )
        if stage.cells:
            uniform = nn.functional.interpolate(uniform.round(), clean.shape[-2:])
        radius = self._radius(clean, stage.widen)
        return project(clean + random_start(clean, radius * stage.start, self.norm, uniform), clean, radius, self.norm)

    def _verify(self, images: Tensor, clean: Tensor, labels: Tensor, examples: Tensor) -> Tensor:
        """Enter what verifies; returns (N,) bool, which examples of the unit are now broken."""
        self.results.judge(
            self.model, images, clean, labels, eps=self._radius(clean), norm=self.norm, examples=examples
        )
        return self.results.broken(self.norm, self.eps).to(examples.device)


def _gaps(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, K) how far each logit is above the label's (N, 1), whose own is minus infinity."""
    return (logits - logits.gather(1, labels)).scatter(1, labels, -torch.inf)


@register_attack("cascade", kind="curve", needs_gradients=True)
def cascade(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, ids: Tensor, radii: Tensor, results: AttackResults,
    seed: int = 0, batch_size: int = 256, precision: Precision = "float32",
    on_progress: Callable[[int], None] = lambda _: None,
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=100)] = STAGES,
) -> AttackResult:  # fmt: skip
    """The cascade at one radius after another, the largest first."""
    share = max(1, len(labels) // (len(stages) * len(radii)))
    for eps in radii.tolist():
        Cascade(
            model, images, labels, ids, norm=norm, eps=eps, stages=stages, results=results, seed=seed,
            batch_size=batch_size, check_every=2 if images.device.type == "cpu" else 5,
            on_stage=lambda: on_progress(share), precision=precision,
        ).run()  # fmt: skip
    return AttackResult(None)
