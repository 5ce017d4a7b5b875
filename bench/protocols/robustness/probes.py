"""What the gradient-masking report does to a net; bench.protocols.robustness.masking says what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.losses import LOSS_FUNCTIONS, LossName, advantage, answers
from bench.attacks.norms import distance, per_example
from bench.attacks.pgd import pgd
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults, verify
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import Norm
from bench.nets.logit_scale import factor_of, unscaled
from bench.protocols.base import EvaluationContext
from bench.protocols.robustness.paths import HALVINGS, JUMP, ROUGH, Path, rounding

STEPS = 20
QUERIES = 200
LEAST = 4
"""Of a unit's examples, so many at least are searched without gradients."""
STRIDE = 2 / 255
"""How far each pixel goes along the gradient's sign to see whether the logits follow."""
FOLLOWED = 0.1
"""Less than this share of the change that the gradient promises means that they do not."""
INVISIBLE = 1e-4
"""Noise of at most this in each pixel, a fortieth of a grey level, changes no answer of a net that looks at images."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The probed examples of one unit, all classified right.

    Attributes:
        places: (n,) where they are in `all_results`, on the CPU.
        all_results: what an attack on the net breaks is entered here, where it was not yet broken.
    """

    context: EvaluationContext
    clean: Tensor
    labels: Tensor
    ids: Tensor
    norm: Norm
    places: Tensor
    all_results: Sequence[AttackResults]

    def attempt(
        self, eps: float, loss: LossName, among: Tensor, *, steps: int | None = None, restart: int = 0,
        source: nn.Module | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Plain PGD, STEPS steps unless told, on `among` (n,) bool; on `source`, where it is not the net under test.

        Gives (n,) bool, whether its last iterates are broken, verified, and those (n, C, H, W): the image elsewhere.
        """
        broken, ends = torch.zeros_like(among), self.clean.clone()
        for part in self._parts(among):
            start = keyed_uniform(
                self.context.seed, f"masking/{self.norm}", self.ids[part], self.clean.shape[1:],
                extra=torch.full_like(self.ids[part], restart),
            )  # fmt: skip
            count, model = steps or STEPS, source or self.context.model
            if loss == "softmax_cross_entropy":
                model = unscaled(model)  # it is the size of the logits that blinds published evaluations
            ends[part] = pgd(
                model, self.clean[part], self.labels[part], norm=self.norm, eps=eps, steps=count,
                step_size=2.5 * eps / count, loss=loss, start=start,
            )  # fmt: skip
            broken[part] = self._verified(part, ends[part], eps, enter=source is None)
        return broken, ends

    def lost(self, eps: float, single: Tensor, farthest: float) -> int:
        """How many of `single` (n,) bool, broken at half of `eps`, are not at it; where rows have it, others too."""
        among = single.clone()
        if eps <= farthest and self.all_results:
            standing = torch.stack([~results.broken(self.norm, eps) for results in self.all_results]).any(0)
            among |= standing[self.places].to(among.device)
        return int((single & ~self.attempt(eps, "softmax_cross_entropy", among)[0]).sum())

    def _verified(self, part: Tensor, found: Tensor, eps: float, *, enter: bool) -> Tensor:
        model, clean, labels = self.context.model, self.clean[part], self.labels[part]
        radius = clean.new_full((len(clean),), eps)
        if not enter:
            return verify(model, found, clean, labels, eps=radius, norm=self.norm)[0].to(labels.device)
        results = self._start(part)
        rows = torch.arange(len(part))
        results.judge(model, found, clean, labels, eps=radius, norm=self.norm, examples=rows)
        return self._entered(part, eps, results).to(labels.device)

    def _start(self, part: Tensor) -> AttackResults:
        """No results yet of the probed examples `part` (m,), with images where those of others are kept."""
        labels, keeps = self.labels[part].cpu(), any(results.images for results in self.all_results)
        return AttackResults.start(labels, labels, self.clean[part] if keeps else None)

    def _entered(self, part: Tensor, eps: float, found: AttackResults) -> Tensor:
        """(m,) bool on the CPU: which of the probed examples `part` are broken; results that lack them get them."""
        broken, places = found.broken(self.norm, eps), self.places[part.cpu()]
        for results in self.all_results:
            new = broken & ~results.broken(self.norm, eps)[places]
            distances = {norm: values[new] for norm, values in found.distances.items()}
            images = found.images[self.norm][new] if found.images else None
            results.record(places[new], self.norm, distances, found.predictions[self.norm][new], images=images)
        return broken

    def square(self, eps: float, white: Tensor, ends: Tensor) -> Tensor:
        """(n,) bool on the CPU: standing under all white-box attacks but broken by a short Square attack.

        It is tried on the quarter whose margin the white-box attack that ended at `ends` (n, C, H, W) has left the
        smallest share of, and on the next as long as it breaks one.
        """
        gained = torch.zeros(len(white), dtype=torch.bool)
        standing = (~white).nonzero().squeeze(1)
        if not len(standing):
            return gained
        nearest = standing[self._left(ends)[standing].argsort(stable=True)]
        for group in torch.split(nearest, max(LEAST, -(-len(standing) // 4))):
            gained[group.cpu()] = found = self._searched(group, eps)
            if not bool(found.any()):
                break
        return gained

    def _searched(self, group: Tensor, eps: float) -> Tensor:
        """(m,) bool on the CPU: which of the examples `group` (m,) a short Square breaks; they are entered."""
        results, context = self._start(group), self.context
        examples = Examples(
            context.model, self.clean[group], self.labels[group], self.ids[group],
            num_classes=context.dataset.num_classes, seed=context.seed, batch_size=context.batch_size,
        )  # fmt: skip
        run = named_attack("square", {"queries": QUERIES, "patient": True})
        run_attack(run, examples, self.norm, [eps], results=results)
        return self._entered(group, eps, results)

    def _left(self, ends: Tensor) -> Tensor:
        """(n,) the share of the clean images' margins that is left at others."""
        shares = []
        with torch.no_grad():
            for part in self._parts():
                margins = [
                    advantage(self.context.model(images[part]), self.labels[part]) for images in (ends, self.clean)
                ]
                shares.append(margins[0] / margins[1])
        return torch.cat(shares)

    def unseen_changes(self, eps: float, ends: Tensor, among: Tensor) -> int:
        """How many of `among` change margins by stairs or steps unseen by gradients, to `ends` or the brightest."""
        return sum(int(self._surprises(part, eps, ends).sum()) for part in self._parts(among))

    def _surprises(self, part: Tensor, eps: float, ends: Tensor) -> Tensor:
        clean, model = self.clean[part], self.context.model
        ones = torch.ones_like(clean)
        radius = clean.new_full((len(clean),), eps)
        bright = (clean + ones * per_example(radius / distance(ones, self.norm), clean)).clamp(0.0, 1.0)
        rough, _ = Path(model, clean, ends[part], self.labels[part]).surprises()
        _, jump = Path(model, clean, bright, self.labels[part]).surprises(halvings=HALVINGS)
        return (rough > ROUGH) | (jump > JUMP)

    def clean_gradients(self) -> dict[str, int]:
        """How many images have a gradient that is zero in every pixel, by its loss, or that margins do not follow."""
        found = {"zero_margin": 0, "zero_cross_entropy": 0, "wrong": 0}
        for part in self._parts():
            images = self.clean[part].detach().requires_grad_(True)
            with torch.enable_grad():
                logits = self.context.model(images)
                margins = LOSS_FUNCTIONS["margin"](logits, self.labels[part]).sum()
                unit = factor_of(self.context.model)
                losses = LOSS_FUNCTIONS["softmax_cross_entropy"](logits / unit, self.labels[part]).sum()
            (gradient,) = torch.autograd.grad(margins, images, retain_graph=True)
            (other,) = torch.autograd.grad(losses, images)
            found["zero_margin"] += int((gradient == 0).flatten(1).all(1).sum())
            found["zero_cross_entropy"] += int((other == 0).flatten(1).all(1).sum())
            found["wrong"] += int(self._does_not_follow(part, logits.detach(), gradient).sum())
        return found

    def _does_not_follow(self, part: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
        """Whether margins hardly change along their gradient, by what it says; `logits` are the clean images'."""
        clean, labels = self.clean[part], self.labels[part]
        moved = (clean + STRIDE * gradient.sign()).clamp(0.0, 1.0)
        promised = (gradient * (moved - clean)).flatten(1).sum(1)
        with torch.no_grad():
            change = advantage(logits, labels) - advantage(self.context.model(moved), labels)
        # a promise that rounding could swallow says nothing
        return (promised > rounding(logits)) & ~(change > FOLLOWED * promised)

    def unsteady_answers(self) -> int:
        """How many images are classified otherwise with invisible noise, in another order."""
        noise = keyed_uniform(self.context.seed, "masking/invisible", self.ids, self.clean.shape[1:])
        noisy = (self.clean + INVISIBLE * (2.0 * noise - 1.0)).clamp_(0.0, 1.0).flip(0)
        batches = torch.split(noisy, self.context.batch_size)
        with torch.no_grad():
            said = torch.cat([answers(self.context.model(images)) for images in batches])
        return int((said.flip(0) != self.labels).sum())

    def random_outputs(self) -> int:
        """How many images get other logits the second time (relative difference above 1e-4)."""
        with torch.no_grad():
            twice = [[self.context.model(self.clean[part]) for _ in range(2)] for part in self._parts()]
        return sum(int(((one - other).norm(dim=1) > 1e-4 * one.norm(dim=1)).sum()) for one, other in twice)

    def _parts(self, among: Tensor | None = None) -> Sequence[Tensor]:
        """Indices of all examples, or of those of `among` (n,) bool, batch by batch."""
        chosen = torch.ones_like(self.ids, dtype=torch.bool) if among is None else among
        return [part for part in torch.split(chosen.nonzero().squeeze(1), self.context.batch_size) if len(part)]
