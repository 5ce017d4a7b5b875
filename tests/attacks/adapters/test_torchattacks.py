from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.attacks.adapters.torchattacks import REFUSED
from bench.attacks.registry import NamedAttack, find_attack, named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.core.errors import BenchError
from bench.core.threat import Norm
from bench.data import ImageDataset
from tests.executors.processes import run_python


def test_torchattacks_is_imported_only_when_one_of_its_attacks_runs(tmp_path: Path) -> None:
    code = "import bench.cli.main, bench.runs.execute, bench.protocols, sys; print('torchattacks' in sys.modules)"
    assert run_python(code, tmp_path / "said") == (0, "False\n")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_its_broken_attacks_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(BenchError, match="is not accepted"):
        find_attack(f"torchattacks:{name}")


def test_unknown_classes_and_parameters_suggest_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"did you mean.*PGDL2"):
        find_attack("torchattacks:PGDL22")
    with pytest.raises(BenchError, match="did you mean steps"):
        named_attack("torchattacks:PGD", {"step": 3})
    with pytest.raises(BenchError, match="steps: input should be a valid integer"):
        named_attack("torchattacks:PGD", {"steps": "3"})
    with pytest.raises(BenchError, match="relative_parameters"):
        named_attack("torchattacks:PGD", {"relative_parameters": {"alhpa": 0.1}})


def attack(
    model: nn.Module, data: ImageDataset, run: NamedAttack, norm: Norm, radii: list[float], count: int
) -> AttackResults:
    images, labels = data.pixels(slice(0, count)), data.labels[:count]
    results = AttackResults.start(model(images).argmax(1), labels)
    run_attack(run, Examples(model, images, labels, torch.arange(count), num_classes=10), norm, radii, results=results)
    return results


def test_its_verdicts_repeat_and_leave_the_global_generator_alone(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    pgd = named_attack("torchattacks:PGD", {"steps": 5, "relative_parameters": {"alpha": 0.5}})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = attack(standard, fashion_test, pgd, "linf", radii=[0.02, 0.05], count=60)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second = attack(standard, fashion_test, pgd, "linf", radii=[0.02, 0.05], count=60)
    assert torch.equal(first.distances["linf"], second.distances["linf"])


@pytest.mark.parametrize(("name", "norm"), [("CW", "l2"), ("FGSM", "linf"), ("Square", "linf")])
def test_others_of_its_attacks_run_and_verify(
    standard: nn.Module, fashion_test: ImageDataset, name: str, norm: Norm
) -> None:
    parameters = {"steps": 10} if name == "CW" else ({"n_queries": 20} if name == "Square" else {})
    eps = 1.5 if norm == "l2" else 0.1
    results = attack(
        standard, fashion_test, named_attack(f"torchattacks:{name}", parameters), norm, radii=[eps], count=20
    )
    assert results.claims > 0
    assert results.broken(norm, eps).float().mean() > (results.distances[norm] == 0).float().mean()


@pytest.mark.parametrize(
    ("model_name", "norm", "class_name"),
    [
        ("standard", "l2", "PGDL2"),
        ("at_linf", "linf", "PGD"),
        pytest.param("standard", "linf", "PGD", marks=pytest.mark.slow),
        pytest.param("at_linf", "l2", "PGDL2", marks=pytest.mark.slow),
    ],
)
def test_the_sweep_is_not_weaker_than_torchattacks(
    request: pytest.FixtureRequest, fashion_test: ImageDataset, model_name: str, norm: Norm, class_name: str
) -> None:
    """Same model, 40 images, radii and number of steps: at most one image more than torchattacks leaves standing."""
    model: nn.Module = request.getfixturevalue(model_name)
    steps, count = 40, 40
    radii = {"linf": [0.05, 0.1, 0.15], "l2": [0.5, 1.0, 1.5]}[norm]
    run = named_attack(
        f"torchattacks:{class_name}", {"steps": steps, "relative_parameters": {"alpha": 2.5 / steps}}
    )  # fmt: skip
    theirs = attack(model, fashion_test, run, norm, radii=radii, count=count)
    images, labels = fashion_test.pixels(slice(0, count)), fashion_test.labels[:count]
    ours = AttackResults.start(model(images).argmax(1), labels)
    sweep_settings = SweepSettings(steps=steps, losses=("cross_entropy",))
    NormSweep(
        model, images, labels, torch.arange(count), norm=norm, radii=radii, settings=sweep_settings, results=ours
    ).run()
    for eps in radii:
        robust = [float((~results.broken(norm, eps)).float().mean()) for results in (ours, theirs)]
        assert robust[0] <= robust[1] + 1.5 / count, (
            f"{model_name} {norm} {eps}: sweep {robust[0]}, torchattacks {robust[1]}"
        )
