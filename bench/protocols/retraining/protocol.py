"""retrain: ROAR and KAR. Remove (or keep) the pixels that a map ranks highest, retrain from scratch, see what is lost.

Source: Bridging, section 3, after Hooker et al. 2019; what its published code gets wrong is put right (see the
docstrings of bench.attributions.pixel_scores and bench.training.retraining).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.attacks.pgd import attacked_model
from bench.attributions.pixel_scores import (
    blurred,
    constant_maps,
    free_scores,
    gradients_a_map,
    pixel_ranks,
    pixel_scores,
    rank_type,
)
from bench.core.devices import computed_by
from bench.core.errors import BenchError
from bench.core.files import computed_once, sha256_bytes
from bench.data import ImageDataset, known_spec
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, Metric
from bench.protocols.base import EvaluationContext, Protocol, UnitResult
from bench.protocols.clean_pass import clean_pass
from bench.protocols.retraining.cache import RecordCache, Unfinished, UnfinishedTraining
from bench.protocols.retraining.metrics import MASK_ONLY, RETRAINING_COLUMNS, leakage_finding, retraining_metrics
from bench.protocols.retraining.parameters import Group, Parameters
from bench.training.retraining import Mask, MaskedImages, retrain

_MAP_BATCH = 250
_INVISIBLE = 1e-7
"""Bridging, pitfall 1: below this, the published code's map is as small as the noise that breaks its ties."""
_TRAINING_IDS = 1 << 32
"""Added to the ids of training images, so that their random numbers differ from those of test images."""


class Retrain(Protocol):
    """Accuracy of nets retrained without (ROAR) or with only (KAR) the top pixels; the area against random pixels."""

    needs_training_split = True
    needs_gradients = True
    keeps_under_way = True
    batch_size_bounds_memory = False  # the suite pins the batches that nets are trained on
    parameters_type = Parameters
    parameters: Parameters

    def require_dataset(self, name: str) -> None:
        known_spec(name, "retraining")

    def require_images(self, shape: tuple[int, ...], name: str) -> None:
        self.parameters.require_images(shape, name)

    def units(self, examples: int, values: int = 1) -> list[tuple[int, int]]:  # noqa: ARG002  (nets are cut, not examples)
        return [(index, index + 1) for index in range(len(self.parameters.groups()))]

    def work(self, dataset: str, count: int) -> int:
        return sum(self.unit_work(dataset, index, index + 1) for index in range(count))

    def unit_work(self, dataset: str, start: int, stop: int) -> int:  # noqa: ARG002
        """Nets times epochs, in thousandths, and before them the judged model's maps, a gradient as much as a step."""
        return sum(self._training_work(group) + self._map_work(group) for group in self.parameters.groups()[start:stop])

    def _training_work(self, group: Group) -> int:
        return 1000 * self.parameters.nets(group) * self.parameters.epochs

    def _map_work(self, group: Group) -> int:
        return 1000 * gradients_a_map(group.map.rpartition(":")[2]) if group.of_the_model else 0

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        frames, findings = [], []
        counters = {"nets_trained": 0, "nets_from_cache": 0}
        for group in self.parameters.groups()[context.start : context.stop]:
            frame, found = self._evaluate_group(group, context, counters)
            frames.append(frame)
            findings += found
        return UnitResult(pd.concat(frames, ignore_index=True), counters, findings)

    def _evaluate_group(
        self, group: Group, context: EvaluationContext, counters: dict[str, int]
    ) -> tuple[pd.DataFrame, list[Finding]]:
        pixels = context.dataset.shape[2] * context.dataset.shape[3]
        masks = self.parameters.masks(group, pixels)
        if group.of_the_model:
            return self._trained_group(group, masks, context, counters)
        # of one version of torch: a run is not to mix two
        cache = RecordCache(self._cache_key(group, masks, context) | {"torch": str(torch.__version__)})
        with computed_once(cache.path):
            found = cache.read()
            if found is not None:
                counters["nets_from_cache"] += len(found)
                context.on_progress(self.unit_work("", context.start, context.stop))
                return found, []
            records, findings = self._trained_group(group, masks, context, counters)
            cache.write(records)
            return records, findings

    def _trained_group(
        self, group: Group, masks: list[Mask], context: EvaluationContext, counters: dict[str, int]
    ) -> tuple[pd.DataFrame, list[Finding]]:
        pixels = context.dataset.shape[2] * context.dataset.shape[3]
        key, by = self._group_key(group, masks, context), computed_by(context.device)
        kept = {what: Unfinished(key, what, by) for what in ("train", "test", "nets")}
        training, test, findings = self._data(group, context, kept)
        steps = self.parameters.epochs * math.ceil(len(training.labels) / self.parameters.batch_size)
        progress = _Progress(context, self._training_work(group), steps * self.parameters.nets(group))
        correct = retrain(
            masks, group.seeds, self.parameters.schedule(context.dataset.name), training, test=test,
            device=context.device, on_step=progress.step,
            under_way=UnfinishedTraining(kept["nets"], _digest(training.ranks, test.ranks)),
        )  # fmt: skip
        counters["nets_trained"] += self.parameters.nets(group)
        records = self._records(group, masks, correct, pixels)
        for one in kept.values():
            one.remove()
        return records, [*findings, *leakage_finding(records, context.dataset.num_classes)]

    def _data(
        self, group: Group, context: EvaluationContext, kept: Mapping[str, Unfinished]
    ) -> tuple[MaskedImages, MaskedImages, list[Finding]]:
        training = _require_training(context.training, context.dataset)
        # mean of the whole training split, also where only a part is used; in raw pixels, before any normalisation
        fill = (training.images.to(torch.float64).mean((0, 2, 3)) / 255.0).to(torch.float32)
        count = self.training_count(training)
        parts = ((training, count, _TRAINING_IDS), (context.dataset, context.examples, 0))
        findings: list[Finding] = []
        made, progress = [], _Progress(context, self._map_work(group), count + context.examples)
        for (data, count, first_id), under_way in zip(parts, (kept["train"], kept["test"]), strict=True):
            places, found = self._ranks(
                group, context, data, count, first_id=first_id, kept=under_way, on_maps=progress.step
            )
            findings += found
            shapes_only = group.map.startswith(MASK_ONLY)
            made.append(MaskedImages(data.first(count), places, data.labels[:count], fill, shapes_only=shapes_only))
        first = {finding.id: finding for finding in reversed(findings)}  # of the training split, where both have it
        return made[0], made[1], [*first.values(), *self._output_findings(group, context)]

    def _output_findings(self, group: Group, context: EvaluationContext) -> list[Finding]:
        """What the judged model's logits of the first test images tell, where its maps are used at all."""
        if not group.of_the_model:
            return []
        images = context.dataset.pixels(slice(0, min(context.examples, _MAP_BATCH))).to(context.device)
        classes = context.dataset.num_classes
        with attacked_model(context.model):
            return clean_pass(context.model, context.model_name, images, classes, batch_size=_MAP_BATCH)[1]

    def training_count(self, training: ImageDataset) -> int:
        """How many training images are used, from the first on."""
        wanted = self.parameters.training_examples or len(training)
        if wanted > len(training):
            raise BenchError(f"the suite wants {wanted} training images, {training.name} has {len(training)}.")
        return wanted

    def _ranks(
        self, group: Group, context: EvaluationContext, data: ImageDataset, count: int, *, first_id: int,
        kept: Unfinished, on_maps: Callable[[int], None] = lambda _: None,
    ) -> tuple[Tensor, list[Finding]]:  # fmt: skip
        kind, _, name = group.map.rpartition(":")
        size = data.shape[2:]
        if group.map == "unmasked":
            return torch.zeros((count, *size), dtype=rank_type(size[0] * size[1])), []
        places, seen, fits, done = [], [], "", 0
        for begin in range(0, count, _MAP_BATCH):
            if begin < done:
                continue
            part = slice(begin, min(begin + _MAP_BATCH, count))
            images, ids = data.pixels(part), torch.arange(part.start, part.stop) + first_id
            if not group.of_the_model:
                places.append(pixel_ranks(free_scores(images, ids, name), ids))
                continue
            with attacked_model(context.model):
                found = pixel_scores(context.model, images.to(context.device), ids, name, scalar=self.parameters.scalar)
            scores, factors = (one.cpu() for one in found)
            if kind == "blurred":
                scores = blurred(scores, self.parameters.blur_sigma)
            broken = ~scores.flatten(1).isfinite().all(1)
            scores[broken] = 0.0
            places.append(pixel_ranks(scores, ids))
            median = scores.flatten(1).median(1).values * factors
            seen.append(torch.stack([constant_maps(scores) & ~broken, broken, (median < _INVISIBLE) & ~broken]))
            if not fits:  # maps of another model, or by other code, are told by the first ones
                fits = _digest(scores, median)
                if former := kept.read(fits):
                    places[:], seen[:] = [former["places"]], [former["seen"]]
                    done = len(former["places"])
                    on_maps(done)
                    continue
            on_maps(len(ids))
            kept.write(fits, lambda: {"places": torch.cat(places), "seen": torch.cat(seen, 1)})
        findings = [] if not seen else _map_findings(torch.cat(seen, 1), context.model_name, name, data.split)
        return torch.cat(places), findings

    def _group_key(self, group: Group, masks: list[Mask], context: EvaluationContext) -> dict[str, Any]:
        """What decides the nets of a group but for the judged model, whose name stands for it."""
        own = {"model": context.model_name, "scalar": self.parameters.scalar, "blur": self.parameters.blur_sigma}
        return self._cache_key(group, masks, context) | (own if group.of_the_model else {})

    def _cache_key(self, group: Group, masks: list[Mask], context: EvaluationContext) -> dict[str, Any]:
        training = _require_training(context.training, context.dataset)
        return {
            "map": group.map,
            "direction": self.parameters.direction if group.map in ("sobel", "random_blocks") else "",
            "masks": repr(masks),
            "seeds": list(group.seeds),
            "schedule": repr(self.parameters.schedule(context.dataset.name)),
            "training": [training.sha256, self.training_count(training)],
            "test": [context.dataset.sha256, context.examples],
            "device": context.device.type,
        }

    def _records(self, group: Group, masks: list[Mask], correct: Tensor, pixels: int) -> pd.DataFrame:
        kept = [(seed, mask.last_kept - mask.first_kept) for seed in group.seeds for mask in masks]
        rows = [
            {
                "map": group.map,
                "seed": seed,
                "removed": 1.0 - count / pixels,
                "kept_pixels": count,
                "correct": int(of_net.sum()),
                "n_examples": len(of_net),
                "correct_bits": np.packbits(of_net.numpy()).tobytes(),
            }
            for (seed, count), of_net in zip(kept, correct.flatten(0, 1), strict=True)
        ]
        return pd.DataFrame(rows).astype(RETRAINING_COLUMNS)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        return []  # nets of several seeds stand behind every number: none is a mean over examples alone

    def further_metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:  # noqa: ARG002
        return retraining_metrics(self.parameters.direction, records)


def _digest(*tensors: Tensor) -> str:
    return sha256_bytes(b"".join(one.contiguous().numpy().tobytes() for one in tensors))


def _require_training(training: ImageDataset | None, dataset: ImageDataset) -> ImageDataset:
    if training is None:
        raise BenchError(f"ROAR and KAR need the training split of {dataset.name}; see `bench datasets`.")
    if training.sha256 == dataset.sha256:
        raise BenchError(f"{training.source} and {dataset.source} are the same images; a test split has to be others.")
    return training


class _Progress:
    """Turns steps of nets, or maps, into their part of the work of a unit, exact at the end."""

    def __init__(self, context: EvaluationContext, work: int, steps: int) -> None:
        self.context, self.work, self.steps = context, work, steps
        self.done = self.reported = 0

    def step(self, count: int) -> None:
        self.done += count
        now = self.work * self.done // self.steps
        if now > self.reported:
            self.context.on_progress(now - self.reported)
            self.reported = now


def _map_findings(seen: Tensor, model: str, name: str, split: str) -> list[Finding]:
    """What is wrong with the maps of a split; `seen` is (3, N): constant, not finite, and invisible in float32."""
    constant, broken, invisible = (float(row.float().mean()) for row in seen)
    if constant + broken == 1.0:
        what = "has the same score at all pixels" if constant else "is NaN or infinite"
        raise BenchError(
            f"every {name} map of {model} {what}, so there is nothing to rank; look at the net's gradients, take "
            "another scalar (logit) or another attribution."
        )
    at_random = "their pixels are ranked at random, which pulls the score towards 0"
    found = []
    if broken > 0.0:
        evidence = f"{100 * broken:.2f} % of the {split} images have a {name} map with NaN or infinite values"
        found.append(Finding("non_finite_maps", "warning", evidence, f"{at_random}; mend the net's backward pass"))
    if constant > 0.0:
        evidence = f"{100 * constant:.2f} % of the {split} images have a constant {name} map"
        found.append(Finding("constant_maps", "warning", evidence, at_random))
    if found:
        return found
    if invisible > 0.01:
        evidence = f"{100 * invisible:.1f} % of the {split} images have a {name} map with a median below 1e-7"
        advice = "the published code ranks those by its tie-breaking noise; here no noise is added"
        return [Finding("saturated_gradients", "note", evidence, advice)]
    return []
