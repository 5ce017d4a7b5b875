"""Models and suites by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.api.arguments import as_path, as_paths, require_options, require_text, source_options, texts
from bench.catalog.models import list_models as list_entries
from bench.catalog.models import load_model as load_entry
from bench.catalog.models import resolve_models
from bench.catalog.suites import Suite, resolve_suites
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.torch_state import undisturbed
from bench.data.loading import require_dataset


@undisturbed()
def load_model(
    name: Path | str,
    *,
    dataset: str | None = None,
    device: torch.device | str = "cpu",
    registry: Path | str | None = None,
    program: Path | str | None = None,
    **options: Any,
) -> nn.Module:
    """A model by its name, folder or source, as `bench run` takes it.

    Args:
        name: e.g. `at_linf`, `mnist/at_l2`, `zoo/mine`, `net.py:make`, `timm:resnet18`.
        registry: a folder of models, looked in first.
        program: the file that a card with a [program] section needs; it is run.
        options: of a model named by its source; the fields of bench.catalog.sources.SourceOptions, e.g. `weights`.

    Returns:
        A net in eval mode, float32, parameters without gradient: (N, C, H, W) in [0, 1] in, logits (N, K) out.

    Raises:
        BenchError: unknown name, several models, or weights that are missing, damaged or not those of the card.
    """
    require_text(dataset=dataset or "")
    require_options(options, load_model)
    entries = resolve_models(
        [str(name)], dataset, options=source_options(options), registry=as_path(registry), programs=as_paths(program)
    )
    if len(entries) != 1:
        raise BenchError(f"{str(name)!r} stands for {len(entries)} models; name one.")
    return load_entry(entries[0], resolve_device(str(device)))


def list_models(
    pattern: Sequence[str] | str = "all",
    *,
    exclude: Sequence[str] | str = (),
    dataset: str | None = None,
    registry: Path | str | None = None,
) -> list[str]:
    """Full names of registered models, in natural order.

    Args:
        pattern: names or wildcards: `at_*` in any data set, `mnist/*`.
        exclude: of these, what is left out.
        dataset: only models of this data set.
        registry: a folder of models, looked in first.

    Raises:
        BenchError: a name or wildcard that matches no model, or no such data set; the line suggests the nearest ones.
    """
    require_text(dataset=dataset or "")
    patterns, excluded = texts(pattern, "pattern"), texts(exclude, "exclude")
    patterns = [] if patterns == ["all"] else patterns
    found = list_entries(dataset, as_path(registry), patterns=patterns, exclude=excluded)
    if dataset is not None and not found:
        require_dataset(dataset)
    return [entry.card.name for entry in found]


def load_suite(name: Path | str, *, suite_path: Path | str | None = None) -> Suite:
    """A suite by its name or the path of its TOML file; raises BenchError.

    Args:
        suite_path: a folder of suites, beside those that BENCH_SUITES names and the shipped ones.
    """
    suites = resolve_suites([str(name)], as_path(suite_path))
    if len(suites) != 1:
        raise BenchError(f"{str(name)!r} stands for {len(suites)} suites; name one.")
    return suites[0]
