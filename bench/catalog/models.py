"""The registry of models: listing cards, resolving names, loading weights with their digest checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from bench.catalog.cards import ModelCard, read_card
from bench.catalog.locations import model_roots, models_elsewhere
from bench.catalog.programs import Program, parse_program, with_programs
from bench.catalog.sources import NamedSource, SourceOptions, is_source, misnamed
from bench.catalog.state_files import parse_state, weights_of
from bench.catalog.weights import WeightsFile
from bench.core.errors import BenchError, bench_command, reason_of
from bench.core.names import natural_key, require_safe_name, select_names, unknown_name
from bench.data import DATASETS
from bench.nets import build_net
from bench.nets.adapter import Adapter, AdapterSettings
from bench.nets.intake import plain_net
from bench.nets.layers import Normalization

DEFAULT_DATASET = "fashion_mnist"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A card and the folder it lies in.

    Attributes:
        build: makes the net of a model that is in no registry; its card says what it is, its folder is empty.
        program: the file that the user has named for a card with a [program] section, or as the model itself.
        named: the options that name it again where its full name does not, `model` among them.
    """

    card: ModelCard
    folder: Path
    build: Callable[[], nn.Module] | None = field(default=None, compare=False)
    program: Path | None = None
    named: Mapping[str, str | bool] = field(default_factory=dict, compare=False)

    @property
    def weights(self) -> WeightsFile:
        return WeightsFile(self.card.weights, self.folder, self.card.name)


def registered(registry: Path | None = None) -> dict[str, ModelEntry | BenchError]:
    """Full name -> model, or what is wrong with its card, in natural order; the first root that has a name wins."""
    found: dict[str, ModelEntry | BenchError] = {}
    for root in model_roots(registry):
        # a hidden folder is being written, or was when its process was killed
        for path in root.glob("[!.]*/[!.]*/card.toml"):
            name = f"{path.parent.parent.name}/{path.parent.name}"
            if name not in found:
                found[name] = _checked_entry(path, name)
    return {name: found[name] for name in sorted(found, key=natural_key)}


def _checked_entry(path: Path, name: str) -> ModelEntry | BenchError:
    try:
        card = read_card(path.parent)
    except BenchError as error:
        return BenchError(f"{error} Mend this card, or move its folder away.")
    if card.name != name:
        return BenchError(f"model card {path} calls itself {card.name}; folder and card must agree.")
    return ModelEntry(card, path.parent)


def broken_cards(registry: Path | None = None) -> list[BenchError]:
    """What is wrong with each card that cannot be read."""
    return [found for found in registered(registry).values() if isinstance(found, BenchError)]


def find_model(name: str, registry: Path | None = None) -> ModelEntry | None:
    """The registered model of a full name, None where there is none; raises BenchError if its card cannot be read."""
    found = registered(registry).get(name)
    return None if found is None else _sound(found)


def _sound(found: ModelEntry | BenchError) -> ModelEntry:
    if isinstance(found, BenchError):
        raise found
    return found


def list_models(
    dataset: str | None = None,
    registry: Path | None = None,
    *,
    patterns: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[ModelEntry]:
    """Registered models in natural order of their names, those in `registry` before others of the same name.

    A model whose card cannot be read is left out, unless a pattern names it.

    Args:
        patterns, exclude: full names or short ones of any data set, or wildcards for them (`mnist/at_*`, `at_*`); no
            patterns are all.

    Raises:
        BenchError: a pattern that matches no model, or one whose card cannot be read.
    """
    known = registered(registry)
    unwanted = _named(exclude, known)
    listed = [name for name in known if dataset in (None, name.partition("/")[0])]
    chosen = [known[name] for name in (_named(patterns, listed) if patterns else listed) if name not in unwanted]
    return [_sound(found) for found in chosen if patterns or isinstance(found, ModelEntry)]


def _named(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """The full names that full or short ones, or wildcards for them, stand for."""
    short = {name: name.partition("/")[2] for name in names}
    found = set(select_names(patterns, list(dict.fromkeys([*short.values(), *names])), "model"))
    return [name for name in names if not found.isdisjoint((short[name], name))]


def resolve_models(
    patterns: Sequence[str],
    dataset: str | None = None,
    *,
    options: SourceOptions | None = None,
    registry: Path | None = None,
    programs: Sequence[Path] = (),
    attempt: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> list[ModelEntry]:
    """The models that names, wildcards, `all`, folders holding a card.toml, or sources stand for.

    A short name is looked up in `dataset` (default fashion_mnist), a full one (`mnist/at_l2`) where it says.

    Args:
        options: how a model that is named by its source is to be taken; see bench.catalog.sources. With `download`,
            weights that are not here are fetched, where the card says from where.
        registry: a folder of models, looked in first.
        programs: files for cards that need a program of the user's, each for the cards that name it.
        attempt: within it a model that is named by its source is built, which may run the user's code, and a card that
            cannot be read is an error; where it keeps an error to itself, that model is left out.

    Raises:
        BenchError: unknown name, a full name of another data set than `dataset`, or options that no model takes.
    """
    options = options or SourceOptions()
    named = [pattern for pattern in patterns if is_source(pattern)]
    _refuse_idle_options(options, len(named))
    if dataset is not None and patterns and not named:
        known = {*DATASETS, *(name.partition("/")[0] for name in registered(registry))}
        if dataset not in known and not any((Path(pattern) / "card.toml").is_file() for pattern in patterns):
            raise unknown_name(dataset, known, "data set")
    chosen: dict[str, ModelEntry] = {}
    found: list[ModelEntry] = []
    for pattern in patterns:
        with attempt(pattern) if is_source(pattern) else nullcontext():
            for one in _resolve(pattern, dataset, registry, options):
                with attempt(pattern):
                    found.append(_sound(one))
    for entry in found:
        name, built = entry.card.name, entry.build is not None
        if dataset not in (None, entry.card.dataset):
            raise BenchError(f"model {name} is for {entry.card.dataset}, not for {dataset}.", option="dataset")
        if built and name in chosen:
            raise BenchError(f"two models would be called {name}; give one of them another name.", option="model_id")
        chosen[name] = entry
    entries = with_programs(list(chosen.values()), programs)
    for entry in entries if options.download else ():
        entry.weights.fetch()
    return entries


def _refuse_idle_options(options: SourceOptions, sources: int) -> None:
    given = options.given()
    if given and sources != 1:
        raise BenchError(
            f"{given[0]} is for one model that is named by its source, such as timm:NAME or FILE.py:FACTORY; "
            f"{sources or 'none'} of these is.",
            option=given[0],
        )


def entry_from_source(text: str, dataset: str | None, options: SourceOptions) -> ModelEntry:
    """A model that is in no registry, built once to know its digest; raises BenchError."""
    dataset = require_safe_name(dataset or DEFAULT_DATASET, "data set")
    options, program = options.for_classes_of(dataset), parse_program(text)
    source, path = NamedSource(text, dataset, options), program.path if program is not None else None
    return ModelEntry(
        source.card(), Path(), source.build_net, program=path, named={"model": text} | options.as_options()
    )


def _resolve(
    pattern: str, dataset: str | None, registry: Path | None, options: SourceOptions
) -> Sequence[ModelEntry | BenchError]:
    if is_source(pattern):
        return [entry_from_source(pattern, dataset, options)]
    folder = _folder(pattern, dataset, registry)
    if folder is not None:
        return [ModelEntry(read_card(folder), folder, named={"model": pattern})]
    if Path(pattern).name == "card.toml":
        raise BenchError(f"{pattern} is a card; name the folder that it lies in.")
    known = registered(registry)
    what, elsewhere = "model", [full for full in known if full.endswith(f"/{pattern}")]
    if "/" not in pattern:
        name = dataset or DEFAULT_DATASET
        what = f"{name} model"
        known = {full.removeprefix(f"{name}/"): entry for full, entry in known.items() if full.startswith(f"{name}/")}
    if pattern not in known and elsewhere:
        raise BenchError(f"unknown {what} {pattern!r}; did you mean {' or '.join(elsewhere)}?")
    if pattern.count("/") > 1 and pattern not in known and not Path(pattern).exists():
        place, name = os.path.split(pattern)
        near = sorted(card.parent.name for card in Path(place).glob("*/card.toml"))
        raise BenchError(f"there is no folder {pattern}; models in {place}: {', '.join(near) or 'none'}.")
    hint = misnamed(pattern)
    if hint is not None and pattern not in known:
        raise hint
    if not known and "/" not in pattern:
        raise BenchError(
            f"the registry has no model of {name}; train one with `{bench_command('train', dataset=name)}`, or name a "
            f"folder of models.{models_elsewhere()}",
            option="registry",
        )
    try:
        return [known[one] for one in select_names([pattern], list(known), what)]
    except BenchError as error:
        raise BenchError(f"{error}{models_elsewhere()}") from error


def _folder(pattern: str, dataset: str | None, registry: Path | None) -> Path | None:
    """The folder with a card that a pattern names; None where it is a name of the registry, whatever else lies here.

    `./at_l2` is a folder in any case.
    """
    path = Path(pattern)
    if not (path / "card.toml").is_file():
        return None
    plain = not (pattern.startswith(".") or path.is_absolute() or (os.sep != "/" and os.sep in pattern))
    full = pattern if "/" in pattern else f"{dataset or DEFAULT_DATASET}/{pattern}"
    return None if plain and full in registered(registry) else path


def load_model(entry: ModelEntry, device: torch.device | str = "cpu") -> nn.Module:
    """Build the net of a card and load its weights; eval mode, float32, parameters without gradient.

    No code of the weights file can run: only safetensors are read, after their digest is checked. No code that a card
    names runs: a program is opened only from the path that the user gave, and only if its digest is the card's.

    Raises:
        BenchError: a file is missing, is not the one the card names, is damaged, or does not fit the net.
    """
    if entry.build is not None:
        net = entry.build()
        if weights_of(net).sha256 != entry.card.weights.sha256:
            raise BenchError(
                f"model {entry.card.name} has other weights each time it is built; fix its seed or name its weights.",
                option="weights",
            )
    else:
        content = entry.weights.read()
        net = _build(entry)
        _load(net, content, entry)
    return plain_net(net).to(device)


def _build(entry: ModelEntry) -> nn.Module:
    facts = entry.card.program
    if facts is None:
        return build_net(entry.card.architecture, entry.card.architecture_parameters)
    if entry.program is None:
        raise BenchError(
            f"model {entry.card.name} needs {facts.file}, a program ({facts.kind}) that a registry cannot vouch for; "
            "name that file if you trust it.",
            option="program",
        )
    net, _ = Program(facts.kind, entry.program, facts.factory or "").build(facts.sha256)
    try:
        return Adapter(net, AdapterSettings(**entry.card.architecture_parameters.get("adapter", {})))
    except (ValidationError, TypeError) as error:
        raise BenchError(f"the card of {entry.card.name} has no valid adapter: {reason_of(error, 1000)}.") from error


def _load(net: nn.Module, content: bytes, entry: ModelEntry) -> None:
    state = parse_state(content, entry.weights.path)
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        what = f"weights {entry.weights.path} do not fit architecture {entry.card.architecture!r}"
        raise BenchError(f"{what}: {reason_of(error, 200)}.") from error
    for layer in net.modules():
        if isinstance(layer, Normalization):
            try:
                layer.require_numbers()
            except ValueError as error:
                raise BenchError(f"weights {entry.weights.path} hold a normalisation that is none: {error}.") from error
    contradiction = net.contradiction() if isinstance(net, Adapter) else None
    if contradiction is not None:
        raise BenchError(f"the card of {entry.card.name} and its weights differ in the adapter's {contradiction}.")
