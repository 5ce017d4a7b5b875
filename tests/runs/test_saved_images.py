from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bench
from bench.attacks.norms import distance
from bench.attacks.verification import round_inside, verify
from bench.core.files import sha256_file
from bench.core.threat import Norm
from bench.data import ImageDataset
from bench.leaderboard.evidence.adversarial import AdversarialImages, read_images
from bench.leaderboard.evidence.manifest import read_evidence
from bench.protocols import base
from bench.runs.execute import Observer, execute
from bench.runs.plan import RunPlan, RunRequest, plan_runs
from tests.conftest import TINY_SUITE, Bench

ATTACKS = """
schema_version = 1
name = "attacks"
version = 1
protocol = "robustness"
examples = 12
[parameters]
{mode} = true
[[parameters.attacks]]
attack = "pgd"
steps = 4
norms = ["linf"]
[[parameters.attacks]]
{second}
[parameters.datasets.fashion_mnist]
radii = {{ linf = [0.05, 0.1] }}
reference = {{ linf = 0.1 }}
"""
AGAIN = 'attack = "pgd"\nname = "again"\nsteps = 8'
FEWEST = 'attack = "sigma-zero"\nsteps = 10\nnorms = ["l0"]'


def kept(bench: Bench, tmp_path: Path, suite: Path) -> tuple[Path, str]:
    asked = ("run", "--model", "standard", "--suite", suite, "--leaderboard", tmp_path / "board", "--save-adversarial")
    code, out, err = bench(*asked)
    assert code == 0, err
    (folder,) = (tmp_path / "board" / "runs").iterdir()
    return folder, out


def require_true(images: AdversarialImages, net: nn.Module, data: ImageDataset, norm: Norm, largest: float) -> None:
    """What was kept fools the net inside the largest ball."""
    rows = images.norms == norm
    clean, labels = data.pixels(torch.from_numpy(images.ids[rows])), data.labels[images.ids[rows]]
    eps = torch.full((int(rows.sum()),), largest)
    assert verify(net, torch.from_numpy(images.images[rows]), clean, labels, eps=eps, norm=norm)[0].all()


def test_the_smallest_image_of_every_example_and_norm_is_kept_and_is_the_one_of_the_records(
    bench: Bench, tmp_path: Path, tiny_suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    folder, out = kept(bench, tmp_path, tiny_suite)
    manifest, records = read_evidence(folder)
    assert manifest.result.adversarial_sha256 == sha256_file(folder / "adversarial.npz")
    images = read_images(folder / "adversarial.npz", fashion_test)
    right = records[records["label"] == records["prediction"]]
    for norm, largest in (("linf", 0.1), ("l2", 1.5)):
        rows = right[(right["norm"] == norm) & (right["eps"] == largest) & right["broken"]].set_index("example_id")
        own = images.norms == norm
        assert sorted(images.ids[own]) == sorted(rows.index)
        delta = images.images[own].astype(float) - fashion_test.pixels(torch.from_numpy(images.ids[own])).numpy()
        flat = delta.reshape(len(delta), -1)
        found = np.abs(flat).max(1) if norm == "linf" else np.sqrt((flat**2).sum(1))
        np.testing.assert_allclose(found, rows["distance"].loc[images.ids[own]], rtol=1e-5)
        require_true(images, standard, fashion_test, norm, largest)
    counters = manifest.result.counters
    assert 0 < counters["saved_images_rounded"] <= counters["saved_images"] == len(images)
    assert f"{len(images)} adversarial images kept" in " ".join(out.split())
    assert bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path / "plain")[0] == 0
    (plain,) = (tmp_path / "plain" / "runs").iterdir()
    pd.testing.assert_frame_equal(records, read_evidence(plain)[1]), "verdicts are the same where none are kept"
    assert not (plain / "adversarial.npz").exists()


@pytest.mark.parametrize(("mode", "second", "norm"), [("chained", AGAIN, "linf"), ("distances", FEWEST, "l0")])
def test_chains_and_distances_keep_their_images_too(
    bench: Bench, tmp_path: Path, mode: str, second: str, norm: str, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    suite = tmp_path / "attacks.toml"
    suite.write_text(ATTACKS.format(mode=mode, second=second))
    folder, out = kept(bench, tmp_path, suite)
    images = read_images(folder / "adversarial.npz", fashion_test)
    assert set(images.norms) == {"linf", norm} and f"{len(images)} adversarial images kept" in " ".join(out.split())
    require_true(images, standard, fashion_test, "linf", 0.1)


class Stop(Observer):
    def __init__(self, most: int) -> None:
        self.left = most

    def advanced(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def plan_of(tmp_path: Path, *, save: bool) -> RunPlan:
    path = tmp_path / "tiny.toml"
    text = TINY_SUITE.replace("examples = 20", "examples = 8").replace(", l2 = 1.5", "").replace(", l2 = [1.5]", "")
    path.write_text(text.replace("steps = 5", "steps = 1"))
    request = RunRequest(["standard"], [str(path)], tmp_path / "board", device="cpu", save_adversarial=save)
    return plan_runs(request)[0]


def test_a_stopped_run_keeps_its_images_and_one_without_them_is_computed_again(
    tmp_path: Path, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "UNIT_EXAMPLES", 4)
    resumed = {}
    for save in (True, False):
        plan = plan_of(tmp_path, save=save)
        with pytest.raises(KeyboardInterrupt):
            execute(plan, tmp_path / "board", observer=Stop(plan.work // 2), fresh=True)
        outcome = execute(plan_of(tmp_path, save=True), tmp_path / "board")
        resumed[save] = outcome.resumed_units
        images = read_images(outcome.folder / "adversarial.npz", fashion_test)
        assert images.ids.max() >= 4 and images.ids.min() < 4
        assert not (outcome.folder / "parts").exists()
    assert resumed == {True: 1, False: 0}


def test_a_suite_that_looks_for_no_such_images_is_refused(bench: Bench, tmp_path: Path) -> None:
    asked = ("run", "--model", "standard", "--suite", "corruptions", "--examples", 2, "--leaderboard", tmp_path / "b")
    assert "--save-adversarial" in bench.refused(*asked, "--save-adversarial")


def test_rounding_to_255ths_never_leaves_the_ball() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (8, 3, 6, 6), generator=generator).float() / 255
    norms: dict[Norm, float] = {"linf": 0.1, "l2": 0.7, "l1": 4.0}
    for norm, eps in norms.items():
        noise = torch.randn(clean.shape, generator=generator)
        images = (clean + noise * (eps / distance(noise, norm)).view(-1, 1, 1, 1)).clamp(0, 1)
        rounded = round_inside(images, clean, torch.full((8,), eps), norm)
        steps = 255 * rounded.double()
        assert (steps - steps.round()).abs().max() < 1e-4
        found = distance(rounded.double() - clean.double(), norm)
        assert (found <= eps * (1 + 1e-6)).all() and (rounded != clean).any()


def test_from_python_the_images_are_in_the_result_also_where_nothing_is_left_on_the_disk(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    suite = str(plan_of(tmp_path, save=False).suite.path)
    net = bench.load_model("standard")
    result = bench.evaluate(net, suite, device="cpu", leaderboard=tmp_path / "kept", save_adversarial=True)
    assert result.adversarial is not None and result.folder is not None
    require_true(result.adversarial, standard, fashion_test, "linf", 0.1)
    written = read_images(result.folder / "adversarial.npz", fashion_test)
    np.testing.assert_array_equal(written.images, result.adversarial.images)
    again = bench.evaluate(net, suite, device="cpu", save_adversarial=True)
    assert again.folder is None and again.adversarial is not None
    np.testing.assert_array_equal(again.adversarial.images, written.images)
    assert bench.evaluate(net, suite, device="cpu").adversarial is None
