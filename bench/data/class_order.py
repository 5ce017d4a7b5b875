"""In which order a known data set numbers its classes, independent of their order in a folder or file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.data.specs import DatasetSpec

_WORDNET = re.compile(r"n\d{8}")


def number_as_known(
    spec: DatasetSpec | None, labels: Tensor, found: tuple[str, ...], place: Path
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels and class names of a known data set, numbered as it numbers them.

    Folders and columns of strings are numbered by their sorted names, which is another order than Fashion-MNIST's.

    Args:
        spec: None, and a subset, leave everything as it is; so does another number of classes, which is refused later.
        labels: (N,) int64, positions in `found`.

    Raises:
        BenchError: sorted names that are neither the data set's own nor numbers, so that the order is not known.
    """
    if spec is None or spec.subset_of is not None or spec.num_classes != len(found):
        return labels, found
    own = spec.class_names or tuple(str(number) for number in range(len(found)))
    order = _positions(found, tuple(str(number) for number in range(len(found)))) or _positions(found, own)
    if order is not None:
        return torch.tensor(order)[labels], own
    if list(found) == sorted(found) and not all(_WORDNET.fullmatch(name) for name in found):
        known = ", ".join(spec.class_names[:3]) if spec.class_names else "n01440764, n01443537, n01484850"
        raise BenchError(
            f"{place}: the classes {found[0]!r}, {found[1]!r}, ... are none that {spec.name} has ({known}, ...), so "
            "their order is not known; call them as it does, or number them from 0."
        )
    return labels, spec.class_names or found  # the file itself says which number stands for which class


def _positions(found: tuple[str, ...], own: tuple[str, ...]) -> list[int] | None:
    """Where each of `found` stands in `own`, letters and digits alone compared; None where one is not in it."""
    known = {_plain(name): position for position, name in enumerate(own)}
    positions = [known.get(_plain(name), -1) for name in found]
    return positions if sorted(positions) == list(range(len(own))) else None


def _plain(name: str) -> str:
    plain = "".join(one for one in name.casefold() if one.isalnum())
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain
