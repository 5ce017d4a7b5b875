"""Others' adversarial images: judged by the model, and entered beside what a finished run has found.

They become a run of their own, with the records of the run that they are added to and rows of attack `external:NAME`,
which say what stands under both; so no number can rise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bench.attacks.losses import answers
from bench.attacks.norms import exact_distances
from bench.attacks.running import SLACK
from bench.attacks.verification import AttackResults
from bench.catalog.suites import suite_files
from bench.core.errors import BenchError, bench_command
from bench.core.files import locked, sha256_file
from bench.core.precision import float32_products
from bench.core.threat import Norm
from bench.leaderboard.evidence.adversarial import FILE_NAME, AdversarialImages, read_images, write_images
from bench.leaderboard.evidence.answers import may_be_same
from bench.leaderboard.evidence.manifest import Dependency, Manifest, Result, read_evidence, read_manifest
from bench.leaderboard.evidence.runs import open_run
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import EXTERNAL, Metric, MetricKey
from bench.leaderboard.rows import run_rows, short_digest
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.protocols.robustness.protocol import Robustness
from bench.protocols.robustness.saved import changes_fool_in_255ths, fooling_in_255ths
from bench.runs.external_records import with_external_rows
from bench.runs.plan import RunPlan
from bench.runs.units import ready_model

_BOX = 1e-6
"""How far float32 may put a pixel out of [0, 1]."""
UNSEEN, WRONG, BOX = "of images that the run did not judge", "misclassified without any change", "pixels outside [0, 1]"
RIGHT, FAR = "classified right by the model", "outside every ball of the suite"


@dataclass(frozen=True, slots=True)
class ExternalOutcome:
    """What became of a file of adversarial images.

    Attributes:
        base: the run that they were added to.
        folder: of the run that has what holds; None where nothing does.
        name: `external:NAME`.
        images, held: how many there were, and how many fool the model inside a ball of the suite.
        rounded: how many of the latter still do in whole 255ths.
        refused: why the others count for nothing, and how many each.
        lowered: metrics that fell, with their values before.
    """

    base: Manifest
    folder: Path | None
    name: str
    images: int
    held: int
    rounded: int
    refused: dict[str, int]
    lowered: list[tuple[Metric, float]]


def enter_images(plan: RunPlan, path: Path, name: str, leaderboard: Path) -> ExternalOutcome:
    """Judge the images of a file and add what holds to a run of the plan's model under its suite.

    That is the newest on the number of images that was asked for; where none was, on the suite's own number, else on
    most images. Where nothing holds, nothing is written.

    Raises:
        BenchError: a bad file, a suite that looks for no such images, or no finished run of the same weights, suite,
            data and seed; nothing has been written then.
    """
    protocol = plan.protocol
    if not isinstance(protocol, Robustness):
        raise BenchError(f"suite {plan.suite.name} looks for no images that fool a model.", option="suite")
    images, attack = read_images(path, plan.dataset), f"{EXTERNAL}{name}"
    radii = protocol.plan.radii_of(plan.dataset.name)
    _run_to_lower(plan, leaderboard)  # before a lock is made
    # two that lower one run side by side would each leave out what the other has found
    with locked(leaderboard / ".verify.lock", f"another bench verify is at work in {leaderboard}; wait for it."):
        manifest, records = _run_to_lower(plan, leaderboard)
        judged = _Judged(plan, ready_model(plan), records, radii)
        judged.take(images)
        records = with_external_rows(records, judged.results, judged.fewest, attack, radii=radii)
        return _written(plan, leaderboard, manifest, records, judged=judged, images=images, attack=attack, file=path)


def _run_to_lower(plan: RunPlan, leaderboard: Path) -> tuple[Manifest, pd.DataFrame]:
    """The finished run of the same model, suite, data and seed that the images are added to, with its records."""
    rows, config = read_leaderboard(leaderboard), plan.config
    card = plan.entry.card
    own = rows[(rows["model"] == card.id) & (rows["dataset"] == card.dataset) & (rows["suite"] == config.suite)]
    candidates = []
    for run_id in own.sort_values("finished_at", kind="stable")["run_id"].unique()[::-1]:
        folder = leaderboard / "runs" / str(run_id)
        known = read_manifest(folder)
        found = known.config
        same = may_be_same(known.answers, plan.answers) and all(
            short_digest(getattr(config, name)) == short_digest(getattr(found, name))
            for name in ("model_sha256", "program_sha256", "suite_sha256", "data_sha256")
        )
        if same and found.seed == plan.seed and plan.request.examples in (None, found.examples):
            candidates.append(known)  # the newest first
    if candidates:
        chosen = max(candidates, key=lambda one: (one.config.examples == plan.examples, one.config.examples))
        return read_evidence(leaderboard / "runs" / chosen.run_id)
    known_by_name = plan.suite.path in suite_files().values()
    suite = plan.suite.name if known_by_name else str(plan.suite.path)
    named = {"model": card.name, **plan.request.named, "suite": suite, "examples": plan.request.examples}
    again = bench_command("run", **named, seed=plan.seed or None, leaderboard=leaderboard)
    raise BenchError(
        f"there is no finished run of these weights, suite, images and seed to be lowered; make one: {again}."
    )


class _Judged:
    """Images under judgement: what holds, what does not, and why."""

    def __init__(
        self, plan: RunPlan, model: nn.Module, records: pd.DataFrame, radii: Mapping[Norm, Sequence[float]]
    ) -> None:
        self.plan, self.model, self.radii = plan, model, radii
        first = records.drop_duplicates("example_id").sort_values("example_id")
        self.ids = torch.tensor(first["example_id"].to_numpy(dtype=np.int64))
        self.labels = torch.tensor(first["label"].to_numpy(dtype=np.int64))
        predictions = torch.tensor(first["prediction"].to_numpy(dtype=np.int64))
        self.results = AttackResults.start(predictions, self.labels)
        self.right = predictions == self.labels
        self.fewest = torch.full(self.labels.shape, torch.inf, dtype=torch.float64)
        self.by_pixel, in_l0 = "eps" in records, records[records["norm"] == "l0"]
        self.most_changed = float(in_l0["eps"].max() if self.by_pixel else torch.inf)
        self.has_l0 = not in_l0.empty
        self.refused: Counter[str] = Counter()
        self.held: list[int] = []
        self.norms: list[str] = []
        self.said: list[int] = []
        self.rounded = 0

    def take(self, images: AdversarialImages) -> None:
        """Judge all; those of one call to the model are of different examples."""
        for norm in dict.fromkeys(images.norms.tolist()):
            places = np.flatnonzero(images.norms == norm)
            for begin in range(0, len(places), self.plan.batch_size):
                self._batch(images, places[begin : begin + self.plan.batch_size])

    def _batch(self, images: AdversarialImages, places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        ids, found = torch.from_numpy(images.ids[places]), torch.from_numpy(images.images[places])
        rows = torch.searchsorted(self.ids, ids).clamp_max_(len(self.ids) - 1)
        flat = found.flatten(1)
        reasons = (
            (UNSEEN, self.ids[rows] != ids),
            (WRONG, ~self.right[rows]),
            (BOX, (flat.amin(1) < -_BOX) | (flat.amax(1) > 1 + _BOX)),
        )
        left = torch.ones(len(ids), dtype=torch.bool)
        for reason, wrong in reasons:
            self.refused[reason] += int((left & wrong).sum())
            left &= ~wrong
        if not bool(left.any()):
            return
        device, rows = self.plan.device, rows[left]
        clean = self.plan.dataset.pixels(ids[left]).to(device)
        pixels, labels = found[left].clamp(0.0, 1.0).to(device), self.labels[rows].to(device)
        holds = torch.zeros(len(rows), dtype=torch.bool, device=device)
        rounded = holds.clone()
        with torch.no_grad(), float32_products():
            said = answers(self.model(pixels))
        fools, in_norm = said != labels, np.full(len(rows), "l0", dtype="U4")
        if self.has_l0:
            holds |= self._few_changes(pixels != clean, rows, fools)
            rounded |= holds & changes_fool_in_255ths(self.model, pixels, clean, labels)
        for norm, chosen, eps in self._balls(pixels, clean):
            part = pixels[chosen], clean[chosen], labels[chosen]
            verified = self.results.judge(
                self.model, *part, eps=eps, norm=norm, examples=rows[chosen.cpu()], claimed=fools[chosen]
            )
            in_norm[chosen[verified & ~holds[chosen]].cpu().numpy()] = norm
            holds[chosen] |= verified
            rounded[chosen] |= verified & fooling_in_255ths(self.model, *part, eps=eps, norm=norm)
        self.refused[RIGHT] += int((~fools).sum())
        self.refused[FAR] += int((fools & ~holds).sum())
        self.rounded += int(rounded.sum())
        held = holds.cpu().numpy()
        self.held += places[left.numpy()][held].tolist()
        self.norms += in_norm[held].tolist()
        self.said += said.cpu().numpy()[held].tolist()

    def _few_changes(self, changed: Tensor, rows: Tensor, fools: Tensor) -> Tensor:
        """Enter how many pixels differ, or values where the suite has no radii; which images are in a ball of L0."""
        counts = (changed.any(1) if self.by_pixel else changed).flatten(1).sum(1).cpu().double()
        counts = torch.where(fools.cpu(), counts, torch.inf)
        self.fewest[rows] = torch.minimum(self.fewest[rows], counts)
        return fools & (counts <= self.most_changed).to(fools.device)

    def _balls(self, pixels: Tensor, clean: Tensor) -> Iterator[tuple[Norm, Tensor, Tensor]]:
        """For each norm the images that lie in a ball of the suite, and the smallest such radius of each."""
        distances = exact_distances(pixels, clean)
        for norm, radii in self.radii.items():
            known = torch.tensor(sorted(radii), dtype=torch.float64, device=distances[norm].device)
            place = torch.searchsorted(known * (1.0 + SLACK), distances[norm])
            chosen = (place < len(known)).nonzero().squeeze(1)
            if len(chosen):
                yield norm, chosen.to(pixels.device), known[place[chosen]]


def _written(
    plan: RunPlan, leaderboard: Path, base: Manifest, records: pd.DataFrame, *, judged: _Judged,
    images: AdversarialImages, attack: str, file: Path,
) -> ExternalOutcome:  # fmt: skip
    """Write the run that has them, its rows, and the images that hold; nothing where none does."""
    dependencies = (base.config.dependencies or {}) | {attack: Dependency(sha256_file(file), "findings")}
    metrics = plan.protocol.metrics(plan.dataset.name, records)
    lowered = list(_fallen(metrics, base.result.metrics))
    refused = {reason: count for reason, count in judged.refused.items() if count}
    outcome = ExternalOutcome(
        base=base, folder=None, name=attack, images=len(images), held=len(judged.held), rounded=judged.rounded,
        refused=refused, lowered=lowered,
    )  # fmt: skip
    if not judged.held:
        return outcome
    finding = _finding(attack, len(images), len(judged.held), refused, lowered=len(lowered))
    result = Result(
        metrics=metrics, findings=[*(one for one in base.result.findings if one.id != finding.id), finding],
        counters=base.result.counters, seconds=base.result.seconds,
    )  # fmt: skip
    config = base.config.model_copy(update={"dependencies": dependencies})
    request = base.request.model_copy(update={"save_adversarial": False})
    manifest = base.model_copy(update={"config": config, "request": request, "status": "running"})
    run = open_run(leaderboard, manifest, fresh=True)
    try:
        held = judged.held
        norms = [own or found for own, found in zip(images.norms[held].tolist(), judged.norms, strict=True)]
        kept = AdversarialImages(
            images.ids[held], np.array(norms, dtype="U4"), images.images[held], np.array(judged.said, dtype=np.int64)
        )
        write_images(run.path / FILE_NAME, [kept], plan.dataset.sha256)
        digest = sha256_file(run.path / FILE_NAME)
        run.manifest.units = base.units
        run.write_result(records, result.model_copy(update={"adversarial_sha256": digest}))
        append_rows(leaderboard, run_rows(run.manifest))
        run.finish()
    except BaseException:
        run.stop("failed", "the images could not be entered")
        raise
    finally:
        run.release()
    return replace(outcome, folder=run.path)


def _fallen(metrics: Sequence[Metric], known: Sequence[Metric]) -> Iterator[tuple[Metric, float]]:
    """The metrics that lie below all that was known at their place, to six digits, and what that was."""
    lowest: dict[tuple[str, str, float | None], float] = {}
    for metric in known:
        place = _place(metric.key)
        lowest[place] = min(metric.value, lowest.get(place, metric.value))
    for metric in metrics:
        before = lowest.get(_place(metric.key), metric.value)
        if metric.value < before * (1 - 1e-5):
            yield metric, before


def _place(key: MetricKey) -> tuple[str, str, float | None]:
    return key.metric, key.norm, key.eps


def _finding(attack: str, images: int, held: int, refused: dict[str, int], *, lowered: int) -> Finding:
    wrong = "".join(f"; {count} {reason}" for reason, count in refused.items())
    evidence = f"{held} of {images} images of {attack} fool the model inside a ball of the suite{wrong}"
    advice = f"nothing; {lowered or 'no'} number{'' if lowered == 1 else 's'} fell by them"
    return Finding("external_images", "note", evidence, advice)
