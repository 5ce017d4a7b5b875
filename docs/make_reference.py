"""Writes docs/reference/ from docstrings, the command line, and the shipped suites: `python docs/make_reference.py`.

A test holds what is committed against what this would write.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

FOLDER = Path(__file__).parent / "reference"
HEAD = "<!-- written by docs/make_reference.py; do not edit -->\n\n"


def main() -> None:
    """Write every page, and take away those that are no longer made."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (FOLDER / name).write_text(content, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name -> content of all pages."""
    made = {
        "commands.md": _commands(),
        "python.md": _python(),
        "suites.md": _suites(),
        "attacks.md": _attacks(),
        "recipes.md": _recipes(),
        "explanations.md": _explanations(),
        "cards.md": _cards(),
    }
    return {name: HEAD + "\n".join(lines).rstrip() + "\n" for name, lines in made.items()}


def _commands() -> Iterator[str]:
    from bench.cli.main import app

    yield from ("# Commands", "")
    yield from (
        "Exit codes: 0 done, 1 the verdict is negative (`check`, `models verify`), 2 usage or input error (one line",
        "says what and how to mend it), 130 interrupted (143 by SIGTERM, 129 by SIGHUP), 141 the reader has gone.",
        "",
    )
    group: Any = typer.main.get_command(app)
    yield from _parameters(group.params)
    for name, command in group.commands.items():
        yield from _command(f"bench {name}", command)


def _command(name: str, command: Any) -> Iterator[str]:
    yield from (f"## {name}", "", *(command.help or "").split("\n"), "")
    yield from _parameters(command.params)
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {inner}", subcommand)


def _parameters(parameters: Iterable[Any]) -> Iterator[str]:
    rows = [
        [_spelling(one), _default(one), _cell(one.help or "")]
        for one in parameters
        if one.name not in ("help", "install_completion", "show_completion")
    ]
    if rows:
        yield from _table(["option or argument", "default", "meaning"], rows)


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    repeated = " ..." if parameter.multiple else ""
    return " / ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)) + repeated


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(value, enum.Enum):
        return f"`{value.value}` of " + ", ".join(f"`{one.value}`" for one in type(value))
    shown = "" if value is None or value is False or callable(value) else f"`{value}`"
    return f"{shown} or `${parameter.envvar}`" if parameter.envvar else shown


def _python() -> Iterator[str]:
    import bench
    import bench.api

    yield from ("# Python", "", "```text", *_doc(bench.api), "```", "")
    for name in bench.__all__:
        yield from _described(f"bench.{name}", getattr(bench, name))
        if inspect.isclass(getattr(bench, name)):
            for method, value in vars(getattr(bench, name)).items():
                if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield from _described(f"bench.{name}.{method}", value, level=3)


def _described(name: str, value: Any, level: int = 2) -> Iterator[str]:
    yield from (f"{'#' * level} {name}", "", "```text")
    if inspect.isfunction(value):
        yield from (f"{name.rpartition('.')[2]}{_signature(value)}", "")
    yield from (*_doc(value), "```", "")


def _doc(value: Any) -> list[str]:
    return (inspect.getdoc(value) or "").split("\n")


def _signature(function: Any) -> str:
    """The signature, an argument a line where it is long."""
    signature = inspect.signature(function)
    arguments: list[str] = []
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        annotation = "" if one.annotation is one.empty else f": {one.annotation}"
        default = "" if one.default is one.empty else f" = {one.default!r}"
        arguments.append(f"{stars}{one.name}{annotation}{default}")
    returned = f" -> {signature.return_annotation}"
    if sum(map(len, arguments)) < 80:
        return f"({', '.join(arguments)}){returned}"
    return "(\n" + "".join(f"    {one},\n" for one in arguments) + f"){returned}"


def _suites() -> Iterator[str]:
    from bench.catalog.suites import list_suites
    from bench.protocols.registry import PROTOCOLS

    yield from ("# Suites and protocols", "")
    yield from ("A suite is a TOML file that pins a protocol's parameters; `bench suites show NAME` prints it.", "")
    suites = list_suites()
    rows = [
        [f"`{name}`", str(file.version), f"`{file.protocol}`", f"{file.examples:,}", _cell(file.description)]
        for name, file in ((one.name, one.file) for one in suites)
    ]
    yield from _table(["suite", "version", "protocol", "images", "what it does"], rows)
    for name, protocol in sorted(PROTOCOLS.items()):
        preset = protocol.__module__.endswith(".presets")
        about = [*([] if preset else [*_doc(inspect.getmodule(protocol)), ""]), *_doc(protocol)]
        needs = [
            text
            for text, needed in (
                ("needs the training split", protocol.needs_training_split),
                ("takes `--precision`", protocol.search_takes_precision),
            )
            if needed
        ]
        own = ", ".join(f"`{one.name}`" for one in suites if one.file.protocol == name)
        yield from (f"## {name}", "", "```text", *about, "```", "")
        yield from ("; ".join([f"Suites: {own or 'none'}", *needs]) + ".", "")


def _attacks() -> Iterator[str]:
    from bench.attacks import registry

    yield from ("# Attacks", "")
    yield from (
        'For suites of protocol `robustness`: `attack = "NAME"`, with keywords in the same table. Besides these, every',
        "`torchattacks:CLASS`, `foolbox:CLASS`, `pyautoattack:COMPONENT`, a plug-in of the entry point group",
        "`bench.attacks`, and `FILE.py:FUNCTION`.",
        "",
        "```text",
        *_doc(registry),
        "```",
        "",
    )
    for name, attack in sorted(registry.our_attacks().items()):
        yield from (f"## {name}", "", "```text", *_doc(attack.function), "```", "")
        yield from (f"Kind: {attack.kind}. Norms: {', '.join(attack.norms)}.", "")
        shown = {key: str(one.default) for key, one in attack.parameters.items()}
        rows = [[f"`{key}`", f"`{_cell(text)}`" if len(text) < 60 else "see the code"] for key, text in shown.items()]
        yield from _table(["keyword", "default"], rows) if rows else ()


def _recipes() -> Iterator[str]:
    from bench.training import list_recipes, make_recipe
    from bench.training.recipe import Schedule

    yield from ("# Recipes", "")
    yield from ("`bench train --recipe NAME --set PARAMETER=VALUE`; values are those of Fashion-MNIST.", "")
    for template in list_recipes():
        recipe = make_recipe(template.name, "fashion_mnist")
        yield from (f"## {template.name}", "", f"{template.summary[:1].upper()}{template.summary[1:]}.", "")
        yield from ("```text", *_doc(type(recipe.method)), "```", "")
        fields = getattr(type(recipe.method), "model_fields", {})
        yield from _fields([(key, getattr(recipe.method, key), info.description) for key, info in fields.items()])
        changed = [
            f"`{key}={getattr(recipe.schedule, key)}`"
            for key in Schedule.model_fields
            if getattr(recipe.schedule, key) != getattr(Schedule(), key)
        ]
        if changed:
            yield from (f"Schedule: {', '.join(changed)}; the rest as below.", "")
    yield from ("## Schedule of every recipe", "")
    defaults = Schedule()
    yield from _fields([(key, getattr(defaults, key), info.description) for key, info in Schedule.model_fields.items()])


def _fields(fields: list[tuple[str, Any, str | None]]) -> Iterator[str]:
    if fields:
        rows = [[f"`{key}`", f"`{value}`", _cell(meaning or "")] for key, value, meaning in fields]
        yield from _table(["`--set`", "value", "meaning"], rows)


def _explanations() -> Iterator[str]:
    from bench.attributions.registry import our_methods

    yield from ("# Attribution methods", "")
    yield from (
        "For suites, `bench saliency --method` and `bench.attribute`. captum's stand beside ours, as `captum:NAME`;",
        "[what each costs](../howto/attack-explanations.md), and which can be attacked themselves.",
        "",
    )
    for name, method in our_methods().items():
        yield from (f"## {name}", "", "```text", *_doc(method.function), "```", "")
        rows = [
            [f"`{key}`", f"`{keyword.default}`", _cell(keyword.description)] for key, keyword in method.keywords.items()
        ]
        if rows:
            yield from _table(["parameter", "default", "meaning"], rows)


def _cards() -> Iterator[str]:
    from bench.catalog import cards
    from bench.nets.registry import _FACTORIES

    yield from ("# Model cards and architectures", "")
    yield from ("`<registry>/<data set>/<id>/card.toml`; unknown keys are refused.", "")
    sections: dict[str, type[BaseModel]] = {
        "card": cards.ModelCard, "weights": cards.Weights, "accuracy": cards.Accuracy, "gradients": cards.Gradients,
        "training": cards.Training, "program": cards.ProgramFacts,
    }  # fmt: skip
    for name, section in sections.items():
        yield from (f"## {name}" if name == "card" else f"## [{name}]", "", inspect.getdoc(section) or "", "")
        rows = [
            [f"`{key}`", f"`{_type(info.annotation)}`", "required" if info.is_required() else ""]
            for key, info in section.model_fields.items()
        ]
        yield from _table(["key", "type", ""], rows)
    yield from ("## Architectures", "")
    yield from ("`architecture` names one of these, `architecture_parameters` its arguments.", "")
    for name, factory in sorted(_FACTORIES.items()):
        yield from _described(name, factory, level=3)


def _type(annotation: Any) -> str:
    name = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    return _cell(name.replace("typing.", "").replace("bench.catalog.cards.", ""))


def _table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
