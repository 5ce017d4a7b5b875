"""Training the VAE-GAN of the Bridging paper (section 2.1), and publishing it with a card that says how good it is."""

from __future__ import annotations

import io
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

import bench
from bench.catalog.autoencoders import (
    AutoencoderCard,
    AutoencoderEntry,
    Quality,
    read_autoencoder,
    write_autoencoder,
)
from bench.catalog.cards import Weights
from bench.core.devices import device_label
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, sha256_bytes, write_atomically
from bench.core.keyed_random import stream_key
from bench.core.names import require_safe_name, unknown_name
from bench.core.toml_files import Section, explain
from bench.data import ImageDataset, dataset_spec
from bench.nets.vae_gan import VaeGan
from bench.training.fitting import TrainingRequest
from bench.training.trainer import CHECKPOINT, Progress, format_rows, split_validation

logger = logging.getLogger(__name__)
RECIPE = "vae_gan"
SUMMARY = "the VAE-GAN whose encode-decode pass projects images onto the image manifold"
_BATCH_SIZE = 500


class VaeGanRecipe(Section):
    """Encoder: |x - x~|_1 + KL. Generator: weight * |x - x~|_1 - log D(x~) - log D(x_p). Discriminator: cross-entropy.

    x~ is generated from the sampled code of x, x_p from a standard normal code; |.|_1 sums over pixels in [-1, 1]. The
    three losses share one forward pass, where the original recomputes it after each of the three updates.
    """

    reconstruction_weight: float = Field(gt=0, description="weight of the generator's reconstruction term")
    code_size: int = Field(gt=0, le=100_000, description="length of the code")
    width: float = Field(default=1.0, gt=0, le=1, description="factor on all channel counts; 1 is the paper's")
    epochs: int = Field(gt=0, le=100_000, description="passes over the training examples")
    batch_size: int = Field(default=100, gt=1, lt=1 << 31, description="examples a step")
    learning_rate: float = Field(gt=0, description="of all three Adams")
    first_beta: float = Field(ge=0, lt=1, description="beta 1 of Adam; beta 2 is 0.9")
    discriminator_steps: int = Field(default=1, gt=0, le=1000, description="discriminator updates a step")
    decay: bool = Field(default=False, description="cosine decay of the learning rate to 0; the paper has none")
    stop_after: int | None = Field(
        default=None, gt=0, repr=False, description="publish after so many epochs, the decay being that of all of them"
    )
    """Not in the fingerprint: it does not change the epochs before it, so a longer training can still be cut short."""

    @property
    def last_epoch(self) -> int:
        return self.epochs if self.stop_after is None else min(self.epochs, self.stop_after)


_PAPER: dict[str, dict[str, Any]] = {
    "mnist": {"reconstruction_weight": 5e-3, "code_size": 10, "epochs": 30, "learning_rate": 5e-4, "first_beta": 0.5},
    "fashion_mnist": {
        "reconstruction_weight": 5e-4, "code_size": 10, "epochs": 60, "learning_rate": 5e-4, "first_beta": 0.5,
    },
    "cifar10": {
        "reconstruction_weight": 1e-2, "code_size": 128, "epochs": 150, "learning_rate": 2e-4, "first_beta": 0.0,
        "discriminator_steps": 5,
    },
}  # fmt: skip


def make_vae_gan_recipe(dataset: str, overrides: Mapping[str, Any] | None = None) -> VaeGanRecipe:
    """The paper's parameters for a data set, overridden by name; raises BenchError."""
    if dataset not in _PAPER:
        raise unknown_name(dataset, _PAPER, f"data set for recipe {RECIPE}")
    chosen = {**_PAPER[dataset], **(overrides or {})}
    for key in chosen:
        if key not in VaeGanRecipe.model_fields:
            raise unknown_name(key, VaeGanRecipe.model_fields, f"parameter of recipe {RECIPE}")
    try:
        return VaeGanRecipe(**chosen)
    except ValidationError as error:
        raise BenchError(f"recipe {RECIPE}: {explain(error)}.") from error


def train_vae_gan(
    recipe: VaeGanRecipe, request: TrainingRequest, *, on_progress: Callable[[Progress], None] | None = None
) -> AutoencoderEntry:
    """Train and write `output/<data set>/<id>/{weights.safetensors,training.csv,autoencoder.toml}`.

    Stopped and started again, it goes on after the last whole epoch with the same result. `request.recipe` is not used.

    Raises:
        BenchError: the data is missing, the folder is taken, or training failed.
    """
    require_safe_name(request.name, "autoencoder id")
    if request.folder.exists() and not request.fresh:
        raise BenchError(f"{request.folder} exists already; use --fresh to train it again, or --id for another name.")
    spec = dataset_spec(request.dataset)
    if spec is None:
        raise BenchError(f"training on {request.dataset} needs a known data set; see `bench datasets`.")
    dataset, test = request.load("train"), request.load("test")
    with clear_disk_errors(request.work):
        if request.fresh:
            shutil.rmtree(request.work, ignore_errors=True)
        request.work.mkdir(parents=True, exist_ok=True)
    parameters: dict[str, Any] = {
        "in_channels": spec.in_channels, "image_size": spec.image_size, "code_size": recipe.code_size,
        "width": recipe.width,
    }  # fmt: skip
    torch.manual_seed(request.seed)
    net = VaeGan(**parameters).to(request.device).to(memory_format=torch.channels_last)
    run = _Run(recipe, net, dataset, request)
    run.fit(on_progress)
    content = save_safetensors({name: value.contiguous().cpu() for name, value in net.state_dict().items()})
    card = AutoencoderCard(
        schema_version=1,
        id=request.name,
        dataset=request.dataset,
        architecture="vae_gan",
        architecture_parameters=parameters,
        weights=Weights(sha256=sha256_bytes(content), parameters=sum(value.numel() for value in net.parameters())),
        quality=reconstruction_quality(net, test, request.device),
        training=run.facts(),
    )
    write_atomically(request.work / "weights.safetensors", content)
    write_autoencoder(request.work, card)
    with clear_disk_errors(request.work):
        (request.work / CHECKPOINT).unlink(missing_ok=True)
        if request.folder.exists():
            shutil.rmtree(request.folder)
        request.work.replace(request.folder)
    return read_autoencoder(request.folder)


def reconstruction_quality(net: VaeGan, dataset: ImageDataset, device: torch.device) -> Quality:
    """How well one encode-decode pass with the mean code keeps the images of `dataset`; the net in eval mode."""
    training = net.training
    net.eval()
    mean_image = dataset.images.to(torch.float64).mean(0) / 255.0
    error, spread, length = 0.0, 0.0, 0.0
    with torch.no_grad():
        for begin in range(0, len(dataset), _BATCH_SIZE):
            images = dataset.pixels(slice(begin, begin + _BATCH_SIZE))
            squares = (net.project(images.to(device)).cpu() - images).double().flatten(1).square().sum(1)
            error, length = error + float(squares.sum()), length + float(squares.sqrt().sum())
            spread += float((images.double() - mean_image).square().sum())
    net.train(training)
    return Quality(
        examples=len(dataset),
        explained_variance=round(1.0 - error / max(spread, 1e-12), 4),
        mean_l2=round(length / len(dataset), 4),
    )


@dataclass(slots=True)
class _Optimizers:
    encoder: torch.optim.Adam
    generator: torch.optim.Adam
    discriminator: torch.optim.Adam

    def all(self) -> list[torch.optim.Adam]:
        return [self.encoder, self.generator, self.discriminator]


class _Run:
    """One training: the net, its three optimisers, and the state on the disk."""

    def __init__(self, recipe: VaeGanRecipe, net: VaeGan, dataset: ImageDataset, request: TrainingRequest) -> None:
        self.recipe, self.net, self.request = recipe, net, request
        self.dataset = dataset
        self.indices, held_out = split_validation(len(dataset))
        self.held_out = ImageDataset(
            dataset.name, "validation", dataset.images[held_out], dataset.labels[held_out], dataset.class_names, ""
        )
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.optimizers = _Optimizers(
            *(
                torch.optim.Adam(part.parameters(), lr=recipe.learning_rate, betas=(recipe.first_beta, 0.9))
                for part in (net.encoder, net.generator, net.discriminator)
            )
        )

    def fit(self, on_progress: Callable[[Progress], None] | None) -> None:
        self._resume()
        for epoch in range(len(self.rows), self.recipe.last_epoch):
            began = time.perf_counter()
            row = self._epoch(epoch, on_progress)
            row["explained_variance"] = reconstruction_quality(
                self.net, self.held_out, self.request.device
            ).explained_variance
            row["seconds"] = round(time.perf_counter() - began, 2)
            self.seconds += row["seconds"]
            self.rows.append(row)
            self._save()
            if on_progress is not None:
                on_progress(Progress(epoch + 1, self.recipe.epochs, 0, 1, row))

    def _epoch(self, epoch: int, on_progress: Callable[[Progress], None] | None) -> dict[str, float]:
        device, size = self.request.device, self.recipe.batch_size
        generator = torch.Generator().manual_seed(stream_key(RECIPE, self.request.seed, epoch) & ((1 << 63) - 1))
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]
        steps = max(1, len(order) // size)  # batch normalisation needs whole batches
        totals: dict[str, Tensor] = {}
        self.net.train()
        for step in range(steps):
            images = self.dataset.pixels(order[step * size : (step + 1) * size]).to(device)
            self._set_rate((epoch * steps + step) / (self.recipe.epochs * steps))
            for name, term in self._step(images, generator).items():
                totals[name] = totals.get(name, torch.zeros((), device=device)) + term / steps
            if on_progress is not None and step % 10 == 0:
                on_progress(Progress(epoch, self.recipe.epochs, step, steps))
        row = {"epoch": float(epoch + 1)} | {name: float(total) for name, total in totals.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise BenchError(
                    f"training diverged: the term {name!r} is {value} in epoch {epoch + 1}; lower the learning rate. "
                    f"The last good state is in {self.request.work}."
                )
        return row

    def _set_rate(self, done: float) -> None:
        factor = 0.5 * (1.0 + math.cos(math.pi * done)) if self.recipe.decay else 1.0
        for optimizer in self.optimizers.all():
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * factor

    def _step(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One update of encoder and generator and `discriminator_steps` of the discriminator, from one forward pass."""
        net = self.net
        mean, log_variance = net.encode(images)
        noise = self._normal(len(images), generator)
        rebuilt = net.generate(mean + torch.exp(0.5 * log_variance) * noise)
        sampled = net.generate(self._normal(len(images), generator))
        reconstruction = 2.0 * (rebuilt - images).abs().flatten(1).sum(1).mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        judged_rebuilt, judged_sampled = net.discriminate(rebuilt), net.discriminate(sampled)
        deception = -(F.logsigmoid(judged_rebuilt) + F.logsigmoid(judged_sampled)).mean()
        discrimination = _discrimination(net.discriminate(images), judged_rebuilt, judged_sampled)
        losses = (
            (self.optimizers.encoder, net.encoder, reconstruction + divergence),
            (self.optimizers.generator, net.generator, self.recipe.reconstruction_weight * reconstruction + deception),
            (self.optimizers.discriminator, net.discriminator, discrimination),
        )
        # all gradients first: an update would change weights that the next loss's graph still needs
        found = [torch.autograd.grad(loss, list(part.parameters()), retain_graph=True) for _, part, loss in losses]
        for (optimizer, part, _), gradients in zip(losses, found, strict=True):
            _update(optimizer, part.parameters(), gradients)
        for _ in range(self.recipe.discriminator_steps - 1):
            self._discriminator_step(images, generator)
        return {
            "reconstruction": reconstruction.detach(),
            "divergence": divergence.detach(),
            "deception": deception.detach(),
            "discrimination": discrimination.detach(),
        }

    def _discriminator_step(self, images: Tensor, generator: torch.Generator) -> None:
        net = self.net
        with torch.no_grad():
            rebuilt = net.project(images, self._normal(len(images), generator))
            sampled = net.generate(self._normal(len(images), generator))
        loss = _discrimination(net.discriminate(images), net.discriminate(rebuilt), net.discriminate(sampled))
        parameters = list(net.discriminator.parameters())
        _update(self.optimizers.discriminator, parameters, torch.autograd.grad(loss, parameters))

    def _normal(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn((count, self.recipe.code_size), generator=generator).to(self.request.device)

    def facts(self) -> dict[str, Any]:
        return {
            "recipe": RECIPE,
            **self.recipe.model_dump(exclude_none=True),
            "seed": self.request.seed,
            "data_sha256": self.dataset.sha256,
            "training_examples": len(self.indices),
            "bench_version": bench.__version__,
            "torch_version": str(torch.__version__),
            "device": device_label(self.request.device),
            "threads": torch.get_num_threads(),
            "minutes": round(self.seconds / 60, 2),
        }

    @property
    def _fingerprint(self) -> str:
        return sha256_bytes(f"{self.recipe!r} {self.request.seed} {self.dataset.sha256}".encode())

    def _save(self) -> None:
        state = {
            "fingerprint": self._fingerprint,
            "net": self.net.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers.all()],
            "rows": self.rows,
            "seconds": self.seconds,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.request.work / CHECKPOINT, buffer.getvalue())
        write_atomically(self.request.work / "training.csv", format_rows(self.rows))

    def _resume(self) -> None:
        path = self.request.work / CHECKPOINT
        if not path.is_file():
            return
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.request.device, weights_only=True)
            fingerprint = state["fingerprint"]
        except Exception as error:
            raise BenchError(
                f"the unfinished training in {self.request.work} cannot be read; use --fresh to start again."
            ) from error
        if fingerprint != self._fingerprint:
            raise BenchError(
                f"{self.request.work} holds an unfinished training with other parameters; use --fresh to start again."
            )
        self.net.load_state_dict(state["net"])
        for optimizer, saved in zip(self.optimizers.all(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.rows, self.seconds = list(state["rows"]), float(state["seconds"])
        logger.info("resuming after epoch %d", len(self.rows))


def _discrimination(real: Tensor, rebuilt: Tensor, sampled: Tensor) -> Tensor:
    return -(F.logsigmoid(real) + F.logsigmoid(-rebuilt) + F.logsigmoid(-sampled)).mean()


def _update(optimizer: torch.optim.Adam, parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
