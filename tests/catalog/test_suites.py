from __future__ import annotations

from pathlib import Path

import pytest

from bench.catalog.suites import list_suites, read_suite, resolve_suites
from bench.core.errors import BenchError
from bench.protocols import protocol_for
from tests.conftest import TINY_SUITE


@pytest.mark.parametrize("suite", list_suites(), ids=lambda suite: suite.name)
def test_every_shipped_suite_is_valid_and_named_as_its_file(suite: object) -> None:
    from bench.catalog.suites import Suite

    assert isinstance(suite, Suite)
    protocol_for(suite)
    assert suite.path.stem == suite.name


def test_the_radii_of_fashion_mnist_are_the_published_ones() -> None:
    radii = resolve_suites(["cross_norm"])[0].file.parameters["datasets"]["fashion_mnist"]["radii"]
    assert radii == {
        "linf": [0.02, 0.05, 0.1, 0.15, 0.2],
        "l2": [0.5, 1.0, 1.5, 2.0, 2.5],
        "l1": [5.0, 10.0, 15.0, 20.0, 30.0],
    }


MISTAKES = {
    "top-level key": (TINY_SUITE.replace("version = 1\n", "version = 1\ncolour = 1\n", 1), "colour: unknown key"),
    "attack key": (TINY_SUITE.replace("steps = 5", "steps = 5\nspeed = 9"), "speed: unknown key"),
    "missing name": (TINY_SUITE.replace('name = "tiny"', ""), "name: field required"),
    "unknown norm": (TINY_SUITE.replace("l2 = [1.5]", "l3 = [1.5]"), "linf"),
    "negative radius": (TINY_SUITE.replace("[0.05, 0.1]", "[-0.05, 0.1]"), "greater than 0"),
    "reference not a radius": (
        TINY_SUITE.replace("linf = 0.1,", "linf = 0.3,"),
        "reference must name one of the radii",
    ),
    "radius twice": (TINY_SUITE.replace("[0.05, 0.1]", "[0.1, 0.1]"), "given twice"),
    "radius as a string": (TINY_SUITE.replace("[0.05, 0.1]", '["0.05", 0.1]'), "valid number"),
    "radius that is true": (TINY_SUITE.replace("[1.5]", "[true]"), "valid number"),
    "radius beyond every image": (TINY_SUITE.replace("1.5", "1e39"), "larger than any image"),
    "too many radii": (TINY_SUITE.replace("[1.5]", str([one / 1000 for one in range(1, 102)])), "at most 100"),
    "too many steps": (TINY_SUITE.replace("steps = 5", "steps = 1_000_000_000"), "less than or equal to 100000"),
    "version of many digits": (TINY_SUITE.replace("version = 1\nproto", f"version = {10**12}\nproto"), "version"),
    "unknown loss": (TINY_SUITE.replace('["margin"]', '["hinge"]'), "margin"),
    "unknown protocol": (TINY_SUITE.replace('"cross_norm"', '"cros_norm"'), "did you mean cross_norm"),
    "unknown kind": (TINY_SUITE.replace('kind = "sweep"', 'kind = "seep"'), "sweep"),
    "no TOML": ("this is = = not toml", "not valid TOML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_suite_file_is_explained(tmp_path: Path, mistake: str) -> None:
    content, expected = MISTAKES[mistake]
    path = tmp_path / "tiny.toml"
    path.write_text(content)
    with pytest.raises(BenchError) as caught:
        protocol_for(read_suite(path))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


TORCHATTACKS = """
[[parameters.attacks]]
kind = "torchattacks"
name = "pgd"
class_name = "PGD"
norm = "linf"
parameters = {{ {parameters} }}
"""


@pytest.mark.parametrize(
    "parameters", ["steps = 2020-01-01", "steps = 1_000_000_000", 'steps = "5"', "random_start = 1", "steps = 2.5"]
)
def test_a_parameter_that_torchattacks_cannot_take_is_refused_before_it_runs(tmp_path: Path, parameters: str) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_SUITE + TORCHATTACKS.format(parameters="steps = 5"))
    protocol_for(read_suite(path))
    path.write_text(TINY_SUITE + TORCHATTACKS.format(parameters=parameters))
    with pytest.raises(BenchError, match=r"steps|random_start|date"):
        protocol_for(read_suite(path))


def test_the_digest_ignores_comments_and_layout_but_no_parameter(tmp_path: Path) -> None:
    digests = []
    for content in (
        TINY_SUITE,
        "# a comment\n" + TINY_SUITE.replace("steps = 5", "steps  =  5"),
        TINY_SUITE.replace("steps = 5", "steps = 6"),
    ):
        path = tmp_path / "tiny.toml"
        path.write_text(content)
        digests.append(read_suite(path).sha256)
    assert digests[0] == digests[1] != digests[2]


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tiny.toml").write_text(TINY_SUITE)
    with pytest.raises(BenchError, match="two suites are named tiny"):
        resolve_suites([str(tmp_path / "a" / "tiny.toml"), str(tmp_path / "b" / "tiny.toml")])
