from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.catalog.cards import read_card, write_card
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.conftest import Bench, ModelCopy

FLAKY = """
import torch
from torch import nn

class Flaky(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(784, 10)

    def forward(self, images):
        if len(images) > 3:
            raise RuntimeError("no luck today")
        return self.layer(images.flatten(1))

def make():
    return Flaky()

def broken():
    raise RuntimeError("cannot be built")
"""


@pytest.fixture
def flaky(tmp_path: Path) -> Path:
    path = tmp_path / "flaky.py"
    path.write_text(FLAKY)
    return path


def test_a_model_that_fails_does_not_keep_the_others_from_being_run(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path
) -> None:
    board, models = tmp_path / "board", ("--model", f"{flaky}:make", "--model", "standard")
    code, out, err = bench("run", *models, "--suite", tiny_suite, "--leaderboard", board)
    assert code == 2 and "fashion_mnist/standard under tiny" in out
    assert "failed fashion_mnist/flaky-make under tiny: " in err and "no luck today" in err
    assert "error: 1 failed, 1 runs are done." in err
    assert set(read_leaderboard(board)["model"]) == {"standard"}
    (told,) = json.loads(bench("run", *models, "--suite", tiny_suite, "--leaderboard", board, "--json")[1])["failures"]
    assert (told["model"], told["suite"]) == ("fashion_mnist/flaky-make", "tiny") and "no luck" in told["reason"]
    code, out, err = bench("run", *models, "--suite", tiny_suite, "--leaderboard", tmp_path / "other", "--fail-fast")
    assert code == 2 and out == "" and err.count("no luck today") == 1


def test_a_size_that_the_net_does_not_take_is_named(
    bench: Bench, tmp_path: Path, flaky: Path, tiny_suite: Path
) -> None:
    asked = ("run", "--model", f"{flaky}:make", "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert bench.refused(*asked, "--input-size", 14).endswith("; images are resized to 14 (--input-size).")


@pytest.mark.parametrize("command", ["models", "report", "check", "reproduce"])
def test_a_broken_card_is_named_in_one_line_where_all_models_count(
    bench: Bench, tmp_path: Path, model_copy: ModelCopy, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model_copy.folder / "card.toml").write_text("")
    monkeypatch.chdir(tmp_path)  # no leaderboard is here, so that two of the commands end early
    _, out, err = bench(command, *(("ir", "--scale", "none") if command == "reproduce" else ()))
    assert err.count(f"warning a model is left out: model card {model_copy.folder / 'card.toml'}: ") == 1
    assert command != "models" or "fashion_mnist/standard" in out


def test_a_broken_card_that_all_models_include_is_one_of_the_failures(
    bench: Bench, tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy
) -> None:
    (model_copy.folder / "card.toml").write_text("")
    models = ("--model", "cop*", "--model", "standard")
    code, out, err = bench("run", *models, "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert code == 2 and "fashion_mnist/standard under tiny" in out and "Mend this card" in err


@pytest.mark.parametrize(("factory", "suite"), [("make", "tiny"), ("broken", "")])
@pytest.mark.parametrize("command", ["run", "check"])
def test_the_only_model_that_fails_is_in_the_json_document(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path, command: str, factory: str, suite: str
) -> None:
    models = ("--model", f"{flaky}:{factory}", "--suite", tiny_suite)
    more = ("--update", "--baseline", tmp_path / "base") if command == "check" else ()
    code, out, err = bench(command, *models, "--leaderboard", tmp_path / "board", "--json", *more)
    document = json.loads(out)
    (told,) = document["failures"]
    assert code == 2 and told["suite"] == suite and told["reason"] in err
    assert not document["runs" if command == "run" else "verdicts"]


def test_a_model_that_cannot_be_built_or_loaded_fails_alone(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path, model_copy: ModelCopy
) -> None:
    model_copy.weights.write_bytes(b"damaged")
    models = ("--model", f"{flaky}:broken", "--model", "copy", "--model", "standard")
    code, out, err = bench("run", *models, "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert code == 2 and "fashion_mnist/standard under tiny" in out
    assert err.count("failed ") >= 2 and "cannot be built" in err and "error: 2 failed, 1 runs are done." in err


def test_why_all_models_failed_is_told_where_their_images_were_to_be_kept(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path, model_copy: ModelCopy
) -> None:
    model_copy.weights.write_bytes(b"damaged")
    models = ("--model", f"{flaky}:broken", "--model", "copy", "--save-adversarial")
    code, _, err = bench("run", *models, "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert code == 2 and "cannot be built" in err and "error: 2 failed, 0 runs are done." in err, err


def test_a_model_that_fails_alone_is_told_in_one_line(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path
) -> None:
    code, out, err = bench("run", "--model", f"{flaky}:make", "--suite", tiny_suite, "--leaderboard", tmp_path / "b")
    assert code == 2 and out == "" and "failed fashion" not in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1


def test_a_wrong_name_is_refused_before_anything_runs(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    models = ("--model", "standart", "--model", "standard")
    code, out, err = bench("run", *models, "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert code == 2 and out == "" and "did you mean standard" in err


def test_check_writes_junit_with_an_error_element_where_a_model_cannot_be_run(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path, model_copy: ModelCopy
) -> None:
    junit = tmp_path / "junit.xml"
    write_card(model_copy.folder, read_card(model_copy.folder).model_copy(update={"id": "copy"}))
    arguments = ("check", "--model", f"{flaky}:make", "--model", "copy", "--suite", tiny_suite)
    code, _, err = bench(*arguments, "--baseline", tmp_path / "none", "--junit", junit)
    assert code == 2 and "--update" in err and "--baseline" in err
    assert "there is no baseline" in str(ElementTree.parse(junit).find("testcase/error").get("message"))  # type: ignore[union-attr]
    code, out, _ = bench(*arguments, "--baseline", tmp_path / "board", "--update", "--junit", junit)
    root = ElementTree.parse(junit).getroot()
    assert code == 2 and root.get("errors") == "1" and root.get("tests") == "2"
    assert "no luck today" in str(root.find("testcase/error").get("message"))  # type: ignore[union-attr]
    numbers = [one.text or "" for one in root.findall("testcase/system-out")]
    assert len(numbers) == 1 and "clean accuracy 0." in numbers[0]
    assert "bench run" not in out


def test_check_tells_github_what_could_not_run_and_counts_runs_alone(
    bench: Bench, tmp_path: Path, tiny_suite: Path, flaky: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    board, model = tmp_path / "board", ("--model", f"{flaky}:make")
    arguments = ("check", "--suite", tiny_suite, "--examples", 4, "--baseline")
    code, out, _ = bench(*arguments, board, "--update", *model, "--model", "standard")
    assert code == 2 and f"baseline: {board} has 1 new run now" in out
    assert "::error title=fashion_mnist/flaky-make under tiny::" in out and "no luck today" in summary.read_text()
    assert "## bench check: 1 could not run\n" in summary.read_text()
    for tries, models in ((1, model), (2, (*model, "--model", f"{flaky}:broken"))):
        summary.unlink()
        code, out, _ = bench(*arguments, tmp_path / "new", "--update", *models)
        assert code == 2 and "has the new runs now" not in out and out.count("::error title=") == tries
        assert f"## bench check: {tries} could not run\n" in summary.read_text()
    rows = read_leaderboard(board).assign(model="flaky-make", run_id="run")  # and so standard is not compared
    append_rows(board, rows.to_dict("records"))  # type: ignore[arg-type]
    (board / "runs" / "run").mkdir()
    code, _, err = bench(*arguments, board, *model, "--model", f"{flaky}:broken")
    assert code == 2 and "error: 2 failed, 0 runs are done." in err, err


def test_an_error_of_our_own_is_no_verdict_and_stands_in_the_junit_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("bench.runs.plan.plan_runs", fail)
    junit, update = tmp_path / "junit.xml", ("--update", "--baseline", tmp_path / "board")
    code, _, err = bench("check", "--model", "standard", "--junit", junit, *update)
    assert code == 2 and "Traceback" in err and err.splitlines()[-1].startswith("error: RIBench itself has failed")
    error = ElementTree.parse(junit).find("testcase/error")
    assert error is not None and error.get("message") == "RuntimeError: a bug"


def test_a_suite_that_a_data_set_cannot_have_is_skipped_under_a_wildcard_and_refused_by_name(
    bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    folder = tmp_path / "suites"
    folder.mkdir()
    text = tiny_suite.read_text()
    (folder / "mine_a.toml").write_text(text.replace('name = "tiny"', 'name = "mine_a"'))
    other = text.replace('name = "tiny"', 'name = "mine_b"').replace("datasets.fashion_mnist", "datasets.mnist")
    (folder / "mine_b.toml").write_text(other)
    arguments = ("run", "--model", "standard", "--suite-path", folder, "--leaderboard", tmp_path / "board")
    code, out, err = bench(*arguments, "--suite", "mine_*")
    assert code == 0 and "under mine_a" in out and "note skipped mine_b on fashion_mnist: " in err
    code, out, err = bench(*arguments, "--suite", "mine_*", "--suite", "mine_b")
    assert code == 2 and out == "" and "mine_b" not in out and "fashion_mnist" in err


def test_a_masked_net_gives_exit_code_1_where_that_is_asked_for(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    suite = tmp_path / "probed.toml"
    suite.write_text(tiny_suite.read_text().replace("examples = ", "examples = 60 # "))
    program = tmp_path / "rounded.py"
    program.write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        torch.manual_seed(0)\n        self.layer = nn.Linear(784, 10)\n    def forward(self, images):\n"
        "        return self.layer((images.flatten(1) * 8).round() / 8)\ndef make():\n    return Net()\n"
    )
    arguments = ("run", "--model", f"{program}:make", "--suite", suite, "--leaderboard", tmp_path / "board")
    code, _, err = bench(*arguments, "--fail-on", "sad")
    assert code == 2 and "--fail-on" in err
    assert bench(*arguments)[0] == 0
    code, _, err = bench(*arguments, "--fresh", "--fail-on", "masked")
    assert code == 1 and "masked: fashion_mnist/rounded-make under tiny" in err, err
    code, out, err = bench(*arguments[:3], "--suite", "clean", *arguments[5:], "--fail-on", "masked")
    assert code == 2 and not out and "nothing in clean looks for gradient masking" in err
    code, out, err = bench(
        "check",
        *arguments[1:3],
        "--suite",
        "clean",
        "--fail-on",
        "suspicious",
        "--update",
        "--baseline",
        tmp_path / "no",
    )
    assert code == 2 and not out and "nothing in clean looks for gradient masking" in err
