"""The command that makes a run's numbers again, as far as its evidence knows how its model was named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.catalog.cards import ModelCard
from bench.core.errors import bench_command
from bench.leaderboard.best_known import is_external
from bench.leaderboard.evidence.finished_runs import Run
from bench.leaderboard.rows import short_digest

Options = dict[str, str | bool | list[str]]
"""Options of `bench run` by name, as `bench_command` takes them."""
_PATHS = "paths are as the run was given them, without the folders outside of its working directory"


@dataclass(frozen=True, slots=True)
class Repeat:
    """How to repeat a run's numbers.

    Attributes:
        command: the exact command; empty where no command line can name the model, as one in memory.
        note: what must be there first; empty where a fresh installation has it all.
    """

    command: str
    note: str


def repeat(run: Run, suites: Mapping[str, str], models: Mapping[str, str]) -> Repeat:
    """The command that makes a run's numbers again.

    Args:
        suites: name -> digest of the suites that ship with this version.
        models: full name -> digest of the registered weights.
    """
    shared = run.shared
    notes = []
    suite = str(shared["suite"])
    if short_digest(suites.get(suite)) != shared["suite_sha256"]:
        notes.append(
            f"suite {suite} is not the one that ships with this version: write the suite table of the run's "
            f"manifest.json into {suite}.toml (digest {str(shared['suite_sha256'])[:12]})"
        )
        suite = f"{suite}.toml"
    model, note = _model(run, models)
    notes += [note] if note else []
    strangers = ", ".join(sorted(set(run.rows[is_external(run.rows)]["attack"])))
    if strangers:
        notes.append(f"numbers of {strangers} come from others' images: enter those again with bench verify")
    search = searched_in(str(shared["precision"]))
    command = bench_command(
        "run", **model, suite=suite, examples=run.examples, seed=shared["seed"], fresh=True, **search
    )
    return Repeat(command if model else "", "; ".join(notes))


def _model(run: Run, models: Mapping[str, str]) -> tuple[Options, str]:
    """The options that name the model, and what must be there first; no options where none can."""
    card = run.manifest.card if run.manifest else None
    named = dict(run.manifest.request.named) if run.manifest else {}
    if "model" in named:
        return {**named, "dataset": str(run.shared["dataset"])}, _files(card, _PATHS)
    if card is not None and in_memory(card):
        return {}, "the net was in memory: pass it to bench.evaluate again, with this suite and these images"
    known = models.get(run.model)
    if known is None and not named and card is not None and not card.training:
        return {}, "the run does not say how its model was named; its manifest.json has the model's card"
    options: Options = {"model": run.model, **named}
    if card is not None and card.program is not None:
        options.setdefault("program", card.program.file)
    if known is None and not ("registry" in named and Path(str(named["registry"])).is_dir()):
        options.pop("registry", None)
        return options, f"model {run.model} is not in this registry: name its registry in BENCH_REGISTRY"
    if known is not None and short_digest(known) != run.shared["model_sha256"]:
        weights = str(run.shared["model_sha256"])[:12]
        return options, f"the registry now holds other weights; these had digest {weights}"
    return options, _files(card, "")


def searched_in(precision: str) -> dict[str, str | bool | None]:
    """The options of `bench run` by which a search has a run's precision."""
    plain, _, through = precision.partition("-")
    return {"precision": None if plain == "float32" else plain, "compile": bool(through)}


def in_memory(card: ModelCard) -> bool:
    """Whether nothing says where the net came from."""
    return not (card.program or card.training or card.description or card.architecture_parameters)


def _files(card: ModelCard | None, note: str) -> str:
    program = card.program if card else None
    digest = f"{program.file} had digest {program.sha256[:12]}" if program else ""
    return "; ".join(part for part in (note, digest) if part)
