"""From a leaderboard to a web page: cards and digests come from the registry, saliency from the models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.attributions.registry import find_method
from bench.catalog.models import ModelEntry, list_models
from bench.catalog.programs import with_programs
from bench.catalog.suites import list_suites
from bench.comparison.ranks import ranked_if_tested
from bench.comparison.seed_groups import seed_groups
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, write_atomically
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset, load_split
from bench.leaderboard.evidence.finished_runs import Run, read_runs
from bench.leaderboard.rows import short_digest
from bench.leaderboard.table import rows_to_show
from bench.leaderboard.views import by_method
from bench.reporting.adversarial import adversarial_rows
from bench.reporting.page.links import links_for
from bench.reporting.page.page import PageSource, build_page
from bench.reporting.page.saliency import AdversarialSet, SaliencySet, adversarial_set, saliency_set
from bench.reporting.saliency.rows import PanelSettings, PredictionAttack, panel_rows

_NAMED = 4
"""Models that a remark names."""


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """A written page.

    Attributes:
        remarks: what could not go onto the page, and why.
    """

    path: Path
    size: int
    models: int
    runs: int
    remarks: list[str]


def make_report(
    leaderboard: Path,
    output: Path,
    *,
    title: str = "RIBench leaderboard",
    dataset: str | None = None,
    suite: str | None = None,
    images: int = 3,
    device: str = "auto",
    data_dir: Path | None = None,
    download: bool = False,
    plain: bool = False,
    registry: Path | None = None,
    programs: Sequence[Path] = (),
    base: str | None = None,
) -> ReportOutcome:
    """Write the page; nothing is written unless all of it could be made.

    Args:
        images: how many a model in the saliency panels; 0 leaves them out.
        plain: whether the page is to be readable without JavaScript, at several times the size.
        programs: files of registered models whose card has a [program] section, for their saliency panels.
        base: where the leaderboard's folder is found, for links to evidence: an address, or a path from the page; None:
            beside the page or below it, if it lies there.

    Raises:
        BenchError: no leaderboard or no row to show, an output that cannot be written, damaged weights or verdicts.
    """
    _check(output, images)
    links = links_for(leaderboard, output, base)
    rows = rows_to_show(leaderboard, dataset=[dataset], suite=[suite])
    runs = read_runs(rows, leaderboard)
    known = {entry.card.name: entry for entry in list_models(registry=registry)}
    same = {
        run.model: known[run.model]
        for run in _newest(runs)
        if run.model in known and short_digest(known[run.model].card.weights.sha256) == run.shared["model_sha256"]
    }
    same = {entry.card.name: entry for entry in with_programs(list(same.values()), programs)}
    load = functools.partial(load_split, split="test", data_dir=data_dir, download=download)
    saliency, remarks = _saliency(runs, same, images, load, device=resolve_device(device)) if images else ([], [])
    adversarial, missing = _adversarial(runs, leaderboard, data_dir, download=download) if images else ([], [])
    remarks += missing
    remarks += sorted({run.problem or run.doubt for run in runs if run.problem or run.doubt})
    source = PageSource(
        rows, leaderboard, title, saliency=saliency, adversarial=adversarial, links=links, plain=plain, runs=runs,
        cards={name: entry.card for name, entry in same.items()},
        folders={name: entry.folder for name, entry in same.items()},
        suites={suite.name: suite.sha256 for suite in list_suites()},
        models={name: entry.card.weights.sha256 for name, entry in known.items()},
        ranker=lambda board: ranked_if_tested(board, rows, leaderboard),
        by_method=lambda board: by_method(board, seed_groups(board, leaderboard)),
    )  # fmt: skip
    content = build_page(source).encode()
    write_atomically(output, content)
    models = len({run.model for run in runs})
    return ReportOutcome(output, size=len(content), models=models, runs=len(runs), remarks=remarks)


def _check(path: Path, images: int) -> None:
    if images < 0:
        raise BenchError(f"{images} is not a number of images; use 0 or more.", option="images")
    if path.suffix.lower() not in (".html", ".htm"):
        raise BenchError(f"the page {path} must end in .html; it is one file.", option="output")
    if path.is_dir():
        raise BenchError(f"the page {path} is a folder; name a file in it.", option="output")
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def _newest(runs: Iterable[Run]) -> list[Run]:
    """The newest run of every model."""
    newest = {run.model: run for run in sorted(runs, key=lambda run: str(run.shared["finished_at"]))}
    return [newest[name] for name in sorted(newest)]


def _saliency(
    runs: list[Run],
    entries: Mapping[str, ModelEntry],
    images: int,
    load: Callable[[str], ImageDataset],
    device: torch.device,
) -> tuple[list[SaliencySet], list[str]]:
    """Panels of every data set that they can be made for, and why of those that they can't."""
    absent = [run.model for run in _newest(runs) if run.model not in entries]
    more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
    named, whose = ", ".join(absent[:_NAMED]), "their" if absent[1:] else "its"
    remarks = [f"no saliency panel of {named}{more}: {whose} weights are not in this registry"] if absent else []
    drawn: dict[str, list[ModelEntry]] = {}
    for name, entry in entries.items():
        if entry.card.program is None or entry.program is not None:
            drawn.setdefault(entry.card.dataset, []).append(entry)
        else:
            needed = f"it needs {entry.card.program.file}; name that file as the program if you trust it"
            remarks.append(f"no saliency panel of {name}: {needed}")
    sets = []
    for name, own in sorted(drawn.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        try:
            norm, eps = _radius([run for run in runs if run.shared["dataset"] == name])
            dataset = load(name)
        except BenchError as error:
            remarks.append(f"no saliency panels of {name}: {error}")
            continue
        settings = PanelSettings([find_method("gradient")], PredictionAttack(norm), eps, seed=0)
        ids = first_of_each_class(dataset.labels, images)
        rows = [row for entry in own for row in panel_rows(entry, dataset, ids, settings, device=device)[0]]
        sets.append(saliency_set(dataset, rows, settings))
    return sets, remarks


def _adversarial(
    runs: list[Run], leaderboard: Path, data_dir: Path | None, *, download: bool
) -> tuple[list[AdversarialSet], list[str]]:
    """The nearest image in each norm, of each model's newest run that kept any; and why some are missing."""
    sets, remarks = [], []
    for run in _newest(run for run in runs if run.manifest and run.manifest.result.adversarial_sha256):
        try:
            folder = leaderboard / "runs" / run.run_id
            _, rows = adversarial_rows(folder, worst=1, data_dir=data_dir, download=download)
        except BenchError as error:
            remarks.append(f"no adversarial images of {run.model}: {error}")
            continue
        sets.append(adversarial_set(run, rows))
    return sets, remarks


def first_of_each_class(labels: Tensor, count: int) -> list[int]:
    """Positions of the first images of `count` different classes, in order; fewer where there are fewer classes."""
    firsts: list[int] = np.unique(labels.numpy(), return_index=True)[1].tolist()
    return sorted(firsts)[:count]


def _radius(runs: Iterable[Run]) -> tuple[Norm, float]:
    """The reference radius of the first norm that a suite names one for, of the run over most images."""
    for run in sorted(runs, key=lambda run: -run.examples):
        for norm in NORMS:
            if norm in run.reference:
                return norm, run.reference[norm]
    raise BenchError("no run's suite names a reference radius for it")
