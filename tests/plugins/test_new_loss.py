"""A new loss costs one file: a method and its recipe, in a package that announces them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import torch

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.training import make_recipe
from bench.training.fitting import TrainingRequest
from bench.training.publish import remeasure, train_and_publish
from tests.conftest import Bench

FILE = '''
import torch
from pydantic import Field
from torch.nn import functional as F

from bench.attributions.gradients import gradient_maps, input_gradient
from bench.training.methods import GradientMethod
from bench.training.recipe import RecipeTemplate


class Follow(GradientMethod):
    """Cross-entropy, and the squared distance of the input gradient from the source's, both squashed."""

    pull: float = Field(default=0.5, gt=0, description="weight of the distance")
    teacher: str = Field(default="untrained", description="model whose maps are followed")

    @property
    def source(self):
        return self.teacher

    def contradiction(self, schedule):
        return "gradients cannot follow across epochs, so train one" if schedule.epochs > 5 else None

    def target_maps(self, wanted):
        return wanted.maps(gradient_maps, "follow")

    def compared_maps(self, maps):
        return maps.tanh()

    def loss_terms(self, model, batch):
        logits, gradient = input_gradient(model, batch.images, batch.labels, differentiable=True)
        distance = (gradient.tanh() - self.compared_maps(batch.target_maps)).square().mean()
        return {"cross_entropy": F.cross_entropy(logits, batch.labels), "distance": self.pull * distance}


FOLLOW = RecipeTemplate("follow", "gradients that follow a teacher's", Follow, {"pull": 0.25}, {"epochs": 1})
'''
METADATA = "Metadata-Version: 2.1\nName: follow\nVersion: 1.0\n"
TINY = {"batch_size": 25, "architecture_parameters": {"widths": [4, 8], "hidden": 16}}


class Request(TrainingRequest):
    """Gives 60 images of the embedded test split for training, and as many others."""

    data: ImageDataset

    def load(self, split: str) -> ImageDataset:
        few, names = slice(0, 60) if split == "train" else slice(60, 120), self.data.class_names
        return ImageDataset(
            self.dataset, "train", self.data.images[few], self.data.labels[few], class_names=names, source="made here"
        )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    (folder / "follow-1.0.dist-info").mkdir(parents=True)
    (folder / "follow_gradients.py").write_text(FILE)
    (folder / "follow-1.0.dist-info" / "METADATA").write_text(METADATA)
    (folder / "follow-1.0.dist-info" / "entry_points.txt").write_text(
        "[bench.recipes]\nfollow = follow_gradients:FOLLOW\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    yield folder / "follow_gradients.py"
    sys.modules.pop("follow_gradients", None)


def request(tmp_path: Path, data: ImageDataset, **overrides: Any) -> Request:
    Request.data = data
    recipe = make_recipe("follow", "fashion_mnist", TINY | overrides)
    return Request(recipe, "fashion_mnist", tmp_path / "zoo", torch.device("cpu"), data_dir=tmp_path)


@pytest.mark.usefixtures("package")
def test_a_new_loss_with_target_maps_is_trained_and_published_from_one_file(
    tmp_path: Path, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tmp_path, fashion_test)
    told: list[tuple[int, int]] = []
    entry = train_and_publish(asked, on_targets=lambda done, total: told.append((done, total)))
    assert told == [(50, 50)] and len(list((tmp_path / "cache" / "target_maps").iterdir())) == 2
    training, gradients = entry.card.training, entry.card.gradients
    assert training is not None and gradients is not None
    assert training.recipe == "follow" and training.parameters["pull"] == 0.25 and training.departs is not None
    assert training.source_model == "untrained" and gradients.target_cosine is not None
    columns = (entry.folder / "training.csv").read_text().splitlines()[0].split(",")
    assert columns[:3] == ["epoch", "cross_entropy", "distance"]
    monkeypatch.setattr("bench.training.publish.TrainingRequest", Request)
    assert remeasure(entry, torch.device("cpu")).card.gradients == gradients


@pytest.mark.usefixtures("package")
def test_a_new_loss_is_listed_and_shown_with_its_parameters(bench: Bench) -> None:
    assert "gradients that follow a teacher's" in bench("recipes")[1]
    code, out, _ = bench("recipes", "show", "follow", "--set", "pull=0.125")
    assert code == 0 and "weight of the distance" in out and "0.125" in out


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"pul": 1.0}, "unknown parameter of recipe follow 'pul'; did you mean pull"),
        ({"pull": 0.0}, "recipe follow: pull: input should be greater than 0"),
        ({"epochs": 9}, "recipe follow: gradients cannot follow across epochs, so train one."),
        ({"compile": True}, "recipe follow differentiates twice, which compile cannot do"),
    ],
)
def test_parameters_of_a_new_loss_are_checked(overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(BenchError) as caught:
        make_recipe("follow", "fashion_mnist", overrides)
    assert line in str(caught.value)


def test_a_recipe_whose_method_is_none_gives_one_line(package: Path) -> None:
    package.write_text(FILE + "FOLLOW = RecipeTemplate('follow', 'no method', dict)\n")
    with pytest.raises(BenchError, match="no RecipeTemplate of that name with a Method"):
        make_recipe("follow", "fashion_mnist")
