from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.catalog.cards import read_card, write_card
from bench.leaderboard.table import read_leaderboard
from tests.conftest import Bench, ModelCopy


@pytest.fixture
def suite(tiny_suite: Path) -> Path:
    tiny_suite.write_text(tiny_suite.read_text().replace("examples = 20", "examples = 60"))
    return tiny_suite


@pytest.fixture(scope="module")
def kept_baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a baseline puts it; it is the same for every copy of the model."""
    return tmp_path_factory.mktemp("baseline") / "kept"


@pytest.fixture
def baseline(bench: Bench, tmp_path: Path, suite: Path, model_copy: ModelCopy, kept_baseline: Path) -> Path:
    kept, folder = kept_baseline, tmp_path / "baseline"
    if not kept.exists():
        code, out, err = bench(
            "check",
            "--update",
            "--model",
            model_copy.folder,
            "--suite",
            suite.stem,
            "--suite-path",
            suite.parent,
            "--baseline",
            kept,
            "--device",
            "cpu",
        )
        assert code == 0 and "new in the baseline" in out, err
    shutil.copytree(kept, folder)
    return folder


def check(bench: Bench, model: ModelCopy, suite: Path, baseline: Path, *more: object) -> tuple[int, str, str]:
    common = ("--model", model.folder, "--suite", suite, "--baseline", baseline, "--device", "cpu", "--time-factor", 0)
    return bench("check", *common, *more)


def add_noise(model: ModelCopy, amount: float) -> None:
    torch.manual_seed(0)
    state = load_file(model.weights)
    for name, value in state.items():
        if name.endswith(".weight"):
            value += amount * value.std() * torch.randn_like(value)
    save_file(state, model.weights)


def test_an_unchanged_model_passes_whatever_the_batch_size_and_the_threads(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path
) -> None:
    before = (baseline / "leaderboard.csv").read_bytes()
    threads = torch.get_num_threads()
    try:
        for batch_size, count in ((256, threads), (30, 2)):
            torch.set_num_threads(count)
            code, out, err = check(bench, model_copy, suite, baseline, "--batch-size", batch_size)
            assert code == 0 and "as the baseline" in out, out + err
    finally:
        torch.set_num_threads(threads)
    assert (baseline / "leaderboard.csv").read_bytes() == before


def test_noise_on_the_weights_is_caught_as_a_regression(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path, tmp_path: Path
) -> None:
    add_noise(model_copy, 1.0)
    model_copy.adopt_weights()
    card = read_card(model_copy.folder)
    write_card(model_copy.folder, card.model_copy(update={"description": "trained again"}))
    code, out, _ = check(bench, model_copy, suite, baseline, "--junit", tmp_path / "junit.xml")
    assert code == 1 and "worse" in out and "with a new card" in out
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert root.get("tests") == "1" and root.get("failures") == "1"
    failure = root.find("testcase/failure")
    assert failure is not None and "clean accuracy fell from" in str(failure.get("message"))


def test_changed_weights_need_a_new_card(bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path) -> None:
    add_noise(model_copy, 1e-6)
    code, out, _ = check(bench, model_copy, suite, baseline)
    assert code == 1 and "without a new card" in " ".join(out.split())
    model_copy.adopt_weights()
    code, out, _ = check(bench, model_copy, suite, baseline)
    assert code == 1 and "says nothing new" in " ".join(out.split())


def test_a_net_that_answers_otherwise_with_the_baselines_weights_is_named(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path
) -> None:
    for path in baseline.glob("runs/*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["answers"]["logits"][0][0] += 5.0  # as another forward of the same weights would have it
        path.write_text(json.dumps(manifest))
    code, out, err = check(bench, model_copy, suite, baseline)
    assert code == 1 and "the weights are the baseline's, and yet the net answers otherwise" in out + err


def test_a_difference_within_the_tolerance_or_by_chance_passes(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path
) -> None:
    add_noise(model_copy, 0.02)
    model_copy.adopt_weights()
    card = read_card(model_copy.folder)
    write_card(model_copy.folder, card.model_copy(update={"description": "trained again"}))
    code, out, _ = check(bench, model_copy, suite, baseline)
    assert code == 0, out


def test_update_adds_to_the_baseline_and_prints_the_difference(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path
) -> None:
    add_noise(model_copy, 1.0)
    model_copy.adopt_weights()
    write_card(model_copy.folder, read_card(model_copy.folder).model_copy(update={"description": "trained again"}))
    code, out, _ = check(bench, model_copy, suite, baseline, "--update")
    assert code == 0 and "clean accuracy fell" in " ".join(out.split())
    assert read_leaderboard(baseline)["run_id"].nunique() == 2
    assert len(list((baseline / "runs").iterdir())) == 2
    code, out, _ = check(bench, model_copy, suite, baseline)
    assert code == 0 and "as the baseline" in out


def test_update_adds_no_earlier_run_of_the_folder_that_keeps_them(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path, tmp_path: Path
) -> None:
    add_noise(model_copy, 1.0)
    model_copy.adopt_weights()
    write_card(model_copy.folder, read_card(model_copy.folder).model_copy(update={"description": "trained badly"}))
    kept = ("--leaderboard", tmp_path / "kept")
    assert check(bench, model_copy, suite, baseline, *kept)[0] == 1
    assert check(bench, model_copy, suite, baseline, *kept, "--seed", 1, "--update")[0] == 0
    assert sorted(set(read_leaderboard(baseline)["seed"])) == [0, 1]
    assert read_leaderboard(baseline)["run_id"].nunique() == 2 and len(list((baseline / "runs").iterdir())) == 2


def test_no_run_is_its_own_baseline(bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path) -> None:
    add_noise(model_copy, 1.0)
    model_copy.adopt_weights()
    kept = ("--leaderboard", baseline.parent / "elsewhere" / ".." / baseline.name)
    common = ("check", "--model", model_copy.folder, "--suite", suite, "--baseline", baseline, "--device", "cpu", *kept)
    assert "the new runs would be the baseline of the next check" in bench.refused(*common)
    assert read_leaderboard(baseline)["run_id"].nunique() == 1
    code, out, _ = bench(*common, "--update", "--json")
    remarks = json.loads(out)["verdicts"][0]["remarks"]
    assert code == 0 and "the weights differ from the baseline's" in remarks[0]["text"]


def test_slowness_warns_and_fails_only_when_asked(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path
) -> None:
    code, out, _ = check(bench, model_copy, suite, baseline, "--time-factor", 1e-6)
    assert code == 0 and "times the baseline's" in " ".join(out.split())
    assert check(bench, model_copy, suite, baseline, "--time-factor", 1e-6, "--fail-on-time")[0] == 1


def test_github_gets_annotations_and_a_summary(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    add_noise(model_copy, 1e-6)
    code, out, _ = check(bench, model_copy, suite, baseline)
    assert code == 1 and "::error title=fashion_mnist/copy under weights::the weights" in out
    assert "**worse**" in (tmp_path / "summary.md").read_text()


def test_what_the_baseline_does_not_have_is_named_before_any_work(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path, tmp_path: Path
) -> None:
    assert "no run of fashion_mnist/at_linf under tiny" in bench.refused(
        "check", "--model", "at_linf", "--suite", suite, "--baseline", baseline
    )
    assert "there is no" in bench.refused(
        "check", "--model", model_copy.folder, "--suite", suite, "--baseline", tmp_path / "nowhere"
    )


def test_a_baseline_that_cannot_be_compared_with_is_refused_before_any_work(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cli.output.run_progress.carry_out", lambda *_, **__: pytest.fail("work has begun"))
    asked = ("check", "--model", model_copy.folder, "--suite", suite, "--baseline", baseline)
    for option, known, wrong in (("examples", "n_examples is 60", 50), ("seed", "seed is 0", 7)):
        line = bench.refused(*asked, f"--{option}", wrong)
        assert f"{known}, here {wrong}; judge with {option} {known.split()[-1]}, or add it with" in line
    assert "a file stands where a folder is needed" in bench.refused(*asked, "--junit", tmp_path)
    (evidence,) = baseline.glob("runs/*/examples.parquet")
    evidence.write_bytes(b"damaged")
    assert "examples.parquet" in bench.refused(*asked)


def test_a_model_that_the_baseline_lacks_does_not_keep_the_others_from_being_judged(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path, tmp_path: Path
) -> None:
    asked = ("check", "--model", "at_l2", "--model", model_copy.folder, "--suite", suite, "--baseline", baseline)
    code, out, err = bench(*asked, "--examples", 60, "--junit", tmp_path / "junit.xml", "--json")
    assert code == 2 and "has no run of fashion_mnist/at_l2 under" in " ".join(err.split())
    assert [verdict["model"] for verdict in json.loads(out)["verdicts"]] == ["fashion_mnist/copy"]
    report = (tmp_path / "junit.xml").read_text()
    assert report.count("<error") == 1 and 'name="fashion_mnist/copy"' in report


def test_an_update_tells_of_the_run_that_it_adds_and_of_a_model_that_came_to_nothing(
    bench: Bench, model_copy: ModelCopy, suite: Path, tmp_path: Path
) -> None:
    asked = ("--suite", suite, "--examples", 4, "--baseline", tmp_path / "new", "--update")
    code, out, err = bench("check", "--model", model_copy.folder, *asked, "--json")
    (verdict,) = json.loads(out)["verdicts"]
    (run,) = (tmp_path / "new" / "runs").iterdir()
    assert code == 0 and verdict["run_id"] == run.name and "has 1 new run now" in err
    assert {one["metric"] for one in verdict["metrics"]} >= {"clean_accuracy", "robust_accuracy"}
    assert all(one["first"] is None and one["second"] is not None for one in verdict["metrics"])
    add_noise(model_copy, 1e-6)
    code, out, _ = bench("check", "--model", model_copy.folder, *asked)
    assert code == 2 and "without a new card" in " ".join(out.split()) and "new run" not in out


@pytest.mark.slow
def test_twenty_runs_of_an_unchanged_model_give_no_false_alarm(
    bench: Bench, model_copy: ModelCopy, suite: Path, baseline: Path
) -> None:
    assert [check(bench, model_copy, suite, baseline)[0] for _ in range(20)] == [0] * 20


FACTORY = """
from bench.nets import build_net

def make():
    return build_net("small_cnn", dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353]))
"""


def test_a_checkpoint_of_ones_own_is_gated_without_a_registry(
    bench: Bench, model_copy: ModelCopy, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    Path("weights.safetensors").write_bytes(b"not a model's, it only lies here")
    common = ("check", "--model", "net.py:make", "--model-id", "mine", "--weights", model_copy.weights, "--suite", suite,
              "--baseline", tmp_path / "baseline", "--device", "cpu", "--time-factor", 0, "--examples", 20)  # fmt: skip
    assert bench(*common, "--update")[0] == 0
    code, out, err = bench(*common)
    assert code == 0 and "as the baseline" in out, out + err
    add_noise(model_copy, 1e-6)
    code, out, _ = bench(*common)
    assert code == 0 and "the weights differ from the baseline's" in " ".join(out.split()), out
    add_noise(model_copy, 1.0)
    (tmp_path / "net.py").write_text(FACTORY + "# new\n")
    code, out, _ = bench(*common)
    assert code == 1 and "clean accuracy fell" in " ".join(out.split())
    assert "the program that makes the net differs" in " ".join(out.split())


def test_a_registered_program_is_gated_with_its_file_named(
    bench: Bench, model_copy: ModelCopy, suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    add = ("models", "add", f"{tmp_path / 'net.py'}:make", "--weights", model_copy.weights, "--model-id", "mine")
    assert bench(*add, "--registry", tmp_path / "zoo", "--examples", 50)[0] == 0
    common = ("check", "--model", "mine", "--registry", tmp_path / "zoo", "--suite", suite, "--examples", 20,
              "--baseline", tmp_path / "baseline", "--update")  # fmt: skip
    assert "name that file if you trust it (--program)." in bench.refused(*common)
    code, out, err = bench(*common, "--program", tmp_path / "net.py")
    assert code == 0 and "new in the baseline" in out, err
