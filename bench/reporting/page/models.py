"""The section of each model: its card, its runs, every number, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalog.cards import ModelCard
from bench.core.threat import NORM_LABELS, radius_text
from bench.leaderboard.comparable import precision_note
from bench.leaderboard.evidence.finished_runs import Run
from bench.leaderboard.evidence.repeat import Repeat, repeat
from bench.leaderboard.labels import in_words
from bench.leaderboard.metrics import keys_of
from bench.reporting.page.content import Names, Number, anchor
from bench.reporting.page.links import Links

_MOST_NUMBERS = 60


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the card. `code` for digests and names that a machine reads."""

    name: str
    value: str
    code: bool = False
    href: str = ""


@dataclass(frozen=True, slots=True)
class RunSection:
    """One run of a model; where it has too many numbers to print twice, `numbers` is empty and `board` has them."""

    run: Run
    facts: Sequence[Fact]
    repeat: Repeat
    numbers: Sequence[Sequence[str]]
    board: str


@dataclass(frozen=True, slots=True)
class ModelSection:
    """Everything about one model; a part is empty where there is nothing to say."""

    id: str
    name: str
    label: str
    method: str
    description: str
    card: Sequence[Fact]
    training: Sequence[Fact]
    runs: Sequence[RunSection]


def model_anchor(name: str) -> str:
    return anchor("model", name)


def model_sections(
    runs: Mapping[str, Sequence[Run]],
    cards: Mapping[str, ModelCard],
    names: Names,
    *,
    suites: Mapping[str, str],
    models: Mapping[str, str],
    links: Links,
    folders: Mapping[str, Path],
) -> list[ModelSection]:
    """Sections in the order of the names.

    Args:
        runs: id of a table of the page -> the runs that it shows.
        cards: full name -> card.
        suites, models: as for `repeat`.
        links: how the page reaches files.
        folders: full name -> the folder of its card.
    """
    boards = {run.run_id: board for board, shown in runs.items() for run in shown}
    sections = []
    for name in names.slots:
        own = sorted((run for shown in runs.values() for run in shown if run.model == name), key=_strongest_first)
        card = cards.get(name)
        sections.append(
            ModelSection(
                id=model_anchor(name), name=name, label=names.label(name),
                method=str(own[0].shared["method"]), description=card.description if card else "",
                card=_card_facts(card, links, folders.get(name)) if card else [], training=_training_facts(card),
                runs=[_run_section(run, boards[run.run_id], repeat(run, suites, models), links) for run in own],
            )
        )  # fmt: skip
    return sections


def _strongest_first(run: Run) -> tuple[bool, float]:
    """Attacks on predictions before all else, the costliest first."""
    attacked = bool((run.rows["metric"] == "robust_accuracy").any())
    return not attacked, -float(run.shared["seconds"]) / run.examples


def _card_facts(card: ModelCard, links: Links, folder: Path | None) -> list[Fact]:
    gradients = card.gradients
    cosine = gradients and gradients.target_cosine
    facts = [
        *_net_facts(card),
        Fact("parameters", f"{card.weights.parameters:,}"),
        Fact("weights, sha256", card.weights.sha256, code=True),
        *(
            Fact(f"{split} accuracy", f"{100 * value:.2f} %")
            for split, value in (("validation", card.accuracy.validation), ("test", card.accuracy.test))
            if value is not None
        ),
        *(
            Fact(f"gradient stability, noise {radius}", f"{value:.3f}")
            for radius, value in (gradients.stability if gradients else {}).items()
        ),
        Fact("gradient cosine to its target maps", "" if cosine is None else f"{cosine:.3f}"),
        Fact("download of the weights", card.weights.url or ""),
    ]
    if folder is not None and (address := links.to(folder / "card.toml")):
        facts.append(Fact("the card", f"{folder.name}/card.toml", href=address))
    return [fact for fact in facts if fact.value]


def _net_facts(card: ModelCard) -> list[Fact]:
    """What the net is; of a program of its owner's which it is, and how images are made ready for it."""
    parameters = dict(card.architecture_parameters)
    adapter = dict(parameters.pop("adapter", {}))
    program = card.program
    if program is None:
        net = [Fact("architecture", _call(card.architecture, parameters))]
    else:
        factory = f", function {program.factory}" if program.factory else ""
        net = [Fact("net", f"{program.file}{factory} ({program.kind})")]
        net.append(Fact("program, sha256", program.sha256, code=True))
    normalisation = {name: value for name in ("mean", "std") if (value := adapter.pop(name, None))}
    size, classes = (_value(adapter.pop(name, None) or "") for name in ("input_size", "classes"))
    ready = {"normalisation": _settings(normalisation), "images resized to": size, "outputs taken": classes}
    return [*net, *(Fact(*pair) for pair in ready.items()), Fact("adapter", _settings(adapter))]


def _training_facts(card: ModelCard | None) -> list[Fact]:
    training = card.training if card else None
    if training is None:
        return []
    facts = [
        Fact("recipe", _call(training.recipe, training.parameters)),
        Fact("schedule", _settings(training.schedule)),
        Fact("seed", str(training.seed)),
        Fact("images", f"{training.training_examples:,}"),
        Fact("started from or guided by", training.source_model or ""),
        Fact("training data, sha256", training.data_sha256, code=True),
        Fact("took", f"{training.minutes:.1f} minutes on {training.device}"),
        Fact("with", f"bench {training.bench_version}, torch {training.torch_version}"),
        Fact("finished", training.finished_at),
    ]
    return [fact for fact in facts if fact.value]


def _run_section(run: Run, board: str, again: Repeat, links: Links) -> RunSection:
    shared = run.shared
    counters, precision = run.manifest.result.counters if run.manifest else {}, precision_note(str(shared["precision"]))
    claimed, rejected = counters.get("claims", 0), counters.get("rejected_claims", 0)
    claims = f"{claimed:,} claimed, {rejected:,} rejected when verified"
    folder = links.leaderboard / "runs" / run.run_id
    address = links.to(folder)
    evidence = [
        Fact("evidence", f"runs/{run.run_id}/", code=True, href=f"{address}/" if address else ""),
        Fact("manifest", "manifest.json" if address else "", href=links.to(folder / "manifest.json")),
    ]
    lines = [
        Fact("suite from", run.manifest.suite.source if run.manifest else ""),
        Fact("images", f"{run.examples:,} of the {shared['split']} split, seed {shared['seed']}"),
        Fact("finished", str(shared["finished_at"])),
        Fact("took", f"{float(shared['seconds']):,.1f} s on {shared['device']}{precision}"),
        Fact("with", ", ".join(_versions(run))),
        Fact("adversarial examples", claims if "claims" in counters else ""),
        *([Fact("evidence", f"not at hand: {run.problem}")] if run.problem else evidence),
        Fact("not to be trusted", run.doubt),
        Fact("weights, sha256", str(shared["model_sha256"]), code=True),
        Fact("data, sha256", str(shared["data_sha256"]), code=True),
        Fact("suite, sha256", str(shared["suite_sha256"]), code=True),
        Fact("other nets, sha256", str(shared["dependencies_sha256"]), code=True),
    ]
    numbers = _numbers(run) if len(run.rows) <= _MOST_NUMBERS else []
    return RunSection(run, [fact for fact in lines if fact.value], again, numbers, board=board)


def _versions(run: Run) -> list[str]:
    packages = {"bench": run.shared["bench_version"], "torch": run.shared["torch_version"]}
    if run.manifest is None:
        return [f"{name} {version}" for name, version in packages.items()]
    environment = run.manifest.environment
    packages |= {"Python": environment.python} | environment.packages
    cpu = [f"CPU {environment.cpu}"] if environment.cpu else []
    return [*(f"{name} {version}" for name, version in packages.items()), *cpu]


def _numbers(run: Run) -> list[list[str]]:
    rows = []
    # a dictionary for each row takes thirty times as long
    columns = [run.rows[name].tolist() for name in ("value", "ci_low", "ci_high", "unit", "n_examples")]
    for key, value, low, high, unit, examples in zip(keys_of(run.rows), *columns, strict=True):
        number = Number(value, low, high, percent=unit == "share")
        where = [key.attack, NORM_LABELS.get(key.norm, key.norm), "" if key.eps is None else radius_text(key.eps)]
        shown = f"{number.text} %" if number.percent else number.text
        rows.append([in_words(key), *where, shown, number.interval, f"{examples:,}"])
    return rows


def _call(name: str, parameters: Mapping[str, Any]) -> str:
    return f"{name} ({_settings(parameters)})" if parameters else name


def _settings(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in parameters.items() if value not in ({}, [], ""))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return f"({_settings(value)})"
    return ", ".join(_value(part) for part in value) if isinstance(value, list) else str(value)
