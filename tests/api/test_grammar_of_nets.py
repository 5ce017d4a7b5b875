"""Whole runs, attacks and explanations of nets out of a grammar; hundreds: `pytest -m slow -k grammar`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch
from torch import Tensor, nn

import bench
import bench.protocols.base as units
from bench.api.result import Result
from bench.attributions.registry import our_methods
from bench.core.errors import BenchError
from bench.core.threat import NORMS
from tests.api.test_undisturbed import condition, settings
from tests.attacks.linear import exact_radius
from tests.grammar import Scaled, data_for, numbered, random_net
from tests.protocols.grammar_suites import SUITES

COUNT = 6
FAMILIES = ("any", "any", "hidden", "random", "batch")
# what looks into a net, and refuses one that hides an activation
LOOKING = ("attribution_agreement", "attribution_attack", "insertion")
# what does not count in units of the logits
BY_MARGINS = ("cross_norm", "autoattack_fast", "union", "corruptions", "attribution_stability", "attribution_agreement")


class Place:
    """A data dir with the images of one net, and a folder of suites."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def suite(self, name: str, **parameters: object) -> Path:
        path = self.root / f"{name}.toml"
        head = {"schema_version": 1, "name": f"small_{name}", "version": 1, "protocol": name, "examples": COUNT}
        path.write_text(tomli_w.dumps(head | {"parameters": SUITES[name] | parameters}))
        return path

    def keep(self, net: nn.Module, kind: str, seed: int, count: int = COUNT) -> tuple[Tensor, Tensor]:
        data = data_for(net, kind, count, seed)
        np.savez(
            self.root / f"{kind}.npz", images=data.stored(slice(None)).numpy(), labels=data.labels.numpy(),
            class_names=np.array(data.class_names),
        )  # fmt: skip
        (self.root / f"{kind}.toml").write_text(f'schema_version = 1\ntest = "{kind}.npz"\n')
        return data.pixels(slice(None)), data.labels

    def evaluate(self, net: nn.Module, kind: str, suite: Path, **options: object) -> Result | None:
        """None where the net is refused in one clear line."""
        given = {"dataset": kind, "data_dir": self.root, "device": "cpu"} | options
        try:
            return bench.evaluate(net, suite, **given)  # type: ignore[arg-type]
        except BenchError as error:
            assert str(error).endswith(".") and "\n" not in str(error), str(error)
            return None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("seed", numbered(8, 330))
def test_a_net_is_judged_or_refused_in_one_line_and_nothing_is_left_changed(seed: int, place: Place) -> None:
    net = random_net(seed, FAMILIES[seed % len(FAMILIES)])
    images, labels = place.keep(net, net.kind, seed)
    for module in list(net.modules())[:: 2 + seed % 2]:
        module.training = True
    net.requires_grad_(True)
    before, around = condition(net), settings()
    name, method = list(SUITES)[seed % len(SUITES)], list(our_methods())[seed % len(our_methods())]
    result = place.evaluate(net, net.kind, place.suite(name), batch_size=4)
    if result is not None:
        assert result.frame["value"].map(math.isfinite).all() or name == "minimum_norm", f"{name}: {net}"
    elif net.family in ("any", "hidden"):  # not all maps of the suite are for every net
        assert name in LOOKING, f"{name} refuses {net}"
    try:
        bench.attack(net, images, labels, norm=NORMS[seed % 3], eps=0.1, steps=2)
        bench.attribute(net, images, labels, method=method)
    except BenchError as error:
        assert str(error).endswith(".") and "\n" not in str(error), str(error)
    assert condition(net) == before, f"{name}, {method}: {net}"
    assert settings() == around, f"{name}, {method}: {net}"


@pytest.mark.parametrize("seed", numbered(6, 120))
def test_no_verdict_depends_on_the_unit_of_the_logits_or_on_what_is_added_to_all(seed: int, place: Place) -> None:
    net = random_net(seed)
    name = BY_MARGINS[seed % len(BY_MARGINS)]
    place.keep(net, net.kind, seed)
    options = {"model_id": "net", "suite": place.suite(name)}
    expected = place.evaluate(Scaled(net, 1.0), net.kind, **options)
    factor, shift = ((2.0**-99, 0.0), (2.0**99, -16.0))[seed // 2 % 2]
    found = place.evaluate(Scaled(net, factor, shift), net.kind, **options)
    assert (found is None) == (expected is None), f"{name} x {factor}: {net}"
    if found is None or expected is None:
        return
    if "broken" in found.records:
        assert found.records["broken"].equals(expected.records["broken"]), f"{name} x {factor}: {net}"
    else:
        numbers = [one.frame["value"].to_numpy() for one in (found, expected)]
        scaled = found.frame["metric"].str.contains("norm|change$|hessian").to_numpy()
        np.testing.assert_allclose(*(one[~scaled] for one in numbers), atol=0.02, err_msg=f"{name}: {net}")


@pytest.mark.parametrize("seed", numbered(4, 120))
def test_of_linear_nets_of_any_unit_the_suites_verdicts_are_the_exact_ones(seed: int, place: Place) -> None:
    net, norm = random_net(seed, "linear"), NORMS[seed % 3]
    images, labels = place.keep(net, net.kind, seed, 10)
    exact = exact_radius(net, images, labels, norm)
    eps = float(exact[exact > 0].quantile(0.5))
    section = {net.kind: {"reference": {norm: eps}, "radii": {norm: [eps]}}}
    sweep = {"kind": "sweep", "name": "sweep", "steps": 11, "patience": 1, "polish": 9, "targets": {norm: 2}}
    suite = place.suite("cross_norm", attacks=[sweep | {"losses": ["cross_entropy"]}], datasets=section)
    factor = (1e-30, 1e-6, 1.0, 1e9, 1e30)[seed % 5]
    result = place.evaluate(Scaled(net, factor), net.kind, suite, examples=10)
    assert result is not None
    broken = torch.tensor(result.records["broken"].to_numpy())
    assert not broken[exact > eps * (1 + 1e-5)].any(), f"{norm} x {factor}: {net}"
    assert broken[exact * 1.02 < eps].all(), f"{norm} x {factor}: {net}"


class Stopped(nn.Module):
    """A net whose run is stopped at an image."""

    def __init__(self, net: nn.Module, image: Tensor | None) -> None:
        super().__init__()
        self.net, self.image = net, image

    def forward(self, images: Tensor) -> Tensor:
        if self.image is not None and any(torch.equal(image, self.image) for image in images):
            raise KeyboardInterrupt
        result: Tensor = self.net(images)
        return result


@pytest.mark.parametrize("seed", numbered(2, 60))
def test_no_stopped_run_goes_on_with_a_net_of_other_answers(
    seed: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and classes of modules are the same; a constant is another."""
    monkeypatch.setattr(units, "UNIT_EXAMPLES", 12)
    net = random_net(seed)
    images, _ = place.keep(net, net.kind, seed, 24)
    given = {"suite": place.suite("corruptions"), "model_id": "net", "examples": 24, "batch_size": 5, "workers": 1}
    board = place.root / "board"
    with pytest.raises(KeyboardInterrupt):
        place.evaluate(Stopped(Scaled(net, 1.0), images[20]), net.kind, leaderboard=board, **given)
    other = Stopped(Scaled(net, -1.0), None)
    found = place.evaluate(other, net.kind, leaderboard=board, **given)
    expected = place.evaluate(other, net.kind, **given)
    assert found is not None and expected is not None
    pd.testing.assert_frame_equal(found.records, expected.records)
