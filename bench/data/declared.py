"""Data sets that `<data dir>/<name>.toml` declares: where the images lie, how they are read, whose radii fit them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.core.bounds import OneRadius, SeveralRadii
from bench.core.errors import BenchError
from bench.core.toml_files import Section, read_toml, validate

Side = Annotated[int, Field(gt=0, le=4096)]


class DeclaredRadii(Section):
    """Radii of a data set, for the suites that have none for it; pixels of [0, 1].

    Attributes:
        reference: one for each norm: of autoattack, autoattack_fast, union, blackbox, and the union of cross_norm.
        radii: those that cross_norm measures at; the reference alone where there are none.
        largest: where minimum_norm begins to search.
    """

    reference: OneRadius = Field(default_factory=dict)
    radii: SeveralRadii = Field(default_factory=dict)
    largest: OneRadius = Field(default_factory=dict)


class DatasetFile(Section):
    """A declared data set; unknown keys are refused.

    Attributes:
        test, train: a folder of class folders, an .npz file, or parquet files (`data/test-*.parquet`); relative to
            the TOML file.
        classes: the classes to keep, in the order that numbers them, or the name of a shipped list (`imagenet100`).
        resize: the shorter side after resizing.
        crop: side of the square that is then cut from the middle.
        channels: 3, or 1 for grey.
        radii: the data set whose radii the suites use for this one, or radii of its own.
        image_column, label_column: of parquet files, where they cannot be told from their types.
    """

    schema_version: Literal[1]
    test: str | None = None
    train: str | None = None
    classes: str | list[str] | None = None
    resize: Side | None = None
    crop: Side | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: Literal[1, 3] | None = None
    radii: str | DeclaredRadii | None = None
    image_column: str | None = None
    label_column: str | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> DatasetFile:
        if self.test is None and self.train is None:
            raise ValueError("test or train must say where the images lie")
        if self.resize is not None and (self.crop is None or self.crop > self.resize):
            raise ValueError("resize needs a crop that is not larger, so that all images come out alike")
        return self

    def place(self, split: str) -> str | None:
        """Where a split lies, as the file has it."""
        return self.train if split == "train" else self.test


def find_declaration(folder: Path, name: str) -> tuple[DatasetFile, Path] | None:
    """The declaration of a data set in a data dir and the file it stands in; raises BenchError for a bad file."""
    path = folder / f"{name}.toml"
    return (validate(DatasetFile, read_toml(path, "data set"), f"data set {path}"), path) if path.is_file() else None


def expand(place: str, declaration: Path) -> list[Path]:
    """What `place` stands for: one folder, one .npz file, or parquet files in order; raises BenchError."""
    path = declaration.parent / place
    if path.is_dir():
        return [path]
    try:
        found = [path] if path.is_file() else sorted(declaration.parent.glob(place))
    except (ValueError, NotImplementedError, OSError) as error:  # an absolute pattern, or none at all
        raise BenchError(f"data set {declaration}: {place!r} is no path ({error}).") from error
    files = [one for one in found if one.suffix in (".npz", ".parquet") and one.is_file()]
    if not files or (len(files) > 1 and any(one.suffix == ".npz" for one in files)):
        raise BenchError(f"data set {declaration}: {place!r} is no folder, .npz file or parquet files beside it.")
    return files
