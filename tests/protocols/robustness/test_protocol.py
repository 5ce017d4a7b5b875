from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from bench.attacks import registry
from bench.core import packages
from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.data import ImageDataset
from bench.leaderboard.evidence.manifest import read_manifest
from bench.protocols import EvaluationContext
from bench.protocols.robustness.presets import AutoAttackFast, Union
from bench.protocols.robustness.protocol import Robustness
from tests.conftest import Bench

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "bring-your-own-attack.md"
RADII = {"linf": [0.05, 0.1], "l2": [1.5]}
REFERENCE = {"linf": 0.1, "l2": 1.5}
STRANGER = """
import torch

def claim_everything(model, images, labels, *, eps):
    return 1.0 - images
"""


def suite_of(*attacks: dict[str, Any], **parameters: Any) -> Robustness:
    datasets = {"fashion_mnist": {"radii": RADII, "reference": REFERENCE}}
    return Robustness.from_parameters({"attacks": list(attacks), "datasets": datasets, **parameters}, "test")


def evaluate(suite: Robustness, model: nn.Module, data: ImageDataset, count: int = 16) -> pd.DataFrame:
    done: list[int] = []
    context = EvaluationContext(
        model, "fashion_mnist/standard", data, 0, stop=count, seed=0, device=torch.device("cpu"), batch_size=256,
        on_progress=done.append, examples=count,
    )  # fmt: skip
    records = suite.evaluate(context).records
    assert sum(done) == suite.work("fashion_mnist", count)
    return records


PGD = {"attack": "pgd", "steps": 5}
APGD = {"attack": "apgd-ce", "iterations": 5, "name": "short", "norms": ["linf"]}


def test_each_attack_is_reported_at_every_radius_and_the_worst_over_all(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    suite = suite_of(PGD, APGD)
    records = evaluate(suite, standard, fashion_test)
    assert set(zip(records["attack"], records["norm"], records["eps"], strict=True)) == {
        ("pgd", "linf", 0.05), ("pgd", "linf", 0.1), ("pgd", "l2", 1.5), ("short", "linf", 0.05), ("short", "linf", 0.1),
    }  # fmt: skip
    values = {
        (one.key.metric, one.key.attack, one.key.norm, one.key.eps): one.value
        for one in suite.metrics("fashion_mnist", records)
    }
    for eps in RADII["linf"]:
        worst = values["robust_accuracy", "worst", "linf", eps]
        assert worst <= min(values["robust_accuracy", name, "linf", eps] for name in ("pgd", "short"))
    assert values["union_accuracy", "worst", "all", None] <= values["robust_accuracy", "worst", "l2", 1.5]


def test_a_chain_gives_each_attack_what_the_others_left_standing_at_each_radius(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    suite = suite_of(PGD | {"steps": 2}, APGD, chained=True)
    records = evaluate(suite, standard, fashion_test)
    for eps in RADII["linf"]:
        rows = records[(records["norm"] == "linf") & (records["eps"] == eps)].set_index("example_id")
        first, second, verdict = (rows[rows["attack"] == name] for name in ("pgd", "short", "worst"))
        assert set(second.index) == set(first.index[~first["broken"]])
        assert set(verdict.index[~verdict["broken"]]) == set(second.index[~second["broken"]])
    after = [one for one in suite.metrics("fashion_mnist", records) if one.key.metric == "robust_accuracy_after"]
    assert [(one.key.attack, one.key.norm) for one in after] == [("pgd", "linf"), ("short", "linf")] * 2 + [
        ("pgd", "l2")
    ]


def test_distances_are_medians_of_each_attack_also_in_l0(standard: nn.Module, fashion_test: ImageDataset) -> None:
    attacks = {"attack": "foolbox:L2DeepFoolAttack", "steps": 10}, {"attack": "sigma-zero", "steps": 30}
    suite = suite_of(*attacks, distances=True)
    metrics = suite.metrics("fashion_mnist", evaluate(suite, standard, fashion_test))
    found = {(one.key.attack, one.key.norm): one.value for one in metrics if one.key.metric == "median_distance"}
    assert found.keys() == {("foolbox:L2DeepFoolAttack", "l2"), ("sigma-zero", "l0")}
    assert 0 < found["foolbox:L2DeepFoolAttack", "l2"] < 1.5 and found["sigma-zero", "l0"] >= 1


@pytest.mark.parametrize("steps", [(40, 2), (2, 40)])
def test_of_two_attacks_in_l0_the_image_is_kept_that_changes_less(
    steps: tuple[int, int], standard: nn.Module, fashion_test: ImageDataset
) -> None:
    attacks = [{"attack": "sigma-zero", "steps": number, "name": f"of_{number}"} for number in steps]
    context = EvaluationContext(
        standard, "fashion_mnist/standard", fashion_test, 0, stop=12, seed=0, device=torch.device("cpu"), batch_size=12,
        examples=12, save_adversarial=True,
    )  # fmt: skip
    result = suite_of(*attacks, distances=True).evaluate(context)
    assert result.adversarial is not None
    images = fashion_test.pixels(slice(0, 12))[result.adversarial.ids]
    changed = (torch.from_numpy(result.adversarial.images) != images).flatten(1).sum(1)
    fewest = result.records.groupby("example_id")["distance"].min()
    assert result.records.groupby("attack")["distance"].sum().nunique() == 2
    assert changed.tolist() == fewest[result.adversarial.ids].tolist()


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ({"attack": "pgdd"}, "did you mean pgd"),
        ({"attack": "pgd", "setps": 3}, "unknown parameter of attack pgd 'setps'; did you mean steps"),
        ({"attack": "pgd", "norms": ["l3"]}, r"attacks\.0\.norms"),
        ({"attack": "worst", "name": "worst"}, "none may be called 'worst'"),
        ({"attack": "hop-skip-jump", "norms": ["l1"]}, "hop-skip-jump works in linf, l2, not in l1"),
        ({"attack": "torchattacks:PGD"}, "does not say its norm"),
        ({"attack": "foolbox:LinfPGD", "norms": ["l2"]}, "works in linf, not in l2"),
        ({"attack": "pgd", "norms": ["l1"]}, "for which this suite has no radii"),
    ],
)
def test_a_bad_attack_of_a_suite_gets_one_line(attack: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said) as error:
        suite_of(attack).require_dataset("fashion_mnist")
    assert "\n" not in str(error.value)


def test_a_norm_that_nothing_attacks_is_no_robust_accuracy() -> None:
    """It counted as withstood, in its own row and in the union."""
    with pytest.raises(BenchError, match="no attack of this suite works in l2, for which there are radii; add one"):
        suite_of(PGD | {"norms": ["linf"]}, chained=True).require_dataset("fashion_mnist")
    suite_of(PGD | {"norms": ["linf"]}).require_dataset("fashion_mnist")  # no row, no union
    stages = [{"steps": 2, "norms": ["l2"]}, {"steps": 3, "norms": ["l2"]}]
    with pytest.raises(BenchError, match="no stage of cascade works in linf"):
        suite_of({"attack": "cascade", "stages": stages}).require_dataset("fashion_mnist")
    suite_of({"attack": "cascade", "stages": stages, "norms": ["l2"]}).require_dataset("fashion_mnist")
    fast = {"stages": stages, "datasets": {"fashion_mnist": {"reference": {"l2": 1.5, "l1": 15.0}}}}
    for kind in (AutoAttackFast, Union):
        with pytest.raises(BenchError, match="no stage of cascade works in l1"):
            kind.from_parameters(fast, "test").require_dataset("fashion_mnist")


def blocks(page: Path) -> dict[str, str]:
    return dict(re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL))


def test_the_attack_of_the_howto_runs_from_its_file_and_a_suites_line(tmp_path: Path, bench: Bench) -> None:
    code, suite = tmp_path / "my_attack.py", tmp_path / "mine.toml"
    code.write_text(blocks(PAGE)["python"])
    suite.write_text(blocks(PAGE)["toml"])
    asked = ("run", "--model", "standard", "--suite", suite, "--examples", 24, "--leaderboard", tmp_path / "board")
    assert "--program" in bench.refused(*asked), "it runs only when the user names it"
    status, out, _ = bench(*asked, "--program", code)
    assert status == 0 and "my_attack.py:corners" in out and "worst" in out
    (folder,) = (tmp_path / "board" / "runs").iterdir()
    assert sha256_file(code) in (folder / "manifest.json").read_text()
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    value = rows.set_index(["metric", "attack", "eps"])["value"]
    assert value["robust_accuracy", "my_attack.py:corners", 0.2] < value["clean_accuracy"].iloc[0]
    code.write_text(code.read_text() + "\n# another version\n")
    assert bench(*asked, "--program", code)[0] == 0
    assert len(list((tmp_path / "board" / "runs").iterdir())) == 2, "another file is another run"


def test_a_strangers_cheating_claims_are_rejected_and_said(tmp_path: Path, bench: Bench) -> None:
    code, suite = tmp_path / "stranger.py", tmp_path / "mine.toml"
    code.write_text(STRANGER)
    text = (
        blocks(PAGE)["toml"].replace("my_attack.py:corners", "stranger.py:claim_everything").replace("tries = 10\n", "")
    )
    suite.write_text(
        text.replace("[0.05, 0.1, 0.2]", "[0.001, 0.1]").replace(
            '[[parameters.attacks]]\nattack = "pgd"\nnorms = ["linf"]\n', ""
        )
    )
    status, _, err = bench(
        "run", "--model", "standard", "--suite", suite, "--examples", 20, "--leaderboard", tmp_path / "board",
        "--program", code,
    )  # fmt: skip
    assert status == 0 and "outside_claims" in err
    (folder,) = (tmp_path / "board" / "runs").iterdir()
    records = pd.read_parquet(folder / "examples.parquet")
    near = records[records["eps"] == 0.001]
    assert near["broken"].sum() - (near["label"] != near["prediction"]).sum() <= 1
    counters = read_manifest(folder).result.counters
    assert counters["outside_claims"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("tries = 10", "trise = 10"), "did you mean tries"),
        (("return AttackResult(found)", "return AttackResult(found / 0)"), "NaN or infinite"),
        (("return AttackResult(found)", "return AttackResult(found, 5.5)"), "cannot be interpreted as an integer"),
        (("return AttackResult(found)", "return AttackResult(found, queries='few')"), "failed on this model: TypeError"),
        (("found = images.clone()", "found = images.clone(; "), "cannot be loaded (SyntaxError"),
        (("found = images.clone()", "raise OSError('gone')"), "failed on this model: OSError: gone"),
    ],
)  # fmt: skip
def test_a_bad_file_or_keyword_ends_with_one_line_and_exit_code_2(
    tmp_path: Path, bench: Bench, change: tuple[str, str], said: str
) -> None:
    for name, kind in (("my_attack.py", "python"), ("mine.toml", "toml")):
        (tmp_path / name).write_text(blocks(PAGE)[kind].replace(*change))
    line = bench.refused(
        "run", "--model", "standard", "--suite", tmp_path / "mine.toml", "--examples", 4,
        "--leaderboard", tmp_path / "board", "--program", tmp_path / "my_attack.py",
    )  # fmt: skip
    assert said in line


def test_a_plugins_attack_has_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    (tmp_path / "their_package.py").write_text(blocks(PAGE)["python"])
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("corners", "their_package:corners", registry.GROUP)
    monkeypatch.setattr(
        packages, "_announced", lambda **asked: [point] if asked.get("name", "corners") == "corners" else []
    )
    registry.find_attack.cache_clear()
    try:
        suite = suite_of({"attack": "corners", "tries": 3})
        records = evaluate(suite, standard, fashion_test)
    finally:
        registry.find_attack.cache_clear()
    assert set(records["attack"]) == {"corners"} and set(records["norm"]) == {"linf"}
    assert not suite.program_files
