from __future__ import annotations

from typing import Any

import pytest

from bench.core.errors import BenchError
from bench.core.toml_files import validate
from bench.studies.scales import Scale, extended

LINES: list[dict[str, Any]] = [
    {"id": "source", "recipe": "at_l2", "parameters": {"eps": 2.0}},
    {"id": "student", "recipe": "ir_gradient", "seeds": 2, "parameters": {"source_model": "source"}},
]
SMALL: dict[str, Any] = {
    "prefix": "small_", "models": ["source"], "suites": {"main": "cross_norm"}, "seconds": {"main": 1.0},
    "minutes": {"at_l2": 3.0, "ir_gradient": 5.0, "vae_gan": 7.0}, "only": {"main": ["stu*"]},
    "parameters": {"epochs": 8, "eps": 9.0}, "recipes": {"at_l2": {"steps": 10, "eps": 1.0}}, "train": LINES,
}  # fmt: skip


def scale(content: dict[str, Any]) -> Scale:
    return validate(Scale, content, "scale").resolved()


def test_a_models_own_parameters_come_before_its_recipes_and_those_before_the_scales() -> None:
    source, student, again = scale(SMALL).train
    assert source.parameters == {"epochs": 8, "steps": 10, "eps": 2.0} and source.minutes == 3.0
    assert student.parameters == {"epochs": 8, "eps": 9.0, "source_model": "small_source"}
    assert (again.id, again.seed, again.method) == ("small_student_seed1", 1, "small_student")


def test_the_prefix_is_put_before_all_ids_of_a_scale() -> None:
    whole = scale(SMALL)
    assert whole.models == ["small_source"]
    assert whole.under("main", ["small_source", "small_student", "student"]) == ["small_student"]


def test_all_trainings_of_one_seed_come_before_those_of_the_next() -> None:
    ids = [model.id for model in scale(SMALL | {"seeds": 2}).train]
    assert ids == ["small_source", "small_student", "small_source_seed1", "small_student_seed1"]


def test_an_autoencoder_keeps_its_id_and_is_trained_once() -> None:
    lines = [{"id": "vae_gan", "recipe": "vae_gan", "parameters": {"width": 0.25}}]
    (one,) = scale(SMALL | {"train": lines, "seeds": 3}).train
    assert (one.id, one.minutes, one.parameters) == ("vae_gan", 7.0, {"width": 0.25})


def test_a_varied_parameter_gives_a_model_for_each_value() -> None:
    lines = [{"id": "at", "recipe": "at_l2", "varied": {"eps": [0.1, 0.2]}}]
    found = {model.id: model.parameters["eps"] for model in scale(SMALL | {"train": lines}).train}
    assert found == {"small_at_01": 0.1, "small_at_02": 0.2}


def test_a_scale_that_extends_another_adds_its_trainings_and_replaces_those_of_the_same_id() -> None:
    own = {
        "extends": "reduced",
        "prefix": "big_",
        "train": [LINES[0] | {"parameters": {"eps": 3.0}}, LINES[1] | {"id": "new"}],
    }
    whole = extended({"reduced": SMALL, "paper": own})["paper"]
    assert whole["suites"] == SMALL["suites"]
    models = {model.id: model.parameters for model in scale(whole).train}
    assert list(models) == ["big_student", "big_source", "big_new", "big_student_seed1", "big_new_seed1"]
    assert models["big_source"]["eps"] == 3.0 and models["big_new"]["source_model"] == "big_source"


def test_a_scale_extends_only_what_stands_above_it() -> None:
    with pytest.raises(ValueError, match="paper extends 'reduced', which is no scale above it"):
        extended({"paper": {"extends": "reduced"}, "reduced": SMALL})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minutes": {"at_l2": 3.0}}, "minutes lacks the recipe of student"),
        ({"train": [LINES[1] | {"seed": 1}]}, "seed names one, seeds asks for several"),
        ({"only": {"other": ["*"]}}, "only names no suite of the scale: other"),
        (
            {"suites": {"main": "clean", "more": "clean"}, "seconds": {"main": 1.0, "more": 1.0}},
            "under several names: main",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        scale(SMALL | change)
