"""Radii for data sets that a suite has no section for: ImageNet's, and those of a user's own data sets.

A suite pins radii for the data sets it was made for. For another one it gets a section of its own, made from what the
data set declares, from the radii of the data set that it names, or from `suites/datasets/<name>.toml`. The suite's
digest then covers the section, so that results at other radii are never ranked together.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.catalog.locations import shipped
from bench.catalog.suites import Suite
from bench.core.names import require_known, require_safe_name
from bench.core.toml_files import read_toml, validate
from bench.data import DATASETS
from bench.data.declared import DeclaredRadii
from bench.data.loading import declaration_of


def suite_for(suite: Suite, dataset: str, data_dir: Path | None = None) -> Suite:
    """The suite with a section for the data set; the suite itself where it has one, asks for none, or none is known.

    Raises:
        BenchError: a bad declaration, or one that borrows the radii of a data set that has none.
    """
    sections = suite.file.parameters.get("datasets")
    if not isinstance(sections, dict) or not sections or dataset in sections:
        return suite
    section = _section(suite, dataset, data_dir)
    if section is None:
        return suite
    parameters = suite.file.parameters | {"datasets": sections | {dataset: section}}
    return replace(suite, file=suite.file.model_copy(update={"parameters": parameters}))


def radii_advice(suite: Suite, dataset: str) -> str:
    """What to do about a suite that has no section for a data set of the user's own; empty where nothing helps."""
    sections = suite.file.parameters.get("datasets")
    if not isinstance(sections, dict) or not sections or DATASETS.get(dataset) is not None:
        return ""
    keys = {key for section in sections.values() for key in section}
    own = ", or its own" if keys <= DeclaredRadii.model_fields.keys() else ""
    return (
        f' For a data set of your own, {dataset}.toml in the data dir says whose radii to use, radii = "'
        f'{next(iter(sections))}"{own}.'
    )


def _section(suite: Suite, dataset: str, data_dir: Path | None) -> dict[str, Any] | None:
    sections = suite.file.parameters["datasets"]
    declared = declaration_of(dataset, data_dir)
    spec = DATASETS.get(dataset)
    radii = declared.radii if declared is not None else None
    if isinstance(radii, DeclaredRadii):
        return _fitted(radii, sections)
    if radii is not None:
        shipped_ones = (path.stem for path in (shipped("suites") / "datasets").glob("*.toml"))
        require_known(radii, {*sections, *shipped_ones, *DATASETS}, f"radii in {dataset}.toml")
    for name in (radii, dataset, spec.subset_of if spec is not None else None):
        if name is None:
            continue
        if name in sections:
            return dict(sections[name])
        path = shipped("suites") / "datasets" / f"{require_safe_name(name, 'data set')}.toml"
        if path.is_file():
            return _fitted(validate(DeclaredRadii, read_toml(path, "radii"), f"radii {path}"), sections)
    return None


def _fitted(radii: DeclaredRadii, sections: dict[str, Any]) -> dict[str, Any] | None:
    """What the suite's other sections have: the same keys, and no norm that none of them has."""
    offered: dict[str, dict[str, Any]] = radii.model_dump(include=set(DeclaredRadii.model_fields))
    offered["radii"] = offered["radii"] or {norm: [eps] for norm, eps in radii.reference.items()}
    known = [section for section in sections.values() if isinstance(section, dict)]
    made = {}
    for key in {key for section in known for key in section}:
        norms = {norm for section in known if isinstance(section.get(key), dict) for norm in section[key]}
        made[key] = {norm: value for norm, value in offered.get(key, {}).items() if norm in norms}
        if not made[key]:
            return None
    return made
