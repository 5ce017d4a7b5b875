from __future__ import annotations

import pytest

from bench.core.errors import BenchError
from bench.training import list_recipes, make_recipe
from bench.training.methods import Adversarial


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
        ("ir_permuted", {"cosine_weight": 0.0}, "which cosine_weight 0 leaves unused"),
    ],
)
def test_contradictions_are_refused(name: str, overrides: dict[str, object], line: str) -> None:
    with pytest.raises(BenchError, match=line):
        make_recipe(name, "fashion_mnist", overrides)


def test_first_order_methods_take_mixed_precision_and_compilation() -> None:
    for name in ("standard", "at_linf", "at_l2", "trades"):
        assert make_recipe(name, "fashion_mnist", {"precision": "bfloat16", "compile": True}).schedule.compile
