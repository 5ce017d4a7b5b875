"""Training the VAE-GAN of the Bridging paper (section 2.1), and publishing it with a card that says how good it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.attacks.pgd import attacked_model
from bench.catalog.autoencoders import AutoencoderCard, AutoencoderEntry, Quality, read_autoencoder, write_autoencoder
from bench.catalog.state_files import weights_of
from bench.core.files import sha256_bytes
from bench.core.keyed_random import stream_key
from bench.core.names import unknown_name
from bench.core.toml_files import Section
from bench.data import ImageDataset
from bench.nets.vae_gan import VaeGan
from bench.training.epochs import Epochs, Progress
from bench.training.fitting import TrainingRequest, environment
from bench.training.recipes import checked, differing
from bench.training.trainer import split_validation

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
    (recipe,) = checked(RECIPE, {**_PAPER[dataset], **(overrides or {})}, VaeGanRecipe)
    return cast(VaeGanRecipe, recipe)


def train_vae_gan(
    recipe: VaeGanRecipe, request: TrainingRequest, *, on_progress: Callable[[Progress], None] = lambda _: None
) -> AutoencoderEntry:
    """Train and write `output/<data set>/<id>/{weights.safetensors,training.csv,autoencoder.toml}`.

    Stopped and started again, it goes on after the last whole epoch with the same result. `request.recipe` is not used.

    Raises:
        BenchError: the data is missing, the folder is taken, or training failed.
    """
    request.require_free()
    spec = request.spec
    dataset, test = request.load("train"), request.load("test")
    parameters: dict[str, Any] = {
        "in_channels": spec.in_channels, "image_size": spec.image_size, "code_size": recipe.code_size,
        "width": recipe.width,
    }  # fmt: skip
    torch.manual_seed(request.seed)
    net = VaeGan(**parameters).to(request.device).to(memory_format=torch.channels_last)
    run = _Run(recipe, net, dataset, request.seed, device=request.device)
    fingerprint = sha256_bytes(f"{recipe!r} {request.seed} {dataset.sha256}".encode())
    epochs = Epochs(request.work, fingerprint, {"net": net, **run.optimizers}, recipe.epochs, on_progress=on_progress)
    with request.at_work():
        epochs.run(lambda number: run.epoch(number, epochs), recipe.stop_after)
    card = AutoencoderCard(
        schema_version=1,
        id=request.name,
        dataset=request.dataset,
        architecture="vae_gan",
        architecture_parameters=parameters,
        weights=weights_of(net),
        quality=reconstruction_quality(net, test, request.device),
        training={
            "recipe": RECIPE,
            **recipe.model_dump(exclude_none=True),
            "seed": request.seed,
            "data_sha256": dataset.sha256,
            "training_examples": len(run.indices),
            **environment(request.device),
            **departures(recipe, request.dataset),
            "minutes": round(epochs.seconds / 60, 2),
        },
    )
    request.publish(net, lambda folder: write_autoencoder(folder, card))
    return read_autoencoder(request.folder)


def departures(recipe: VaeGanRecipe, dataset: str) -> dict[str, str]:
    """The card's entry that says what is not the paper's, if anything is."""
    found = differing(make_vae_gan_recipe(dataset), recipe.model_dump())
    return {"departs": "; ".join(found)} if found else {}


def reconstruction_quality(net: VaeGan, dataset: ImageDataset, device: torch.device) -> Quality:
    """How well one encode-decode pass with the mean code keeps the images of `dataset`; the net in eval mode."""
    mean_image = dataset.images.to(torch.float64).mean(0) / 255.0
    error, spread, length = 0.0, 0.0, 0.0
    with attacked_model(net), torch.no_grad():
        for begin in range(0, len(dataset), _BATCH_SIZE):
            images = dataset.pixels(slice(begin, begin + _BATCH_SIZE))
            squares = (net.project(images.to(device)).cpu() - images).double().flatten(1).square().sum(1)
            error, length = error + float(squares.sum()), length + float(squares.sqrt().sum())
            spread += float((images.double() - mean_image).square().sum())
    return Quality(
        examples=len(dataset),
        explained_variance=round(1.0 - error / max(spread, 1e-12), 4),
        mean_l2=round(length / len(dataset), 4),
    )


class _Run:
    """One training: the net, its three optimisers, and the state on the disk."""

    def __init__(
        self, recipe: VaeGanRecipe, net: VaeGan, dataset: ImageDataset, seed: int, device: torch.device
    ) -> None:
        self.recipe, self.net, self.dataset, self.seed, self.device = recipe, net, dataset, seed, device
        self.indices, held_out = split_validation(len(dataset))
        self.held_out = ImageDataset(
            dataset.name, "validation", dataset.images[held_out], dataset.labels[held_out],
            class_names=dataset.class_names, source="",
        )  # fmt: skip
        self.optimizers = {
            name: torch.optim.Adam(part.parameters(), lr=recipe.learning_rate, betas=(recipe.first_beta, 0.9))
            for name, part in net.named_children()
        }

    def epoch(self, number: int, epochs: Epochs) -> dict[str, float]:
        """One pass over the training examples; its terms, and the variance explained on the held-out ones."""
        steps = max(1, len(self.indices) // self.recipe.batch_size)  # batch normalisation needs whole batches
        row = epochs.mean(number, steps, self._steps(number, steps))
        quality = reconstruction_quality(self.net, self.held_out, self.device)
        return row | {"explained_variance": quality.explained_variance}

    def _steps(self, epoch: int, steps: int) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(stream_key(RECIPE, self.seed, epoch) & ((1 << 63) - 1))
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]
        self.net.train()
        for step, chosen in enumerate(torch.split(order, self.recipe.batch_size)[:steps]):
            done = (epoch * steps + step) / (self.recipe.epochs * steps)
            factor = 0.5 * (1.0 + math.cos(math.pi * done)) if self.recipe.decay else 1.0
            for optimizer in self.optimizers.values():
                optimizer.param_groups[0]["lr"] = self.recipe.learning_rate * factor
            terms = self._step(self.dataset.pixels(chosen).to(self.device), generator)
            yield {name: term / steps for name, term in terms.items()}

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
        losses = {
            "encoder": reconstruction + divergence,
            "generator": self.recipe.reconstruction_weight * reconstruction + deception,
            "discriminator": discrimination,
        }
        # all gradients first: an update would change weights that the next loss's graph still needs
        found = {name: self._gradients(name, loss) for name, loss in losses.items()}
        for name, gradients in found.items():
            self._update(name, gradients)
        for _ in range(self.recipe.discriminator_steps - 1):
            with torch.no_grad():
                fakes = net.project(images, self._normal(len(images), generator))
                others = net.generate(self._normal(len(images), generator))
            loss = _discrimination(net.discriminate(images), net.discriminate(fakes), net.discriminate(others))
            self._update("discriminator", self._gradients("discriminator", loss))
        terms = {"reconstruction": reconstruction, "divergence": divergence, "deception": deception}
        return {name: term.detach() for name, term in {**terms, "discrimination": discrimination}.items()}

    def _gradients(self, part: str, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, list(self.net.get_submodule(part).parameters()), retain_graph=True)

    def _update(self, part: str, gradients: tuple[Tensor, ...]) -> None:
        for parameter, gradient in zip(self.net.get_submodule(part).parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizers[part].step()

    def _normal(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn((count, self.recipe.code_size), generator=generator).to(self.device)


def _discrimination(real: Tensor, rebuilt: Tensor, sampled: Tensor) -> Tensor:
    return -(F.logsigmoid(real) + F.logsigmoid(-rebuilt) + F.logsigmoid(-sampled)).mean()
