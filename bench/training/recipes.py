"""Making a recipe by name for a data set, and saying how a training departs from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.packages import load_plugin, plugin_names
from bench.core.toml_files import explain
from bench.training.methods import Method
from bench.training.recipe import Recipe, RecipeTemplate, Schedule
from bench.training.templates import TEMPLATES

_GROUP = "bench.recipes"
_NOT_THE_NETS = {"in_channels", "image_size", "num_classes", "activation", "softplus_beta"}


def list_recipes() -> list[RecipeTemplate]:
    """This package's recipes, then those of plug-ins."""
    return [*TEMPLATES.values(), *(_from_plugin(name) for name in plugin_names(_GROUP) if name not in TEMPLATES)]


def _from_plugin(name: str) -> RecipeTemplate:
    found = load_plugin(_GROUP, name)
    is_method = Method in getattr(getattr(found, "method", None), "__mro__", ())
    if not isinstance(found, RecipeTemplate) or found.name != name or not is_method:
        raise BenchError(f"the plug-in {name!r} in {_GROUP} is no RecipeTemplate of that name with a Method.")
    return found


def make_recipe(name: str, dataset: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe `name` for a data set, with parameters or schedule entries overridden by name.

    Raises:
        BenchError: unknown recipe, unknown parameter, or a value out of range.
    """
    announced = plugin_names(_GROUP)
    if name not in TEMPLATES and name not in announced:
        raise unknown_name(name, [*TEMPLATES, *announced], "recipe")
    template = TEMPLATES.get(name) or _from_plugin(name)
    chosen = {**template.parameters, **template.schedule, **template.datasets.get(dataset, {})}
    default = Schedule.model_fields["architecture"].default
    net = (overrides or {}).get("architecture", chosen.get("architecture", default))
    chosen |= {**template.datasets.get(f"{dataset}/{net}", {}), **(overrides or {})}
    method, schedule = checked(name, chosen, template.method, Schedule)
    recipe = Recipe(template.name, template.summary, method, schedule)
    _refuse_contradictions(recipe, overrides or {})
    return recipe


def checked(name: str, chosen: Mapping[str, Any], *sections: type[Any]) -> list[Any]:
    """Each of `sections` with those of the values `chosen` for recipe `name` that are its own; raises BenchError."""
    known = [key for section in sections for key in section.model_fields]
    for key in chosen:
        if key not in known:
            raise unknown_name(key, known, f"parameter of recipe {name}")
    try:
        return [
            section(**{key: value for key, value in chosen.items() if key in section.model_fields})
            for section in sections
        ]
    except ValidationError as error:
        raise BenchError(f"recipe {name}: {explain(error)}.") from error


def _refuse_contradictions(recipe: Recipe, overrides: Mapping[str, Any]) -> None:
    """Settings that are each possible and make no sense together."""
    schedule = recipe.schedule
    beta = Schedule.model_fields["softplus_beta"].default
    why = recipe.method.contradiction(schedule)
    if overrides.get("softplus_beta", beta) != beta and schedule.activation != "softplus":
        why = "softplus_beta needs activation=softplus, but it is relu"
    elif schedule.schedule == "cosine" and (overrides.get("milestones") or overrides.get("gamma", 0.1) != 0.1):
        why = "milestones and gamma need schedule=multistep, but it is cosine"
    elif schedule.schedule == "multistep" and not schedule.milestones:
        why = "schedule=multistep needs milestones, e.g. milestones=[100,150]"
    elif decided := sorted({*schedule.architecture_parameters} & _NOT_THE_NETS):
        why = f"architecture_parameters cannot have {', '.join(decided)}: the data set and the schedule decide that"
    if why is not None:
        raise BenchError(f"recipe {recipe.name}: {why}.")
    asked = [name for name, on in (("precision", schedule.precision != "float32"), ("compile", schedule.compile)) if on]
    if asked and recipe.method.second_derivatives:
        once = [template.name for template in TEMPLATES.values() if not template.method.second_derivatives]
        raise BenchError(
            f"recipe {recipe.name} differentiates twice, which {' and '.join(asked)} cannot do: compiled graphs have "
            f"no second derivatives, and bfloat16 is too coarse for them; they are for {', '.join(once)}."
        )


def departures(name: str, dataset: str, described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What in a training's `parameters` and `schedule` is not the recipe's, one entry a name; empty if nothing is.

    The recipe is that of the data set and of the training's net; entries a card of an earlier version lacks count as
    the defaults they had.

    Raises:
        BenchError: no recipe of that name.
    """
    net = described["schedule"].get("architecture")
    own = make_recipe(name, dataset, {"architecture": net} if net else {})
    found = [*differing(own.method, described["parameters"]), *differing(own.schedule, described["schedule"])]
    usual = make_recipe(name, dataset).schedule.architecture
    if own.schedule.architecture != usual:
        found.insert(0, f"architecture {own.schedule.architecture} instead of {usual}")
    return found


def differing(own: BaseModel, trained: Mapping[str, Any]) -> list[str]:
    """`name value instead of value` for each field whose value in a card's table `trained` is not that of `own`."""
    found = []
    for name, info in type(own).model_fields.items():
        have, usual = trained.get(name, info.get_default(call_default_factory=True)), getattr(own, name)
        if have != usual:
            found.append(f"{name} {_shown(have)} instead of {_shown(usual)}")
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
