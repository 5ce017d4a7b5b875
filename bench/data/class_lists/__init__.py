"""Lists of classes that subsets of data sets are known by, shipped as text files beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClassList:
    """Some classes of a larger data set.

    Attributes:
        names: what the classes are called there, in the order in which the subset numbers them.
        positions: their numbers there.
    """

    names: tuple[str, ...]
    positions: tuple[int, ...]


def _read(name: str) -> ClassList:
    lines = (Path(__file__).parent / f"{name}.txt").read_text(encoding="ascii").splitlines()
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    return ClassList(tuple(entry[0] for entry in entries), tuple(int(entry[1]) for entry in entries))


IMAGENET100 = _read("imagenet100")
CLASS_LISTS = {"imagenet100": IMAGENET100}
