"""robustness: any attacks, by name, in any norms and at any radii; each on all images, or each on what stands.

A suite lists `[[parameters.attacks]]`, each with `attack = "apgd-t"`, `"torchattacks:CW"`, `"foolbox:FGSM"`, a plug-in,
or `"my_attack.py:function"`, its keywords, and, if it likes, `name` and `norms`. `chained = true` gives every
attack what those before it left standing; `distances = true` reports how small the smallest perturbation is. What the
other protocols with attacks stand for is written down in bench.protocols.robustness.presets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bench.attacks.adapters.under_way import UnderWay
from bench.attacks.registry import find_attack
from bench.attacks.user_files import UserFile, named_function
from bench.core.devices import computed_by
from bench.core.files import user_cache
from bench.core.names import unknown_name
from bench.core.threat import Norm
from bench.core.toml_files import Section
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import EXTERNAL, ExampleValues, Metric, MetricKey
from bench.leaderboard.statistics.intervals import median_interval
from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.robustness.masking import PROBE_GRADIENTS, masking_findings, transfer_dependency
from bench.protocols.robustness.plan import WORST, Entry, Parameters, Plan, untouched
from bench.protocols.robustness.rows import (
    accuracies_after,
    bad_gradients,
    robust_accuracies,
    survival,
    union_accuracy,
    union_key,
)
from bench.protocols.robustness.unit import RobustnessUnit

_CALL = 16
"""An attack on an image, in the measure of progress; the probe is a few of its parts."""
_STEPS, _GRADIENTS_A_STEP = 50, 3
"""Steps of an attack that does not say; an image's gradients for each, over all attempts, as measured of sweeps."""
_ON_DLR = {"apgd-dlr", "apgd-t", "pyautoattack:apgd-dlr", "pyautoattack:apgd-t"}


class Robustness(Protocol):
    """Robust accuracy by attack, norm and radius, over all attacks, and over all norms at the reference radii."""

    search_takes_precision = True
    saves_adversarial = True
    parameters_type: ClassVar[type[Section]] = Parameters

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.plan: Plan = parameters.plan()
        known = [entry.prepared(None).attack for entry in self.plan.entries if not entry.is_file]
        files = (named_function(entry.attack) for entry in self.plan.entries)
        self.program_files = frozenset(found[0] for found in files if found is not None)
        self.needs_gradients = any(attack.needs_gradients for attack in known)
        self.search_takes_precision = any("precision" in attack.takes for attack in known)
        self._keyed = all(attack.keyed and not attack.whole_units for attack in known) and not self.program_files
        self.keeps_under_way = not self._keyed
        self.probes_masking = bool(self.plan.probe_every) and self.plan.mode in ("each", "chained")

    @property
    def may_be_cut(self) -> bool:
        """Not where an attack draws its random numbers for the images of a unit as a whole."""
        return super().may_be_cut and self._keyed

    @property
    def fills_device(self) -> bool:
        """Wherever it may be cut: an attack keeps its batch full from the images of its unit."""
        return self.may_be_cut

    def use_program(self, program: UserFile | None) -> None:
        self.program = program if self.program_files else None
        for entry in self.plan.entries:
            entry.prepared(self.program)

    def require_dataset(self, name: str) -> None:
        if name not in self.plan.radii:
            raise unknown_name(name, self.plan.radii, "data set for this suite")
        used: set[str] = set()
        for entry in self.plan.entries:
            if self.program is None and entry.is_file:
                used.update(self.plan.radii_of(name))  # it may work in any
            else:
                norms = self._norms_of(entry, name)
                used.update(norms)
                entry.require_stages(norms)
                require = find_attack(entry.attack, self.program).require
                if require is not None:
                    require()
        for norm in self.plan.radii_of(name):
            if self.plan.mode == "chained" and norm not in used:  # its verdict were that of no attack
                raise untouched(norm, "no attack of this suite")

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:
        found = transfer_dependency(dataset, model_name, registry) if self.plan.probe_every else {}
        return found if self.program is None else found | {"attack_program": Dependency(self.program.sha256)}

    def work(self, dataset: str, count: int) -> int:
        """Attacks on images, in parts of _CALL, and what the probe is beside them."""
        radii, chained = self.plan.radii_of(dataset), self.plan.mode == "chained"
        calls = sum(len(radii[norm]) if chained else 1 for _, norm in self._calls(dataset))
        return count * (_CALL * calls + self._probing())

    def _probing(self) -> int:
        """The probe's work, an image on average: its gradients over an attack's, by the suite's steps."""
        if not self.probes_masking:
            return 0
        steps = [int(entry.keywords.get("steps", _STEPS)) for entry in self.plan.entries]
        gradients = _GRADIENTS_A_STEP * max(1.0, sum(steps) / len(steps))
        return max(1, round(_CALL * PROBE_GRADIENTS / self.plan.probe_every / gradients))

    def _norms_of(self, entry: Entry, dataset: str) -> list[str]:
        offered: list[str] = list(self.plan.radii_of(dataset))
        if self.plan.mode == "distances" or dataset in self.plan.pixels:
            offered.append("l0")
        return entry.norms_of(find_attack(entry.attack, self.program), offered)

    def _calls(self, dataset: str) -> list[tuple[str, Any]]:
        """The attacks' names with their norms, in the order of the suite."""
        return [(entry.name, norm) for entry in self.plan.entries for norm in self._norms_of(entry, dataset)]

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        predictions, findings = context.clean_pass()
        attacks = {entry.name: entry.prepared(self.program) for entry in self.plan.entries}
        attacking = replace(context, on_progress=lambda images: context.on_progress(_CALL * images))
        # where a unit cannot be cut, what its attacks have come to is kept from one process to the next
        where = f"{context.identity} {(context.start, context.stop, context.batch_size, context.save_adversarial)}"
        kept, by = bool(context.identity) and not self._keyed, computed_by(context.device)
        under_way = UnderWay(user_cache("attacks"), where, by) if kept else None
        unit = RobustnessUnit(
            self.plan, attacking, predictions, attacks, calls=self._calls(context.dataset.name),
            probe_work=self._probing() * len(predictions), on_probe=context.on_progress, under_way=under_way,
        )  # fmt: skip
        result: UnitResult = getattr(unit, self.plan.mode)()
        if under_way is not None:
            under_way.remove()
        bad = result.counters.get("bad_gradients", 0)
        if bad:
            findings.append(bad_gradients(bad, result.counters["gradient_evaluations"]))
        result.findings = findings + self._remarks(context)
        return result

    def _remarks(self, context: EvaluationContext) -> list[Finding]:
        classes = context.dataset.num_classes
        if classes >= 4 or _ON_DLR.isdisjoint(entry.attack for entry in self.plan.entries):
            return []
        evidence = f"{classes} classes, for which AutoAttack's DLR losses are not defined"
        advice = "the margin over the spread of the logits there is takes their place; nothing needs to be done"
        return [Finding("few_classes", "note", evidence, advice)]

    def findings(self, counters: dict[str, int]) -> list[Finding]:
        return masking_findings(counters)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        values: Callable[[str, pd.DataFrame], list[ExampleValues]] = getattr(self, f"_values_of_{self.plan.mode}")
        external = records["attack"].astype(str).str.startswith(EXTERNAL)
        found = values(dataset, records[~external])
        for name in dict.fromkeys(records.loc[external, "attack"].astype(str)):
            found += self._best_known(dataset, records[records["attack"] == name], name)
        return found

    def _best_known(self, dataset: str, records: pd.DataFrame, name: str) -> list[ExampleValues]:
        """What rows say in which others' adversarial images have been entered."""
        if self.plan.mode == "distances":
            return []  # medians, as of every attack
        if self.plan.mode == "across_norms":
            return [survival(union_key(name), records)]
        return [*robust_accuracies(records, name), *union_accuracy(records, self.plan.reference_of(dataset), name)]

    def _values_of_each(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        names = [entry.name for entry in self.plan.entries]
        found = [clean_accuracy(records)]
        for name in names:
            found += robust_accuracies(records[records["attack"] == name], name)
        reference = self.plan.reference_of(dataset)
        if len(names) == 1:
            return found + union_accuracy(records, reference, names[0])
        worst = records.groupby(["example_id", "norm", "eps"], observed=True)["broken"].any().reset_index()
        return [*found, *robust_accuracies(worst, WORST), *union_accuracy(worst, reference, WORST)]

    def _values_of_chained(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        verdict = self.plan.verdict
        verdicts, others = (records[(records["attack"] == verdict) == chosen] for chosen in (True, False))
        found = [clean_accuracy(verdicts)]
        for norm, radii in self.plan.radii_of(dataset).items():
            names = [entry.name for entry in self.plan.entries if self._ran_in(entry, norm, dataset, others)]
            for eps in radii:
                found += accuracies_after(others, verdicts, names, norm, eps=eps)
        found += robust_accuracies(verdicts, verdict)
        return found + union_accuracy(verdicts, self.plan.reference_of(dataset), verdict)

    def _ran_in(self, entry: Entry, norm: Norm, dataset: str, records: pd.DataFrame) -> bool:
        """Whether an attack was used in a norm; of a file that is not at hand the records tell."""
        if entry.is_file and self.program is None and entry.norms is None:
            return bool(((records["attack"] == entry.name) & (records["norm"] == norm)).any())
        return norm in (entry.norms or self._norms_of(entry, dataset))

    def _values_of_across_norms(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        found_in, name = records.set_index("example_id")["found_in_norm"], self.plan.entries[0].name
        keys = {norm: MetricKey("first_broken", attack=name, norm=norm) for norm in self.plan.reference_of(dataset)}
        first = [ExampleValues(key, found_in == norm, "descriptive", "share") for norm, key in keys.items()]
        return [clean_accuracy(records), *first, survival(union_key(name), records)]

    def _values_of_distances(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        return [clean_accuracy(records)]

    def further_metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:  # noqa: ARG002
        """Median distances, over the examples that are classified right."""
        if self.plan.mode != "distances":
            return []
        metrics = []
        right = records[records["label"] == records["prediction"]]
        for (attack, norm), group in right.groupby(["attack", "norm"], sort=False, observed=True):
            values = group["distance"].to_numpy(dtype=float)
            # the one that stays finite as long as half of the images have been broken
            median = float(np.quantile(values, 0.5, method="lower"))
            key, bounds = MetricKey("median_distance", attack=str(attack), norm=str(norm)), median_interval(values)
            metrics.append(Metric(key, median, *bounds, len(values), "higher", "number", "headline"))
        return metrics
