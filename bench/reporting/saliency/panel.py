"""`bench saliency`: checking what was asked for, computing the rows, and writing the one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.attributions.manipulations import MANIPULATIONS, RandomSign
from bench.attributions.registry import method_names, methods_named
from bench.catalog.models import resolve_models
from bench.catalog.sources import SourceOptions
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import write_atomically
from bench.core.names import require_known
from bench.data import load_split
from bench.reporting.figures import figure_bytes, require_picture
from bench.reporting.saliency.figure import draw_panel
from bench.reporting.saliency.rows import PanelRow, PanelSettings, panel_rows

MOST_ROWS = 40


@dataclass(frozen=True, slots=True)
class PanelOutcome:
    """A written panel.

    Attributes:
        attacked_method: whose maps the attack aimed at; None for the control, which aims at none.
        remarks: what is odd about the models' outputs.
    """

    rows: list[PanelRow]
    attacked_method: str | None
    remarks: list[str]


def make_panel(
    models: Sequence[str],
    images: Sequence[int],
    methods: Sequence[str],
    attack: str,
    *,
    eps: float,
    output: Path,
    dataset: str | None = None,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    download: bool = False,
    registry: Path | None = None,
    programs: Sequence[Path] = (),
    source: SourceOptions | None = None,
) -> PanelOutcome:
    """Write the panel; nothing is written unless all of it could be made, and then at once.

    Args:
        models: names, wildcards, folders or sources, as `bench run` takes them.
        images: positions in the test split, from 0.
        methods: names of attribution methods, FILE.py:FUNCTION, wildcards or `all`, with their default parameters.
        attack: the kind of an attack on maps, with its default parameters.
        eps: radius of the L-inf ball, pixels of [0, 1].
        output: ends in .png or .svg; its folder exists.
        source: how a model that is named by its source is to be taken.

    Raises:
        BenchError: bad input in any of these, a method that a net does not support, or a file that cannot be written.
    """
    kind = require_picture(output)
    settings = _settings(methods, attack, eps, seed)
    place = resolve_device(device)
    chosen = resolve_models(models, dataset, options=source, registry=registry, programs=programs)
    ids = list(dict.fromkeys(images))
    if not ids:
        raise BenchError("name at least one image by its position, from 0.", option="image")
    count = len(chosen) * len(ids)
    if count > MOST_ROWS:
        said = f"{len(chosen)} models and {len(ids)} images are {count} rows"
        raise BenchError(f"{said}; a panel has at most {MOST_ROWS}.")
    names = dict.fromkeys(entry.card.dataset for entry in chosen)
    datasets = {name: load_split(name, "test", data_dir=data_dir, download=download) for name in names}
    for loaded in datasets.values():
        for position in ids:
            if not 0 <= position < len(loaded):
                said = f"image {position} is not in the {loaded.split} split of {loaded.name}"
                raise BenchError(f"{said}, whose images are 0 to {len(loaded) - 1}.", option="image")
    rows: list[PanelRow] = []
    remarks = []
    for entry in chosen:
        found, findings = panel_rows(entry, datasets[entry.card.dataset], ids, settings, device=place)
        rows += found
        remarks += [f"{entry.card.name}: {finding.evidence}; {finding.advice}" for finding in findings]
    write_atomically(output, figure_bytes(draw_panel(rows, settings), kind))
    aim = None if isinstance(settings.attack, RandomSign) else settings.attacked_method.name
    return PanelOutcome(rows, aim, remarks)


def _settings(methods: Sequence[str], attack: str, eps: float, seed: int) -> PanelSettings:
    shown = [method.given() for method in methods_named(methods)]
    if not shown:
        raise BenchError(f"name at least one attribution method: {', '.join(method_names())}.", option="method")
    require_known(attack, MANIPULATIONS, "attack on maps")
    if not (math.isfinite(eps) and 0.0 < eps <= 1.0):
        raise BenchError(f"eps {eps} is not a radius; pixels are in [0, 1], use e.g. 8/255.", option="eps")
    chosen = MANIPULATIONS[attack].model_validate({})
    return PanelSettings(shown, chosen, eps, seed)
