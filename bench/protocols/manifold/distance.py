"""manifold_distance: how far adversarial examples lie from the image manifold, by one encode-decode pass of a VAE-GAN.

Source: Bridging, section 2.1; the distance with the mean code, the second filter, the reconstruction's quality and the
control are additions of ours. The control has the same perturbation turned by a quarter, as far from the image: texture
and length are the same, where it lies in the image is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.losses import LOSS_FUNCTIONS, LossName, answers
from bench.attacks.norms import distance
from bench.attacks.pgd import pgd
from bench.catalog.autoencoders import AutoencoderEntry, load_autoencoder, resolve_autoencoder
from bench.catalog.models import ModelEntry, load_model
from bench.core.bounds import LARGEST_RADIUS, Steps
from bench.core.keyed_random import keyed_normal
from bench.core.names import unknown_name
from bench.core.toml_files import Section
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, Metric
from bench.nets.vae_gan import VaeGan
from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.manifold.control import turned_images
from bench.protocols.manifold.metrics import MANIFOLD_COLUMNS, distance_metrics, explained_variance, kept_values
from bench.protocols.reference_models import reference_entry
from bench.protocols.robustness.rows import bad_gradients


class L2Attack(Section):
    """PGD in L2 without a random start, at the true label; pixels in [0, 1]."""

    eps: float = Field(gt=0, le=LARGEST_RADIUS["l2"])
    step_size: float = Field(gt=0, le=LARGEST_RADIUS["l2"])
    steps: Steps
    loss: LossName = "cross_entropy"


class Parameters(Section):
    """What a suite pins."""

    autoencoder: str = "vae_gan"
    reference_model: str = "standard"
    code: Literal["mean", "sampled"] = "mean"
    least_explained_variance: float = Field(default=0.5, ge=0, lt=1)
    datasets: dict[str, L2Attack] = Field(min_length=1)


class ManifoldDistance(Protocol):
    """L2 distance of clean and adversarial images to their reconstruction."""

    needs_gradients = True
    parameters_type = Parameters
    parameters: Parameters

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._loaded: dict[tuple[str, str], tuple[VaeGan, nn.Module]] = {}

    def require_dataset(self, name: str) -> None:
        if name not in self.parameters.datasets:
            raise unknown_name(name, self.parameters.datasets, "data set for this suite")

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:  # noqa: ARG002
        autoencoder, reference = self._entries(dataset, registry)
        return {
            "autoencoder": Dependency(autoencoder.card.weights.sha256),
            "reference_model": Dependency(reference.card.weights.sha256),
        }

    def _entries(self, dataset: str, registry: Path | None) -> tuple[AutoencoderEntry, ModelEntry]:
        autoencoder = resolve_autoencoder(self.parameters.autoencoder, dataset, registry)
        return autoencoder, reference_entry(self.parameters.reference_model, dataset, registry)

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        autoencoder, reference = self._nets(context)
        settings = self.parameters.datasets[context.dataset.name]
        mean_image = context.dataset.images.to(torch.float32).mean(0) / 255.0
        predictions, findings = context.clean_pass()
        frames, blind = [], 0
        for begin in range(context.start, context.stop, context.batch_size):
            part = slice(begin, min(begin + context.batch_size, context.stop))
            images = context.dataset.pixels(part).to(context.device)
            labels = context.dataset.labels[part].to(context.device)
            ids = torch.arange(part.start, part.stop)
            inputs = images.detach().clone().requires_grad_(True)
            losses = LOSS_FUNCTIONS[settings.loss](context.model(inputs), labels)
            (gradient,) = torch.autograd.grad(losses.sum(), inputs)
            blind += int((~gradient.flatten(1).isfinite().all(1)).sum())
            adversarial = pgd(
                context.model, images, labels, norm="l2", eps=settings.eps, steps=settings.steps,
                step_size=settings.step_size, loss=settings.loss,
            )  # fmt: skip
            turned = turned_images(images, adversarial - images)
            with torch.no_grad():
                columns = {
                    "example_id": ids,
                    "label": labels,
                    "prediction": predictions[begin - context.start : part.stop - context.start],
                    "adversarial_prediction": answers(context.model(adversarial)),
                    "reference_prediction": reference(images).argmax(1),
                    "reference_adversarial_prediction": reference(adversarial).argmax(1),
                    "perturbation": distance(adversarial - images, "l2"),
                    "clean_distance": self._distances(autoencoder, images, ids, stream=0, seed=context.seed),
                    "adversarial_distance": self._distances(autoencoder, adversarial, ids, stream=1, seed=context.seed),
                    "turned_distance": self._distances(autoencoder, turned, ids, stream=2, seed=context.seed),
                    "spread": distance(images - mean_image.to(images), "l2"),
                }
            frames.append(pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()}))
            context.on_progress(part.stop - part.start)
        records = pd.concat(frames, ignore_index=True).astype(MANIFOLD_COLUMNS)
        if blind:
            findings.append(bad_gradients(blind, len(records)))
        return UnitResult(
            records, {"gradient_evaluations": settings.steps * len(records)}, [*findings, *self._trust(records)]
        )

    def _nets(self, context: EvaluationContext) -> tuple[VaeGan, nn.Module]:
        key = (context.dataset.name, str(context.device))
        if key not in self._loaded:
            autoencoder, reference = self._entries(context.dataset.name, context.registry)
            self._loaded[key] = (load_autoencoder(autoencoder, context.device), load_model(reference, context.device))
        return self._loaded[key]

    def _distances(self, autoencoder: VaeGan, images: Tensor, ids: Tensor, *, stream: int, seed: int) -> Tensor:
        noise = None
        if self.parameters.code == "sampled":
            noise = keyed_normal(seed, f"manifold/{stream}", ids, (autoencoder.code_size,)).to(images.device)
        return distance(images - autoencoder.project(images, noise), "l2")

    def _trust(self, records: pd.DataFrame) -> list[Finding]:
        """A manifold that clean images are not on says nothing about adversarial ones."""
        explained = explained_variance(records)
        if explained >= self.parameters.least_explained_variance:
            return []
        evidence = (
            f"the autoencoder explains {100 * explained:.0f} % of the clean images' variance, the suite asks for "
            f"{100 * self.parameters.least_explained_variance:.0f} %"
        )
        advice = "the distances say more about the autoencoder than about the model; train it longer"
        return [Finding("poor_autoencoder", "warning", evidence, advice)]

    def example_values(self, dataset: str, records: pd.DataFrame) -> Iterator[ExampleValues]:  # noqa: ARG002
        yield clean_accuracy(records)
        yield from kept_values(records)

    def further_metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:  # noqa: ARG002
        return distance_metrics(records)
