"""The shipped studies: what they declare can be done by this version's recipes, nets and suites."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bench.catalog.locations import shipped
from bench.catalog.suites import resolve_suites
from bench.core.errors import BenchError
from bench.data import known_spec
from bench.nets import build_net
from bench.studies.names import expand
from bench.studies.plan import _TILT_SECONDS
from bench.studies.scales import AUTOENCODER
from bench.studies.study import Study, find_study, read_study
from bench.training import make_recipe
from bench.training.vae_gan import make_vae_gan_recipe

STUDIES = [path.stem for path in sorted((shipped("suites") / "studies").glob("*.toml"))]
DATASETS = {
    "ir": ("fashion_mnist", "mnist", "cifar10"),
    "bridging": ("fashion_mnist", "mnist", "cifar10"),
    "lga": ("fashion_mnist", "cifar10", "imagenet100"),
}


def groups(content: Any) -> list[str]:
    """Every id or pattern that claims and pictures name."""
    if isinstance(content, list):
        return [name for one in content for name in groups(one)]
    if not isinstance(content, dict):
        return []
    names = [content[key] for key in ("better", "worse", "models", "model", "strengths", "groups") if key in content]
    flat = [one for name in names for one in _flat(name) if isinstance(one, str)]
    return flat + [name for value in content.values() for name in groups(value)]


def _flat(value: Any) -> list[Any]:
    return [one for part in value for one in _flat(part)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(("paper", "dataset"), [(paper, name) for paper, names in DATASETS.items() for name in names])
def test_each_paper_has_a_study_of_each_of_its_data_sets(paper: str, dataset: str) -> None:
    assert find_study(paper, dataset).dataset == dataset


def test_without_a_data_set_a_study_is_that_of_fashion_mnist_and_an_unknown_one_is_refused() -> None:
    assert {find_study(paper).dataset for paper in DATASETS} == {"fashion_mnist"}
    with pytest.raises(BenchError, match="unknown data set of study lga 'mnist'; did you mean fashion_mnist"):
        find_study("lga", "mnist")
    with pytest.raises(BenchError, match=r"study .*ir\.toml is of fashion_mnist"):
        find_study(str(shipped("suites") / "studies" / "ir.toml"), "mnist")


@pytest.mark.parametrize("name", STUDIES)
def test_every_training_of_a_study_is_a_recipe_with_a_net_of_this_version(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for draw in ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_"):  # weights do not matter here
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    study = read_study(shipped("suites") / "studies" / f"{name}.toml")
    built = set()
    for scale in map(study.scale, study.scales):
        for model in scale.train:
            if model.recipe == AUTOENCODER:
                make_vae_gan_recipe(study.dataset, model.parameters)
                continue
            recipe = make_recipe(model.recipe, study.dataset, model.parameters)
            parameters = recipe.architecture_parameters(known_spec(study.dataset, "training"))
            if (key := f"{recipe.schedule.architecture} {parameters}") not in built:
                build_net(recipe.schedule.architecture, parameters)
                built.add(key)


@pytest.mark.parametrize("name", STUDIES)
def test_a_student_is_trained_after_its_source(name: str) -> None:
    study = read_study(shipped("suites") / "studies" / f"{name}.toml")
    for scale in map(study.scale, study.scales):
        ids = [model.id for model in scale.train]
        for place, model in enumerate(scale.train):
            source = model.parameters.get("source_model")
            assert source is None or source in ids[:place], f"{scale.prefix}: {model.id} before {source}"


@pytest.mark.parametrize("name", STUDIES)
def test_every_suite_of_a_study_is_there_and_every_claim_is_of_models_that_a_scale_has(name: str) -> None:
    study = read_study(shipped("suites") / "studies" / f"{name}.toml")
    scales = {scale: study.scale(scale) for scale in study.scales}
    assert [resolve_suites([suite]) for scale in scales.values() for suite in scale.suites.values()]
    known = {one.removeprefix(scale.prefix) for scale in scales.values() for one in _models(scale)}
    for claim in study.claims:
        content = claim.model_dump()
        named = groups(content)
        assert named or content["statistic"] == "tilt"
        assert [one for one in named if "*" not in one and one.removesuffix("+") not in known] == [], claim.id


@pytest.mark.parametrize("name", STUDIES)
def test_a_control_is_of_no_paper_and_says_so(name: str) -> None:
    claims = read_study(shipped("suites") / "studies" / f"{name}.toml").claims
    controls = [claim for claim in claims if claim.id.startswith("control_") or claim.text.startswith("Control")]
    gates = {gate for claim in claims for gate in claim.gates} & {claim.id for claim in controls}
    assert gates or not controls
    assert [claim.id for claim in controls if not claim.ours] == []


def _models(scale: Any) -> list[str]:
    return [*(name.removesuffix("+") for name in scale.models if "*" not in name), *(model.id for model in scale.train)]


@pytest.mark.parametrize("name", [name for name in STUDIES if "-" in name])
def test_every_table_and_figure_has_lines_at_the_scale_paper(name: str) -> None:
    study: Study = read_study(shipped("suites") / "studies" / f"{name}.toml")
    scale = study.scale("paper")
    ids = [one.removeprefix(scale.prefix) for one in _models(scale)]
    for experiment in study.experiments:
        assert set(experiment.suites) <= set(scale.suites)
        assert not experiment.suites or expand(experiment.models, ids), experiment.what
        assert all(expand([pattern], ids) for pattern in experiment.models if experiment.suites), experiment.what


@pytest.mark.parametrize("paper", DATASETS)
def test_quick_takes_at_most_half_an_hour_on_the_shipped_models(paper: str) -> None:
    """Without trainings, on an empty leaderboard; by the declared seconds, which no machine's speed changes."""
    study = find_study(paper)
    scale = study.scale("quick")
    here = {path.parent.name for path in (shipped("models") / study.dataset).glob("*/card.toml")}
    wanted = expand([*scale.models, *(model.id for model in scale.train)], here)
    models = [name for name in wanted if name in here]
    seconds = {role: scale.seconds[role] * len(scale.under(role, models)) for role in scale.suites}
    assert len(models) > 4 and all(seconds.values())
    if any(claim.statistic == "tilt" for claim in study.claims_at("quick")):
        seconds["tilt"] = _TILT_SECONDS
    assert sum(seconds.values()) <= 1800, seconds
