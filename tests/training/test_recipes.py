from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bench.catalog.cards import read_card
from bench.catalog.locations import shipped
from bench.core.errors import BenchError
from bench.data import known_spec
from bench.nets import build_net
from bench.training import Recipe, list_recipes, make_recipe
from bench.training.methods import Adversarial
from bench.training.recipes import departures
from bench.training.templates import TEMPLATES
from bench.training.trainer import describe_recipe


def test_every_recipe_can_be_made_for_every_known_data_set() -> None:
    for template in list_recipes():
        for dataset in ("fashion_mnist", "mnist", "cifar10"):
            assert make_recipe(template.name, dataset).name == template.name


def test_radii_are_those_of_the_data_set() -> None:
    methods = [make_recipe("at_linf", dataset).method for dataset in ("fashion_mnist", "mnist", "cifar10")]
    assert [method.eps for method in methods if isinstance(method, Adversarial)] == [0.1, 0.3, 8 / 255]


def test_overrides_reach_method_and_schedule() -> None:
    recipe = make_recipe("at_l2", "fashion_mnist", {"eps": 0.7, "epochs": 3})
    assert isinstance(recipe.method, Adversarial)
    assert (recipe.method.eps, recipe.schedule.epochs) == (0.7, 3)


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        ("at_lnf", {}, "did you mean at_linf"),
        ("at_linf", {"epsilon": 0.1}, "unknown parameter of recipe at_linf 'epsilon'"),
        ("at_linf", {"eps": -1}, "eps: input should be greater than 0"),
        ("at_linf", {"norm": "l7"}, "norm:"),
        (
            "at_linf",
            {"eps": 30},
            "eps: a radius of 30 in L-inf is larger than any image of pixels in [0, 1]; at most 1, use",
        ),
        ("trades", {"eps": 8}, "a radius of 8 in L-inf"),
        ("at_l2", {"eps": 1e9}, "a radius of 1e+09 in L2"),
        ("lga", {"eps": 4}, "a radius of 4 in L-inf"),
        ("ir_smoothgrad", {"sigma": 30}, "sigma: "),
        ("standard", {"epochs": 0}, "epochs:"),
        ("lga", {"l2_weight": 0, "cosine_weight": 0}, "both weights are 0"),
        ("ir_gradient", {"permuted_share": 1.5}, "permuted_share:"),
    ],
)
def test_unknown_and_impossible_parameters_are_refused(name: str, overrides: dict[str, object], line: str) -> None:
    with pytest.raises(BenchError) as caught:
        make_recipe(name, "fashion_mnist", overrides)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        ("standard", {"softplus_beta": 5.0}, "needs activation=softplus"),
        ("hessian", {"activation": "relu"}, "nothing to penalise"),
        ("lga", {"precision": "bfloat16"}, "differentiates twice, which precision cannot do"),
        ("jacobian", {"compile": True}, "differentiates twice, which compile cannot do"),
        ("standard", {"milestones": [2]}, "need schedule=multistep"),
        ("standard", {"gamma": 0.5}, "need schedule=multistep"),
        ("standard", {"schedule": "multistep"}, "needs milestones"),
        ("ir_permuted", {"cosine_weight": 0.0}, "which cosine_weight 0 leaves unused"),
        ("standard", {"architecture_parameters": {"num_classes": 20, "widths": [4, 8]}}, "cannot have num_classes"),
    ],
)
def test_contradictions_are_refused(name: str, overrides: dict[str, object], line: str) -> None:
    with pytest.raises(BenchError, match=line):
        make_recipe(name, "fashion_mnist", overrides)


def test_first_order_methods_take_mixed_precision_and_compilation() -> None:
    for name in ("standard", "at_linf", "at_l2", "trades"):
        assert make_recipe(name, "fashion_mnist", {"precision": "bfloat16", "compile": True}).schedule.compile


SMOOTH = ("softplus", "hessian", "lga", "lga_l2", "lga_cosine")
IR_PENALTIES = [name for name in TEMPLATES if name.startswith("ir_")] + ["jacobian", "input_gradient"]
IR_CODE = {  # github.com/a1noack/interp_regularization at 9ae51df: train_mnist_ir.sh, train_cifar_ir.sh
    ("mnist", "simple_cnn"): {
        "cosine_weight": 3.0, "lambda_gm": 0.15, "threshold": 1.0, "samples": 50, "sigma": 0.15,
        "epochs": 100, "batch_size": 50, "optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 1e-5,
        "batch_norm": "frozen", "augmentation": "none",
    },
    ("cifar10", "wide_resnet"): {
        "cosine_weight": 0.75, "lambda_gm": 0.005, "threshold": 1.0, "samples": 50, "sigma": 0.15,
        "epochs": 200, "batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4,
        "batch_norm": "batch", "augmentation": "crop_flip",
    },
}  # fmt: skip
"""Batch norm: train_models.py differentiates in train mode; SimpleCNN has none, and keeps our default."""
LGA_CODE = {  # github.com/joshua840/RobustAGA at 2c9138d: the scripts' lamb_l2, lamb_cos, lamb_hess and optimisers
    ("cifar10", "lenet"): {
        "l2": 0.01, "cosine": 1.0, "hessian": 1e-3, "optimizer": "adam", "weight_decay": 4e-5,
        "epochs": 300, "milestones": [100, 150], "batch_norm": "frozen", "augmentation": "crop_flip",
    },
    ("cifar10", "resnet18"): {
        "l2": 0.01, "cosine": 0.1, "hessian": 1e-4, "optimizer": "adamw", "weight_decay": 1e-2,
        "epochs": 200, "milestones": [100, 150], "batch_norm": "batch", "augmentation": "crop_flip",
    },
    ("imagenet100", "resnet18"): {
        "l2": 1.0, "cosine": 0.01, "hessian": 1e-3, "optimizer": "adamw", "weight_decay": 1e-2,
        "epochs": 90, "milestones": [40, 60, 80], "batch_norm": "batch",
    },
}  # fmt: skip
"""Batch norm: the scripts' classifiers differentiate in train mode; LeNet has none, and keeps our default."""


def values(recipe: Recipe) -> dict[str, Any]:
    return {**recipe.method.model_dump(), **recipe.schedule.model_dump()}


@pytest.mark.parametrize("key", IR_CODE, ids="/".join)
def test_interpretation_regularisation_has_the_papers_weights_and_optimiser(key: tuple[str, str]) -> None:
    paper = dict(IR_CODE[key])
    minibatch_weight = paper.pop("lambda_gm")
    own = values(make_recipe("ir_smoothgrad", key[0], {"architecture": key[1]}))
    assert {name: own[name] for name in paper} == paper
    assert own["magnitude_weight"] == pytest.approx(minibatch_weight * own["batch_size"] ** 0.5, rel=1e-3)
    assert (own["schedule"], own["warmup_share"], own["gradient_clip"], own["target"]) == (
        "cosine",
        0.0,
        0.0,
        "smoothgrad",
    )
    small = values(make_recipe("ir_smoothgrad", key[0]))
    assert (small["cosine_weight"], small["magnitude_weight"]) == (own["cosine_weight"], own["magnitude_weight"])


@pytest.mark.parametrize("key", [*IR_CODE, *LGA_CODE], ids="/".join)
def test_penalties_of_a_papers_net_with_batch_norm_are_taken_in_train_mode(key: tuple[str, str]) -> None:
    """By every recipe of that paper with a penalty; only nets that have batch norm are asked for it."""
    expected = (IR_CODE | LGA_CODE)[key]["batch_norm"]
    names = IR_PENALTIES if key in IR_CODE else [name for name in SMOOTH if name != "softplus"]
    made = {name: make_recipe(name, key[0], {"architecture": key[1]}) for name in names}
    assert {name: values(recipe)["batch_norm"] for name, recipe in made.items()} == dict.fromkeys(names, expected)
    parameters = next(iter(made.values())).architecture_parameters(known_spec(key[0], "training"))
    layers = build_net(key[1], parameters).modules()
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers) == (expected == "batch")


@pytest.mark.parametrize("name", SMOOTH)
def test_a_papers_settings_come_with_its_net(name: str) -> None:
    """Also where nobody names the net: ResNet18's settings made a small_cnn of ImageNet-100."""
    own = make_recipe(name, "imagenet100")
    assert own == make_recipe(name, "imagenet100", {"architecture": "resnet18"}) and own.schedule.epochs == 90
    assert make_recipe(name, "imagenet100", {"architecture": "small_cnn"}).schedule.schedule == "cosine"
    assert make_recipe(name, "cifar10").schedule.architecture == "lenet"


@pytest.mark.parametrize("key", LGA_CODE, ids="/".join)
def test_gradient_alignment_and_hessian_have_the_papers_weights_and_optimiser(key: tuple[str, str]) -> None:
    paper = LGA_CODE[key]
    made = {name: values(make_recipe(name, key[0], {"architecture": key[1]})) for name in SMOOTH}
    weights = {name: (made[name]["l2_weight"], made[name]["cosine_weight"]) for name in ("lga", "lga_l2", "lga_cosine")}
    l2, cosine = paper["l2"], paper["cosine"]
    assert weights == {"lga": (l2, cosine), "lga_l2": (l2, 0.0), "lga_cosine": (0.0, cosine)}
    assert (made["lga"]["eps"], made["lga"]["perturbation"], made["lga"]["detach_reference"]) == (
        4 / 255,
        "uniform",
        True,
    )
    assert made["hessian"]["weight"] == paper["hessian"]
    for own in made.values():
        assert {name: own[name] for name in paper if name in own} == {
            name: paper[name] for name in paper if name in own
        }
        assert (own["schedule"], own["gamma"], own["warmup_share"], own["learning_rate"]) == (
            "multistep",
            0.1,
            0.0,
            1e-3,
        )
        assert (own["gradient_clip"], own["activation"], own["softplus_beta"]) == (0.5, "softplus", 3.0)
    batches = {name: own["batch_size"] for name, own in made.items()}
    assert batches == dict.fromkeys(SMOOTH, 128) | ({"hessian": 64} if key[0] == "imagenet100" else {})


@pytest.mark.parametrize("dataset", ["fashion_mnist", "mnist", "cifar10", "imagenet100"])
def test_softplus_nets_share_everything_but_their_penalty(dataset: str) -> None:
    schedules = [make_recipe(name, dataset).schedule.model_dump(exclude={"batch_size"}) for name in SMOOTH]
    assert all(schedule == schedules[0] for schedule in schedules)


def test_magnitude_alone_is_interpretation_regularisation_without_its_direction_and_needs_no_targets() -> None:
    for dataset in ("fashion_mnist", "mnist", "cifar10"):
        alone, whole = make_recipe("ir_magnitude", dataset), make_recipe("ir_smoothgrad", dataset)
        matched = {"magnitude_weight": 0.19} if dataset == "fashion_mnist" else {}  # equal gradient norms, by trials
        assert alone.method == whole.method.model_copy(update={"cosine_weight": 0.0, **matched})
        assert alone.schedule == whole.schedule
        assert (alone.method.source, whole.method.source) == (None, "standard")


CARDS = sorted(shipped("models").glob("*/*/card.toml"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parts[-3]}/{path.parts[-2]}")
def test_published_models_have_their_recipes_settings_or_declare_what_departs(path: Path) -> None:
    card = read_card(path.parent)
    assert card.training is not None
    found = departures(card.training.recipe, card.dataset, card.training.model_dump())
    assert (card.training.departs or "") == "; ".join(found)


def test_departures_name_every_setting_that_is_not_the_recipes_with_both_values() -> None:
    changed = describe_recipe(make_recipe("at_l2", "fashion_mnist", {"eps": 0.5, "epochs": 10}))
    assert departures("at_l2", "fashion_mnist", changed) == ["eps 0.5 instead of 1.5", "epochs 10 instead of 15"]
    other = describe_recipe(make_recipe("lga", "cifar10", {"architecture": "resnet18"}))
    assert departures("lga", "cifar10", other) == ["architecture resnet18 instead of lenet"]
    del changed["schedule"]["gamma"], changed["parameters"]["attack_mode"]  # as in cards of earlier versions
    assert len(departures("at_l2", "fashion_mnist", changed)) == 2
