"""A search in less than float32 may miss something; it can claim nothing that float32 does not confirm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import evaluate
from bench.attacks import verification
from bench.attacks.cascade.attack import Cascade
from bench.attacks.cascade.stages import Stage
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.search import SearchNet
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults, pull_inside
from bench.core.precision import MixedPrecision, Precision, float32_products
from bench.core.threat import Norm
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.table import read_leaderboard
from tests.conftest import Bench

TOLERANCE = 0.02
"""Of robust accuracy on 64 images: one image. On 200 images of three shipped nets it was half a point."""
RADII: dict[Norm, list[float]] = {"linf": [0.05, 0.1], "l2": [1.0, 1.5]}
Images = tuple[Tensor, Tensor]


def attack(model: nn.Module, images: Tensor, labels: Tensor, engine: str, precision: Precision) -> AttackResults:
    with torch.no_grad():
        results = AttackResults.start(model(images).argmax(1), labels)
    ids = torch.arange(len(images))
    for norm, radii in RADII.items():
        if engine == "sweep":
            settings = SweepSettings(10, ("margin",))
            NormSweep(
                model,
                images,
                labels,
                ids,
                norm=norm,
                radii=radii,
                settings=settings,
                results=results,
                precision=precision,
            ).run()
        else:
            Cascade(
                model,
                images,
                labels,
                ids,
                norm=norm,
                eps=radii[-1],
                stages=(Stage(steps=10),),
                results=results,
                precision=precision,
            ).run()
    return results


@pytest.mark.parametrize("engine", ["sweep", pytest.param("cascade", marks=pytest.mark.slow)])
def test_in_bfloat16_every_verified_example_fools_float32_and_accuracy_stays(
    at_linf: nn.Module, fashion_images: Images, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    images, labels = fashion_images
    seen = {"claimed": 0, "verified": 0, "bfloat16": 0}
    verify, forward = verification.verify, MixedPrecision.forward

    def judge(model: nn.Module, found: Tensor, clean: Tensor, truth: Tensor, eps: Tensor, norm: Norm) -> object:
        assert model is at_linf, "verified by the plain net, not through the search's"
        verified, distances, predictions = verify(model, found, clean, truth, eps=eps, norm=norm)
        fooling = pull_inside(found, clean, eps, norm)[verified]
        with torch.no_grad():
            assert at_linf(fooling).dtype == torch.float32
            assert (at_linf(fooling).argmax(1) != truth[verified]).all()
        seen["claimed"] += len(found)
        seen["verified"] += int(verified.sum())
        return verified, distances, predictions

    def count(net: MixedPrecision, given: Tensor) -> Tensor:
        seen["bfloat16"] += 1
        return forward(net, given)

    monkeypatch.setattr(verification, "verify", judge)
    exact = attack(at_linf, images, labels, engine, precision="float32")
    assert seen["bfloat16"] == 0
    monkeypatch.setattr(MixedPrecision, "forward", count)
    quick = attack(at_linf, images, labels, engine, precision="bfloat16")
    assert seen["bfloat16"] > 0 and seen["claimed"] >= seen["verified"] > 0
    for norm, radii in RADII.items():
        for eps in radii if engine == "sweep" else radii[-1:]:
            difference = quick.broken(norm, eps).double().mean() - exact.broken(norm, eps).double().mean()
            assert abs(float(difference)) <= TOLERANCE


def test_claims_in_bfloat16_reach_over_the_boundary_by_its_rounding() -> None:
    net = nn.Identity()
    margins, logits = torch.tensor([1e-3, -1e-3, -0.02, -0.06]), torch.tensor([[8.0, 0.0]]).expand(4, -1)
    assert SearchNet(net, "float32", "cpu").claims(margins, logits).tolist() == [True, False, False, False]
    assert SearchNet(net, "bfloat16", "cpu").claims(margins, logits).tolist() == [True, True, True, False]


def test_a_run_says_in_which_precision_it_searched(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    run = ("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path, "--device", "cpu")
    code, _, err = bench(*run, "--precision", "bfloat16")
    assert code == 0 and "looked for in bfloat16 and confirmed in float32" in err
    (folder,) = (tmp_path / "runs").iterdir()
    assert read_manifest(folder).config.precision == "bfloat16"
    assert set(read_leaderboard(tmp_path)["precision"]) == {"bfloat16"}
    plain = evaluate("standard", tiny_suite, leaderboard=tmp_path / "plain", device="cpu")
    assert plain.folder is not None and read_manifest(plain.folder).config.precision == "float32"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--suite", "cross_norm_quick", "--precision", "float16"), "unknown precision 'float16'"),
        (("--suite", "cross_norm_quick", "--precision", "tf32"), "precision tf32 needs a CUDA device"),
        (("--suite", "corruptions", "--precision", "bfloat16"), "suite corruptions computes in float32 only"),
    ],
)
def test_a_precision_that_would_do_nothing_is_refused(bench: Bench, options: tuple[str, ...], line: str) -> None:
    assert line in bench.refused("run", "--model", "standard", "--device", "cpu", *options)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the old switches alone")
def test_float32_is_float32_whatever_was_set_before_and_what_was_set_comes_back() -> None:
    holders = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul]

    def found() -> list[str]:
        return [holder.fp32_precision for holder in holders]

    before = found()
    torch.set_float32_matmul_precision("medium")
    try:
        assert found()[2] == "bf16"
        with float32_products(tf32=True):
            assert found() == ["tf32", "tf32", "ieee"]
            with pytest.raises(KeyError), float32_products():
                assert found() == ["ieee", "ieee", "ieee"]
                raise KeyError
            assert found() == ["tf32", "tf32", "ieee"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found()[1] == before[1]
