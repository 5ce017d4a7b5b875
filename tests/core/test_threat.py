from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.catalog.suites import read_suite
from bench.core.errors import BenchError
from bench.core.threat import parse_fraction, radius_text
from tests.conftest import TINY_SUITE, Bench

FRACTIONS = TINY_SUITE.replace("0.1", '"8/255"').replace("0.05", '"4 / 255"')
DECIMALS = FRACTIONS.replace('"8/255"', repr(8 / 255)).replace('"4 / 255"', repr(4 / 255))


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (0.1, "0.1"), (0.2, "0.2"), (12.0, "12"), (1.0, "1"), (8 / 255, "8/255"), (320 / 255, "320/255"),
        (0.5 / 255, "0.5/255"), (4 / 11, "4/11"), (0.0156861, "0.01569"), (1e-30, "1e-30"), (0.031372, "0.03137"),
    ],
)  # fmt: skip
def test_a_radius_is_written_as_people_write_it(eps: float, text: str) -> None:
    assert radius_text(eps) == text


def test_every_255th_is_read_as_the_number_that_it_is_written_from() -> None:
    for steps in range(1, 1021):
        assert parse_fraction(f"{steps}/255") == steps / 255
        assert float(radius_text(steps / 255).partition("/")[0]) in (steps, steps / 255)
    assert parse_fraction("8/0") is parse_fraction("8/255 px") is parse_fraction("0.1") is None


def test_a_suite_in_fractions_is_the_suite_in_decimals_and_keeps_its_own_text(tmp_path: Path) -> None:
    suites = []
    for name, text in (("fractions", FRACTIONS), ("decimals", DECIMALS)):
        (tmp_path / f"{name}.toml").write_text(text)
        suites.append(read_suite(tmp_path / f"{name}.toml"))
    assert suites[0].file.parameters == suites[1].file.parameters and suites[0].sha256 == suites[1].sha256
    assert suites[0].file.fractions == {repr(8 / 255): "8/255", repr(4 / 255): "4 / 255"}
    assert suites[1].file.fractions == {}


def test_a_text_that_is_not_its_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.toml"
    path.write_text('fractions = { "0.1" = "8/255" }\n' + TINY_SUITE)
    with pytest.raises(BenchError, match=r"is not 0\.1"):
        read_suite(path)


def test_runs_say_radii_as_the_suite_writes_them(bench: Bench, tmp_path: Path) -> None:
    suite, board = tmp_path / "tiny.toml", tmp_path / "board"
    suite.write_text(FRACTIONS)
    code, out, _ = bench("run", "--model", "standard", "--suite", suite, "--examples", 6, "--leaderboard", board)
    assert code == 0 and " 4 / 255 " in out and "L-inf 8/255, L2 1.5" in out and "0.03" not in out
    (folder,) = (board / "runs").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["suite"]["fractions"][repr(4 / 255)] == "4 / 255"
    assert manifest["suite"]["parameters"]["datasets"]["fashion_mnist"]["reference"]["linf"] == 8 / 255
    out = bench("leaderboard", "--leaderboard", board, "--sort", "L-inf 0.03137")[1]
    assert "sorted by L-inf 8/255" in out and "union of L-inf 8/255, L2 1.5" in out
    paper = ("--format", "latex", "--columns", "L-inf *, union", "--intervals")
    out = bench("leaderboard", "--leaderboard", board, *paper)[1]
    assert (
        "{$L_\\infty$}" in out
        and "8/255 {" not in out
        and "/255 & 8/255 &" in out
        and "clean" not in out
        and "scriptsize" in out
    )
