"""What the gradient-masking report does to a net; bench.protocols.robustness.masking says what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.losses import LOSS_FUNCTIONS, LossName, advantage, answers
from bench.attacks.pgd import pgd
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults, pull_inside, verify
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import Norm
from bench.protocols.base import EvaluationContext

STEPS = 20
QUERIES = 200
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

    def broken(self, eps: float, loss: LossName, *, restart: int = 0) -> Tensor:
        """(n,) bool: plain PGD's last iterate, verified."""
        return torch.cat([self._attack(part, self.context.model, eps, loss, restart=restart) for part in self._parts()])

    def transferred(self, eps: float, source: nn.Module) -> Tensor:
        """(n,) bool: what plain PGD finds on another net, verified on the one under test."""
        return torch.cat([self._attack(part, source, eps, "margin", restart=0) for part in self._parts()])

    def _attack(self, part: Tensor, attacked: nn.Module, eps: float, loss: LossName, restart: int) -> Tensor:
        clean, labels = self.clean[part], self.labels[part]
        start = keyed_uniform(
            self.context.seed, f"masking/{self.norm}", self.ids[part], clean.shape[1:],
            extra=torch.full_like(self.ids[part], restart),
        )  # fmt: skip
        found = pgd(
            attacked, clean, labels, norm=self.norm, eps=eps, steps=STEPS, step_size=2.5 * eps / STEPS, loss=loss,
            start=start,
        )  # fmt: skip
        radius = clean.new_full((len(clean),), eps)
        verified, distances, predictions = verify(self.context.model, found, clean, labels, eps=radius, norm=self.norm)
        if attacked is self.context.model:
            chosen = verified.cpu()
            measured = {key: value.cpu()[chosen] for key, value in distances.items()}
            images = pull_inside(found, clean, radius, self.norm)[verified] if self._keeps else None
            self._enter(part.cpu()[chosen], eps, measured, predictions.cpu()[chosen], images=images)
        return verified.to(labels.device)

    @property
    def _keeps(self) -> bool:
        """Whether adversarial images are kept."""
        return any(results.images for results in self.all_results)

    def _enter(
        self, found: Tensor, eps: float, distances: dict[Norm, Tensor], predictions: Tensor, *, images: Tensor | None
    ) -> None:
        """Enter verified adversarial images of the probed examples `found` (m,) into the results that lack them."""
        for results in self.all_results:
            new = ~results.broken(self.norm, eps)[self.places[found]]
            results.record(
                self.places[found][new],
                self.norm,
                {norm: values[new] for norm, values in distances.items()},
                predictions[new],
                images=None if images is None else images.cpu()[new],
            )

    def square(self, eps: float, white: Tensor) -> Tensor:
        """(n,) bool on the CPU: standing under all white-box attacks but broken by a short Square attack."""
        labels, keep = self.labels.cpu(), self.clean if self._keeps else None
        results = AttackResults.start(torch.where(white.cpu(), -1, labels), labels, keep)
        before = results.broken(self.norm, eps)
        context = self.context
        examples = Examples(
            context.model, self.clean, self.labels, self.ids, num_classes=context.dataset.num_classes,
            seed=context.seed, batch_size=context.batch_size,
        )  # fmt: skip
        run = named_attack("square", {"queries": QUERIES, "patient": True})
        run_attack(run, examples, self.norm, [eps], results=results)
        gained = results.broken(self.norm, eps) & ~before
        distances = {norm: values[gained] for norm, values in results.distances.items()}
        images = results.images[self.norm][gained] if results.images else None
        said = results.predictions[self.norm][gained]
        self._enter(gained.nonzero().squeeze(1), eps, distances, said, images=images)
        return gained

    def zero_gradients(self, loss: LossName) -> int:
        """How many images have a gradient that is zero in every pixel."""
        return self._count(lambda part: (self._gradient(part, loss) == 0).flatten(1).all(1))

    def wrong_gradients(self) -> int:
        """How many images' margins hardly change along their gradient, by what it says."""
        return self._count(self._does_not_follow)

    def _does_not_follow(self, part: Tensor) -> Tensor:
        clean, labels = self.clean[part], self.labels[part]
        gradient = self._gradient(part, "margin")
        moved = (clean + STRIDE * gradient.sign()).clamp(0.0, 1.0)
        promised = (gradient * (moved - clean)).flatten(1).sum(1)
        with torch.no_grad():
            logits = self.context.model(clean)
            change = advantage(logits, labels) - advantage(self.context.model(moved), labels)
        # a promise that rounding could swallow says nothing
        visible = promised > 1e-4 * (logits.amax(1) - logits.amin(1)) + 1e-5 * logits.abs().amax(1)
        lost: Tensor = visible & ~(change > FOLLOWED * promised)
        return lost

    def _gradient(self, part: Tensor, loss: LossName) -> Tensor:
        images = self.clean[part].detach().requires_grad_(True)
        with torch.enable_grad():
            value = LOSS_FUNCTIONS[loss](self.context.model(images), self.labels[part]).sum()
        (gradient,) = torch.autograd.grad(value, images)
        return gradient

    def unsteady_answers(self) -> int:
        """How many images are classified otherwise with invisible noise, in another order."""
        noise = keyed_uniform(self.context.seed, "masking/invisible", self.ids, self.clean.shape[1:])
        noisy = (self.clean + INVISIBLE * (2.0 * noise - 1.0)).clamp_(0.0, 1.0).flip(0)
        with torch.no_grad():
            said = torch.cat(
                [answers(self.context.model(images)) for images in torch.split(noisy, self.context.batch_size)]
            )
        return int((said.flip(0) != self.labels).sum())

    def random_outputs(self) -> int:
        """How many images get other logits the second time (relative difference above 1e-4)."""
        return self._count(self._differs)

    def _differs(self, part: Tensor) -> Tensor:
        with torch.no_grad():
            first, second = self.context.model(self.clean[part]), self.context.model(self.clean[part])
        different: Tensor = (first - second).norm(dim=1) > 1e-4 * first.norm(dim=1)
        return different

    def _count(self, flags: Callable[[Tensor], Tensor]) -> int:
        return sum(int(flags(part).sum()) for part in self._parts())

    def _parts(self) -> Sequence[Tensor]:
        return torch.split(torch.arange(len(self.ids), device=self.ids.device), self.context.batch_size)
