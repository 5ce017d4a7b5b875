from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.catalog.dataset_radii import suite_for
from bench.catalog.locations import shipped
from bench.catalog.suites import list_suites, read_suite, resolve_suites
from bench.core.errors import BenchError
from bench.protocols import protocol_for

HEAD = 'schema_version = 1\nname = "mine"\nversion = 2\n'
OWN = """schema_version = 1
test = "pets"
[radii]
reference = { linf = 0.02, l2 = 1.0, l1 = 9.0 }
"""


def section(name: str, dataset: str, data_dir: Path | None = None) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = (
        suite_for(resolve_suites([name])[0], dataset, data_dir).file.parameters["datasets"].get(dataset)
    )
    return found


def test_a_suite_that_has_the_data_set_stays_as_it_is() -> None:
    suite = resolve_suites(["cross_norm"])[0]
    assert suite_for(suite, "mnist") is suite


def test_cifar10_is_judged_at_the_fields_radii_and_beside_them_at_the_papers() -> None:
    fields = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
    for suite in (one for one in list_suites() if one.name != "msd"):
        found = suite_for(suite, "cifar10").file.reference("cifar10")
        assert all(eps == fields[norm] for norm, eps in found.items()), suite.name
    quick = resolve_suites(["cross_norm_quick"])[0].file
    assert quick.parameters["datasets"]["cifar10"]["radii"]["l2"] == [80 / 255, 0.5, 320 / 255]


def test_a_shipped_suite_is_the_same_by_name_and_by_any_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(shipped("suites").parent)
    (tmp_path / "mine.toml").write_text(f'extends = "{os.path.relpath("suites", tmp_path)}/cross_norm.toml"\n{HEAD}')
    named = [suite_for(one, "cifar10") for one in resolve_suites(["cross_norm", "suites/cross_norm.toml"])]
    assert len(named) == 1, "named twice, it is one suite"
    for path in ("suites/cross_norm.toml", "tests/../suites/cross_norm.toml"):
        assert suite_for(read_suite(Path(path)), "cifar10").sha256 == named[0].sha256
    mine = suite_for(read_suite(tmp_path / "mine.toml"), "cifar10").file
    assert mine.reference("cifar10") == named[0].file.reference("cifar10")


def test_what_extends_a_suite_has_the_fields_radii_too_unless_it_says_its_own(tmp_path: Path) -> None:
    head = 'schema_version = 1\nextends = "cross_norm"\nname = "mine"\nversion = 2\n[parameters]\n'
    own = "[parameters.datasets.cifar10]\nreference = { linf = 0.01, l2 = 0.1, l1 = 1.0 }\n"
    (tmp_path / "mine.toml").write_text(head)
    (tmp_path / "own.toml").write_text(f"{head}{own}radii = {{ linf = [0.01], l2 = [0.1], l1 = [1.0] }}\n")
    mine, other = (suite_for(read_suite(tmp_path / name), "cifar10").file for name in ("mine.toml", "own.toml"))
    assert mine.reference("cifar10") == {"linf": 8 / 255, "l2": 0.5, "l1": 12.0} and mine.version == 2
    assert other.reference("cifar10") == {"linf": 0.01, "l2": 0.1, "l1": 1.0}


OF_SOME_DATA_SETS = (
    "manifold_distance", "manifold_distance_reduced", "manifold_distance_paper", "cross_norm_l0", "msd", "e_at", "ramp",
)  # fmt: skip
"""Suites with data sets of their own: those of the papers they are named for, or with numbers of pixels."""


@pytest.mark.parametrize("dataset", ["imagenet", "imagenet100"])
def test_every_suite_with_radii_can_judge_imagenet(dataset: str) -> None:
    for suite in list_suites():
        if suite.name not in OF_SOME_DATA_SETS and "datasets" in suite.file.parameters:
            fitted = suite_for(suite, dataset)
            protocol_for(fitted).require_dataset(dataset)
            assert fitted.sha256 != suite.sha256


def test_imagenets_references_are_those_of_the_literature() -> None:
    assert section("autoattack_fast", "imagenet") == {"reference": {"linf": 4 / 255, "l2": 3.0, "l1": 60.0}}
    assert set(section("cross_norm_quick", "imagenet100")) == {"reference", "radii"}
    assert set(section("autoattack_plus", "imagenet")["reference"]) == {"linf", "l2"}


def test_a_data_set_of_ones_own_borrows_radii_or_declares_them(tmp_path: Path) -> None:
    (tmp_path / "pets.toml").write_text('schema_version = 1\ntest = "pets"\nradii = "cifar10"\n')
    assert section("cross_norm", "pets", tmp_path) == section("cross_norm", "cifar10")
    (tmp_path / "pets.toml").write_text(OWN)
    assert section("cross_norm", "pets", tmp_path)["radii"] == {"linf": [0.02], "l2": [1.0], "l1": [9.0]}
    assert section("union", "pets", tmp_path) == {"reference": {"linf": 0.02, "l2": 1.0, "l1": 9.0}}


def test_radii_that_are_borrowed_from_no_data_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pets.toml").write_text('schema_version = 1\ntest = "pets"\nradii = "imagnet"\n')
    with pytest.raises(BenchError, match=r"unknown radii in pets\.toml 'imagnet'; did you mean imagenet"):
        section("cross_norm", "pets", tmp_path)
    (tmp_path / "pets.toml").write_text('schema_version = 1\ntest = "pets"\nradii = "mnist"\n')
    assert section("msd", "pets", tmp_path) == section("msd", "mnist")


def test_a_data_set_that_declares_nothing_has_none(tmp_path: Path) -> None:
    assert section("cross_norm", "pets", tmp_path) is None
    (tmp_path / "pets.toml").write_text(OWN)
    assert section("minimum_norm", "pets", tmp_path) is None
