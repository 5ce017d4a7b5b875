"""The example package beside this file, found as an installed one is: by its metadata on the path."""

from __future__ import annotations

import dataclasses
import importlib
import io
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bench.attributions.registry import attribute, find_method, method_names, our_methods
from bench.catalog.locations import model_roots
from bench.comparison.evidence import _protocol_of
from bench.core.errors import BenchError
from bench.core.packages import load_plugin, plugin_names
from bench.data import describe_sources, load_split
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, Metric, MetricKey
from bench.leaderboard.table import read_leaderboard
from bench.nets import build_net
from bench.training.recipes import list_recipes, make_recipe
from tests.conftest import Bench

EXAMPLE = Path(__file__).parent / "example"
SUITE = """
schema_version = 1
name = "only_clean"
version = 1
protocol = "errors"
examples = 20
"""

DARK = """
schema_version = 1
name = "dark"
version = 1
protocol = "robustness"
examples = 20

[[parameters.attacks]]
attack = "darker"
norms = ["linf"]
share = 0.5

[parameters.datasets.stripes]
reference = { linf = "8/255" }
radii = { linf = ["8/255"] }
"""


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    module = importlib.import_module("example_plugin")
    monkeypatch.setattr(module, "ZOO", tmp_path / "zoo")
    module.make_zoo()
    yield module
    del sys.modules["example_plugin"]


@pytest.mark.usefixtures("example")
def test_an_attribution_method_of_a_plugin_stands_beside_ours() -> None:
    assert "checkers" in method_names() and "checkers" not in our_methods()
    images, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).requires_grad_(False)
    maps = attribute(net, images, labels, find_method("checkers").given(size=2))
    assert maps[0, 0, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(BenchError, match="unknown parameter of attribution method checkers 'sise'"):
        find_method("checkers").given(sise=2)
    with pytest.raises(BenchError, match="the plug-in 'broken_maps' of example-plugin"):
        find_method("broken_maps")
    assert {one.where for one in describe_sources() if one.name == "stripes"} == {"plug-in"}


@pytest.mark.usefixtures("example")
def test_a_model_data_set_and_protocol_of_a_plugin_run_together(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    code, _, err = bench(
        "run", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path / "board"
    )
    assert code == 0, err
    rows = read_leaderboard(tmp_path / "board")
    assert list(rows["metric"]) == ["clean_accuracy", "stripe_errors"] and list(rows["value"]) == [1.0, 0.0]
    assert rows["dataset"].iloc[0] == "stripes" and rows["n_examples"].iloc[0] == 20


@pytest.mark.usefixtures("example")
def test_an_attack_of_a_plugin_is_verified_as_any_other(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "dark.toml").write_text(DARK)
    run = ("run", "--model", "stripes/prototypes", "--suite", tmp_path / "dark.toml", "--leaderboard", tmp_path)
    assert bench(*run)[0] == 0
    rows = read_leaderboard(tmp_path)
    assert set(rows.loc[rows["metric"] == "robust_accuracy", "attack"]) == {"darker"}
    (tmp_path / "dark.toml").write_text(DARK.replace("share", "shore"))
    assert "unknown parameter of attack darker 'shore'; did you mean share?" in bench.refused(*run)


def test_the_page_on_plugins_shows_this_package() -> None:
    """The code of the page is the example's, line by line."""
    code = (EXAMPLE / "example_plugin" / "__init__.py").read_text()
    points = (EXAMPLE / "example_plugin-1.0.dist-info" / "entry_points.txt").read_text().splitlines()
    page = (Path(__file__).parents[2] / "docs" / "howto" / "write-a-plugin.md").read_text()
    python, toml = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert len(python) >= 6 and all(block.strip() in code for block in python)
    announced = tomllib.loads(toml[0])["project"]["entry-points"]
    for group, names in announced.items():
        assert f"[{group}]" in points
        assert all(f"{name} = {place}" in points for name, place in names.items())
    assert len(announced) == 6 and DARK.strip() in page


def test_a_metric_of_a_plugin_is_ranked_compared_and_gated_as_its_protocol_declares_it(
    bench: Bench, tmp_path: Path, example: ModuleType
) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    check = ("check", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--baseline", tmp_path)
    assert bench(*check, "--update", "--time-factor", 0)[0] == 0
    example.make_zoo(confused=True)
    code, out, err = bench(*check, "--time-factor", 0)
    assert code == 1, err
    assert "stripe errors rose from 0 to 1 (McNemar" in out + err
    example.make_zoo(name="confused", confused=True)
    run = ("run", "--model", "stripes/confused", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path)
    assert bench(*run)[0] == 0
    _, out, _ = bench("compare", "prototypes", "confused", "--leaderboard", tmp_path)
    assert "+1.0000" in next(line for line in out.splitlines() if "stripe_errors" in line)
    _, out, _ = bench("leaderboard", "--leaderboard", tmp_path, "--sort", "stripe_errors", "--format", "csv")
    rows = pd.read_csv(io.StringIO(out))
    assert list(zip(rows["model"], rows["rank"], strict=True)) == [("prototypes", 1), ("confused", 2)]


def test_a_new_metric_costs_the_protocol_that_computes_it_and_nothing_else(
    bench: Bench, tmp_path: Path, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Taller(example.Clean):  # type: ignore[name-defined, misc]
        def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
            heights = pd.Series(range(len(records)), index=records["example_id"], dtype="float64")
            key = MetricKey("height", "stripes", "wind", "l2", eps=1 / 3)
            return [*super().example_values(dataset, records), ExampleValues(key, heights, "lower", "number")]

    monkeypatch.setattr(example, "Clean", Taller)
    (tmp_path / "suite.toml").write_text(SUITE)
    run = ("run", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path)
    assert "height stripes" in bench(*run)[1]
    height = read_leaderboard(tmp_path).iloc[-1]
    assert height["direction"] == "lower" and height["value"] == 9.5 and height["eps"] == 1 / 3
    _, out, _ = bench("leaderboard", "--leaderboard", tmp_path, "--sort", "height stripes wind L2 0.3333")
    assert "sorted by height stripes wind L2 85/255" in " ".join(out.split())
    assert "height stripes wind" in bench("compare", *["prototypes"] * 2, "--leaderboard", tmp_path)[1]


def test_a_protocol_of_a_plugin_that_gives_no_values_by_example_gives_one_line(
    bench: Bench, tmp_path: Path, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.Clean, "__abstractmethods__", frozenset({"example_values"}))
    (tmp_path / "suite.toml").write_text(SUITE)
    code, _, err = bench("run", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml")
    assert code == 2 and "the plug-in 'errors' in bench.protocols lacks example_values" in err


@pytest.mark.parametrize("method", ["evaluate", "example_values", "metrics"])
def test_a_protocol_of_a_plugin_that_raises_gives_one_line_and_so_does_a_metric_given_twice(
    bench: Bench, tmp_path: Path, example: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    run = ("run", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path)
    found = example.Clean.example_values
    with monkeypatch.context() as patched:
        patched.setattr(example.Clean, "example_values", lambda *given: found(*given) * 2)
        assert "the plug-in 'errors' in bench.protocols gives the metric clean_accuracy twice" in bench.refused(*run)
        patched.setattr(example.Clean, "example_values", found)
        patched.setattr(example.Clean, method, lambda *_: {}["nothing"])
        said = "the plug-in 'errors' in bench.protocols failed (KeyError: 'nothing')"
        assert said in bench.refused(*run, "--fresh")
    assert bench(*run, "--fresh")[0] == 0
    _protocol_of.cache_clear()  # another test's class of that name
    monkeypatch.setattr(example.Clean, "example_values", lambda *_: 1 / 0)
    assert "bench.protocols failed (ZeroDivisionError" in bench.refused(
        "compare", *["prototypes"] * 2, "--leaderboard", tmp_path
    )


def _with(**changes: object) -> Callable[..., object]:
    """`evaluate` whose result is another in one thing."""
    return lambda evaluate: lambda *given: dataclasses.replace(evaluate(*given), **changes)


SHARE = ExampleValues(MetricKey("odd"), pd.Series([1.5] * 20), "higher", "share")
SLIPS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "no result": ("evaluate", lambda _: lambda *_: None, "evaluate returns NoneType"),
    "records": ("evaluate", _with(records={"example_id": [0]}), "not a UnitResult of a table"),
    "a column": ("evaluate", _with(records=pd.DataFrame({"example_id": [object()]})), "ArrowInvalid"),
    "a counter": ("evaluate", _with(counters={"queries": 1.5}), "TypeError"),
    "a finding": ("evaluate", _with(findings=[Finding("a", "grave", "b", "c")]), "severity"),  # type: ignore[arg-type]
    "no finding": ("evaluate", _with(findings=["odd"]), "TypeError"),
    "no units": ("units", lambda _: lambda *_: [], "it cuts a run into no work units"),
    "a share": ("example_values", lambda _: lambda *_: [SHARE], "odd is a share and 1.5"),
    "few": ("units", lambda _: lambda *_: [(0, 17)], "no metric is over all 20 examples of the run"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_a_protocol_of_a_plugin_must_not_return_gives_one_line_and_no_row(
    bench: Bench, tmp_path: Path, example: ModuleType, monkeypatch: pytest.MonkeyPatch, slip: str
) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    run = ("run", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path)
    method, change, said = SLIPS[slip]
    monkeypatch.setattr(example.Clean, method, change(getattr(example.Clean, method)))
    line = bench.refused(*run)
    assert "the plug-in 'errors' in bench.protocols failed" in line and said in line
    assert not (tmp_path / "leaderboard.csv").exists()


def test_counters_and_counts_of_numpy_are_numbers_too(
    bench: Bench, tmp_path: Path, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    changed = _with(counters={"queries": np.int64(3)})(example.Clean.evaluate)
    numbers: Any = (np.float32(2), 1.0, 3.0, np.int64(20))
    further = Metric(MetricKey("further"), *numbers, direction="lower", unit="number")
    monkeypatch.setattr(example.Clean, "evaluate", changed)
    monkeypatch.setattr(example.Clean, "further_metrics", lambda *_: [further])
    run = ("run", "--model", "stripes/prototypes", "--suite", tmp_path / "suite.toml", "--leaderboard", tmp_path)
    assert bench(*run)[0] == 0
    assert (read_leaderboard(tmp_path)["metric"] == "further").any()
    (folder,) = (tmp_path / "runs").glob("2*")
    assert read_manifest(folder).result.counters["queries"] == 3


@pytest.mark.usefixtures("example")
def test_a_recipe_of_a_plugin_is_listed_and_trains_a_net_of_a_plugin() -> None:
    assert "slow_start" in {template.name for template in list_recipes()}
    recipe = make_recipe("slow_start", "fashion_mnist", {"architecture": "linear"})
    assert recipe.schedule.warmup_share == 0.5
    assert (
        build_net("linear", {"in_channels": 1, "image_size": 4, "num_classes": 3, "mean": [0], "std": [1]})[
            1
        ].out_features
        == 3
    )


def test_without_the_package_its_names_are_unknown_and_nothing_is_imported() -> None:
    assert plugin_names("bench.models") == []
    with pytest.raises(BenchError, match="unknown architecture 'linear'"):
        build_net("linear", {})
    with pytest.raises(BenchError, match="unknown data set 'stripes'"):
        load_split("stripes", "test")
    assert "example_plugin" not in sys.modules


def test_a_package_that_is_installed_meanwhile_is_seen_and_one_that_is_gone_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "example_plugin-1.0.dist-info"
    for there in (False, True, False):
        if there:
            shutil.copytree(EXAMPLE / name, tmp_path / name)
        else:
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        assert plugin_names("bench.recipes") == ["slow_start"] * there


def test_listing_names_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    assert plugin_names("bench.recipes") == ["slow_start"]
    assert "example_plugin" not in sys.modules


@pytest.mark.usefixtures("example")
def test_a_plugin_that_cannot_be_loaded_gives_one_line() -> None:
    with pytest.raises(BenchError, match=r"the plug-in 'broken' of example-plugin .*cannot be loaded"):
        load_plugin("bench.models", "broken")


@pytest.mark.usefixtures("example")
def test_a_wrong_split_of_a_plugin_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["example_plugin"], "stripes", lambda split: (split, 1))
    with pytest.raises(BenchError, match="gave no test split"):
        load_split("stripes", "test")


@pytest.mark.usefixtures("example")
def test_a_registry_of_a_plugin_stands_before_the_shipped_one(tmp_path: Path) -> None:
    assert model_roots()[-2] == tmp_path / "zoo"
