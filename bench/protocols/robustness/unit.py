"""One work unit of the robustness protocol: the attacks of a plan on the unit's images, one function for each mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bench.attacks.adapters.under_way import UnderWay
from bench.attacks.registry import NamedAttack
from bench.attacks.running import Examples, fewest_changes, run_attack
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm
from bench.leaderboard.evidence.columns import summed
from bench.leaderboard.evidence.records import ROBUSTNESS_COLUMNS
from bench.protocols.base import EvaluationContext, UnitResult
from bench.protocols.robustness.masking import PROBE_STEPS, SQUARE_GAINED, probe, probed_norm
from bench.protocols.robustness.plan import Plan
from bench.protocols.robustness.rows import example_columns, robust_rows
from bench.protocols.robustness.saved import smallest_images


@dataclass(slots=True)
class RobustnessUnit:
    """One work unit under a plan; a method for each mode, which gives records and counters."""

    plan: Plan
    context: EvaluationContext
    predictions: Tensor
    attacks: Mapping[str, NamedAttack]
    calls: Sequence[tuple[str, Any]]
    """Names of attacks with the norms they are used in, in the order of the suite."""
    probe_work: int = 0
    """How much of the unit's work the probe is; `on_probe` is told of it, in parts."""
    on_probe: Callable[[int], None] = lambda _: None
    examples: Examples = field(init=False)
    under_way: UnderWay | None = None
    """Keeps what attacks that take the unit's images all together have come to."""
    changed: Tensor | None = field(init=False, default=None)
    """(N,) float64, how much the images of L0 change that are kept, those of the attack that changes least."""
    changed_images: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        context = self.context
        labels, ids = context.labels().to(context.device), context.example_ids.to(context.device)
        self.examples = Examples(
            context.model, context.images(), labels, ids, num_classes=context.dataset.num_classes, seed=context.seed,
            batch_size=context.batch_size, precision=context.precision, under_way=self.under_way,
        )  # fmt: skip

    @property
    def dataset(self) -> str:
        return self.context.dataset.name

    def _start(self) -> AttackResults:
        return AttackResults.start(self.predictions, self.context.labels(), self._kept())

    def _kept(self, rows: Tensor | None = None) -> Tensor | None:
        """The clean images, where adversarial ones are to be kept."""
        if not self.context.save_adversarial:
            return None
        return self.examples.images if rows is None else self.examples.images[rows.to(self.examples.images.device)]

    def _result(self, records: pd.DataFrame, counters: dict[str, int], found: Sequence[AttackResults]) -> UnitResult:
        """With the smallest images of those that were found, where they are kept."""
        if not self.context.save_adversarial:
            return UnitResult(records, counters)
        results = found[0] if len(found) == 1 else self._start()
        for one in found if len(found) > 1 else ():
            results.add(one, torch.arange(len(self.examples)))
            results.images |= {norm: kept for norm, kept in one.images.items() if norm not in NORMS}
        images, counts = smallest_images(self.examples, results, self.plan.radii_of(self.dataset), self.changed)
        return UnitResult(records, counters | counts, adversarial=images)

    def _probed(self, found: Sequence[AttackResults], into: Sequence[AttackResults]) -> dict[str, int]:
        """The look for gradient masking; what it breaks is broken in `into` too."""
        if not self.plan.probe_every:
            return {}
        steps = [0]

        def told() -> None:
            steps[0] += 1
            self.on_probe(self.probe_work // PROBE_STEPS)

        reference = self.plan.reference_of(self.dataset)
        counters = probe(
            self.context, self.examples.images, self.predictions, found, reference=reference,
            every=self.plan.probe_every, into=into, on_step=told,
            radii=self.plan.radii_of(self.dataset),
        )  # fmt: skip
        self.on_probe(self.probe_work - steps[0] * (self.probe_work // PROBE_STEPS))
        return counters

    def each(self) -> UnitResult:
        """Every attack on all examples."""
        radii, found = self.plan.radii_of(self.dataset), {name: self._start() for name in self.attacks}
        used: dict[str, dict[Norm, list[float]]] = {name: {} for name in self.attacks}
        frames = []
        for name, norm in self.calls:
            run = self.attacks[name]
            if norm == "l0":
                frames.append(self._at_pixels(run, found[name]))
                continue
            own = self._start() if self.plan.norms_apart else found[name]
            run_attack(run, self.examples, norm, radii[norm], results=own, on_progress=self.context.on_progress)
            if self.plan.norms_apart:
                found[name].add(own, torch.arange(len(self.examples)))
            used[name][norm] = radii[norm]
        # ours are to tell robustness; what another's finds alone stays as it is
        strong = [found[name] for name, run in self.attacks.items() if run.attack.needs_gradients]
        counters = self._probed(list(found.values()), strong)
        frames += [
            robust_rows(self.context, name, used[name], self.predictions, results=results)
            for name, results in found.items()
            if used[name]
        ]
        counters = summed([counters, *(results.counters() for results in found.values())])
        return self._result(pd.concat(frames, ignore_index=True), counters, list(found.values()))

    def _at_pixels(self, run: NamedAttack, results: AttackResults) -> pd.DataFrame:
        """Rows of an attack in L0 at the plan's numbers of changed pixels; `results` take what it costs."""
        counts, said = self._changes(run, results, by_pixel=True)
        columns = {**example_columns(self.context, self.predictions), "attack": run.name, "norm": "l0"}
        found = {
            "distance": counts.numpy(), "adversarial_prediction": torch.where(counts.isfinite(), said, -1).numpy(),
            "found_in_norm": ["l0" if 0 < count < torch.inf else "" for count in counts.tolist()],
        }  # fmt: skip
        frames = [
            pd.DataFrame({**columns, "eps": float(pixels), "broken": (counts <= pixels).numpy(), **found})
            for pixels in self.plan.pixels[self.dataset]
        ]
        return pd.concat(frames, ignore_index=True).astype(ROBUSTNESS_COLUMNS)

    def _changes(self, run: NamedAttack, results: AttackResults, *, by_pixel: bool = False) -> tuple[Tensor, Tensor]:
        """As `fewest_changes`; `results` keep an earlier attack's image where it changes less."""
        counts, said = fewest_changes(run, self.examples, results, by_pixel=by_pixel)
        self.context.on_progress(len(self.examples))
        if self.changed is not None:
            fewer = self.changed < counts
            if self.changed_images is not None:
                results.images["l0"][fewer] = self.changed_images[fewer]
            self.changed = self.changed.minimum(counts)
        else:
            self.changed = counts
        self.changed_images = results.images.get("l0")
        return counts, said

    def chained(self) -> UnitResult:
        """Every attack on what those before it left standing.

        Rows named after an attack are those of the examples that it was given; rows of the verdict are of all.
        """
        reference, total = self.plan.reference_of(self.dataset), self._start()
        frames, gained, white = [], 0, False
        radii, probed = self.plan.radii_of(self.dataset), probed_norm(reference)
        for norm in radii:
            for eps in radii[norm]:
                white = False
                for run in (self.attacks[name] for name, used in self.calls if used == norm):
                    own, given = AttackResults.start(self.predictions, self.context.labels()), ~total.broken(norm, eps)
                    found, rows = self._attacked(run, norm, eps, given)
                    for results in (total, own):
                        results.add(found, rows)
                    frames.append(
                        robust_rows(self.context, run.name, {norm: [eps]}, self.predictions, results=own, given=given)
                    )
                    if white and not run.attack.needs_gradients and (norm, eps) == (probed, reference[probed]):
                        gained += int(frames[-1]["broken"].sum())
                    white |= run.attack.needs_gradients
        strong = any(run.attack.needs_gradients for run in self.attacks.values())
        counters = total.counters() | self._probed([total], [total] if strong else [])
        # the probe's short Square attack finds nothing where a long one has been: what that one gained counts
        counters[SQUARE_GAINED] = counters.get(SQUARE_GAINED, 0) + gained
        frames.append(robust_rows(self.context, self.plan.verdict, radii, self.predictions, results=total))
        return self._result(pd.concat(frames, ignore_index=True), counters, [total])

    def _attacked(self, run: NamedAttack, norm: Norm, eps: float, given: Tensor) -> tuple[AttackResults, Tensor]:
        """What an attack finds of those examples that it is `given` (n,) bool, and their indices."""
        rows = given.nonzero().squeeze(1)
        labels = self.context.labels()[rows]
        found = AttackResults.start(labels, labels, self._kept(rows))
        if len(rows):
            run_attack(run, self.examples.take(rows), norm, [eps], results=found)
        self.context.on_progress(len(self.examples))
        return found, rows

    def across_norms(self) -> UnitResult:
        """Each norm on what those before it left standing: for each example which norm is the first to break it.

        Rows: one per example, norm `all`, no radius and no distance; `found_in_norm` is the norm that broke it.
        """
        labels, standing = self.context.labels(), self.predictions == self.context.labels()
        found_in, said = [""] * len(labels), torch.where(standing, -1, self.predictions)
        total, (run,) = self._start(), self.attacks.values()
        for norm, eps in self.plan.reference_of(self.dataset).items():
            found, rows = self._attacked(run, norm, eps, standing)
            broken = rows[found.broken(norm, eps)]
            for example in broken.tolist():
                found_in[example] = norm
            said[broken], standing[broken] = found.predictions[norm][found.broken(norm, eps)], False
            total.add(found, rows)
        columns = {
            **example_columns(self.context, self.predictions), "attack": run.name, "norm": "all", "eps": float("nan"),
            "broken": (~standing).numpy(), "distance": float("nan"), "adversarial_prediction": said.numpy(),
            "found_in_norm": found_in,
        }  # fmt: skip
        return self._result(pd.DataFrame(columns).astype(ROBUSTNESS_COLUMNS), total.counters(), [total])

    def distances(self) -> UnitResult:
        """How small the smallest perturbation is, norm by norm and attack by attack; all are upper bounds.

        In L0 they count changed values, so that a colour pixel has three.
        """
        radii, found = self.plan.radii_of(self.dataset), {name: self._start() for name in self.attacks}
        distances: dict[tuple[str, str], Tensor] = {}
        for name, norm in self.calls:
            run, results = self.attacks[name], found[name]
            if norm == "l0":
                distances[name, norm], _ = self._changes(run, results)
            else:
                run_attack(run, self.examples, norm, radii[norm], results=results, on_progress=self.context.on_progress)
                distances[name, norm] = results.distances[norm]
        columns = example_columns(self.context, self.predictions)
        frames = [
            pd.DataFrame({**columns, "attack": name, "norm": norm, "distance": values.double().numpy()})
            for (name, norm), values in distances.items()
        ]
        counters = summed([one.counters() for one in found.values()])
        return self._result(pd.concat(frames, ignore_index=True), counters, list(found.values()))
