from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.catalog.autoencoders import load_autoencoder, read_autoencoder
from bench.catalog.locations import shipped
from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.nets.vae_gan import VaeGan
from bench.training import make_recipe
from bench.training.publish import TrainingRequest
from bench.training.vae_gan import (
    VaeGanRecipe,
    _Run,
    departures,
    make_vae_gan_recipe,
    reconstruction_quality,
    train_vae_gan,
)
from tests.conftest import Bench

CPU = torch.device("cpu")
SMALL = {"width": 0.1, "batch_size": 50, "epochs": 3, "learning_rate": 5e-3}


def part(data: ImageDataset, begin: int, end: int, name: str) -> ImageDataset:
    chosen = slice(begin, end)
    return ImageDataset(
        data.name, name, data.images[chosen], data.labels[chosen], class_names=data.class_names, source="made here"
    )


class Request(TrainingRequest):
    """Gives parts of the embedded test split as both splits."""

    data: ImageDataset

    def load(self, split: str) -> ImageDataset:  # type: ignore[override]
        return part(self.data, 0, 600, "train") if split == "train" else part(self.data, 2000, 2300, "test")


@pytest.fixture
def request_for(tmp_path: Path, fashion_test: ImageDataset) -> Request:
    made = Request(make_recipe("standard", "fashion_mnist"), "fashion_mnist", tmp_path / "zoo", CPU, model_id="vae_gan")
    Request.data = fashion_test
    return made


def test_shapes_and_sizes_are_the_papers() -> None:
    grey = VaeGan(in_channels=1, image_size=28, code_size=10)
    counts = [
        sum(p.numel() for p in module.parameters()) for module in (grey.encoder, grey.generator, grey.discriminator)
    ]
    assert counts == [739_708, 1_653_473, 2_167_201]
    colour = VaeGan(in_channels=3, image_size=32, code_size=128, width=0.125)
    for net, shape in ((grey, (5, 1, 28, 28)), (colour, (5, 3, 32, 32))):
        images = torch.rand(shape)
        assert net.project(images).shape == shape and net.discriminate(images).shape == (5,)
        assert float(net.project(images).detach().min()) >= 0 and float(net.project(images).detach().max()) <= 1


def test_each_loss_updates_its_own_part_alone(fashion_test: ImageDataset) -> None:
    recipe = make_vae_gan_recipe("fashion_mnist", SMALL)
    net = VaeGan(in_channels=1, image_size=28, code_size=10, width=0.1)
    run = _Run(recipe, net, part(fashion_test, 0, 600, "train"), 0, device=CPU)
    assert list(run.optimizers) == ["encoder", "generator", "discriminator"]
    for group, optimizer in run.optimizers.items():
        own = {id(parameter) for parameter in getattr(net, group).parameters()}
        assert {id(parameter) for entry in optimizer.param_groups for parameter in entry["params"]} == own
    # with weight 0 for reconstruction and a blind discriminator the generator has no gradient, the encoder has
    with torch.no_grad():
        for parameter in net.discriminator.parameters():
            parameter.zero_()
    unweighted = recipe.model_copy(update={"reconstruction_weight": 1e-30})
    blind = _Run(unweighted, net, part(fashion_test, 0, 600, "t"), 0, device=CPU)
    blind._step(fashion_test.pixels(slice(0, 50)), torch.Generator().manual_seed(0))
    gradients = {
        group: sum(float(p.grad.abs().sum()) for p in getattr(net, group).parameters() if p.grad is not None)
        for group in ("encoder", "generator")
    }
    assert gradients["encoder"] > 1 > 1e-6 > gradients["generator"]


def test_training_reconstructs_ever_better_and_resumes_to_the_same_weights(request_for: Request) -> None:
    recipe = make_vae_gan_recipe("fashion_mnist", SMALL)

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if getattr(progress, "row", None) and progress.epoch == 2:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        train_vae_gan(recipe, request_for, on_progress=stop)
    resumed = train_vae_gan(recipe, request_for)
    whole = train_vae_gan(recipe, replace(request_for, model_id="whole"))
    assert resumed.card.weights == whole.card.weights
    rows = (resumed.folder / "training.csv").read_text().splitlines()
    column = rows[0].split(",").index("reconstruction")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert len(losses) == 3 and losses[2] < 0.95 * losses[0]
    net = load_autoencoder(read_autoencoder(resumed.folder))
    assert reconstruction_quality(net, request_for.load("test"), CPU) == resumed.card.quality
    assert sorted(path.name for path in resumed.folder.iterdir()) == [
        "autoencoder.toml", "training.csv", "weights.safetensors",
    ]  # fmt: skip
    cut = train_vae_gan(recipe.model_copy(update={"stop_after": 1}), replace(request_for, model_id="cut"))
    assert (cut.folder / "training.csv").read_text().splitlines()[1].split(",")[:-1] == rows[1].split(",")[:-1]
    assert len((cut.folder / "training.csv").read_text().splitlines()) == 2
    with pytest.raises(BenchError, match="exists already; choose another name, or train it afresh"):
        train_vae_gan(recipe, request_for)


def test_the_recipe_is_listed_and_shown(bench: Bench) -> None:
    assert "vae_gan" in bench("recipes")[1]
    code, out, _ = bench("recipes", "show", "vae_gan", "--dataset", "mnist")
    assert code == 0 and "reconstruction_weight" in out and "0.005" in out


def test_an_option_that_the_autoencoder_does_not_have_is_refused(bench: Bench, tmp_path: Path) -> None:
    line = bench.refused("train", "--recipe", "vae_gan", "--output", tmp_path, "--compile")
    assert "unknown parameter of recipe vae_gan 'compile'" in line


@pytest.mark.parametrize(
    ("dataset", "overrides", "line"),
    [
        ("imagenet", {}, "unknown data set for recipe vae_gan 'imagenet'"),
        ("mnist", {"widht": 0.5}, "unknown parameter of recipe vae_gan 'widht'; did you mean width"),
        ("mnist", {"width": 2.0}, "width: input should be less than or equal to 1"),
        ("mnist", {"batch_size": 1}, "batch_size:"),
    ],
)
def test_impossible_recipes_are_refused(dataset: str, overrides: dict[str, object], line: str) -> None:
    with pytest.raises(BenchError) as caught:
        make_vae_gan_recipe(dataset, overrides)
    assert line in str(caught.value)


@pytest.mark.parametrize("dataset", ["fashion_mnist", "mnist"])
def test_published_autoencoders_declare_what_is_not_the_papers(dataset: str) -> None:
    facts = read_autoencoder(shipped("models") / dataset / "vae_gan").card.training
    recipe = VaeGanRecipe(**{name: value for name, value in facts.items() if name in VaeGanRecipe.model_fields})
    assert {"departs": facts["departs"]} == departures(recipe, dataset)
    assert departures(make_vae_gan_recipe(dataset), dataset) == {}
