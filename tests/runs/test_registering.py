"""`bench models add` and `verify`, and runs of what was added."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.catalog.cards import read_card
from bench.catalog.locations import shipped
from bench.core.files import sha256_file
from bench.leaderboard.table import read_leaderboard
from tests.conftest import Bench, ModelCopy

WEIGHTS = shipped("models") / "fashion_mnist" / "standard" / "weights.safetensors"
FACTORY = """
from pathlib import Path
from bench.nets import build_net

Path(__file__).with_name("ran").touch()

def make():
    parameters = dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353])
    return build_net("small_cnn", parameters)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(FACTORY)
    return tmp_path / "net.py"


@pytest.fixture
def added(bench: Bench, tmp_path: Path, code: Path) -> Path:
    registry = tmp_path / "mine"
    code_out = bench(
        "models", "add", f"{code}:make", "--weights", WEIGHTS, "--registry", registry, "--model-id", "mine",
        "--method", "by me", "--examples", 500,
    )  # fmt: skip
    assert code_out[0] == 0, code_out[2]
    code.with_name("ran").unlink()
    return registry


def test_an_added_model_has_a_card_and_verifies(bench: Bench, added: Path, code: Path, tmp_path: Path) -> None:
    card = read_card(added / "fashion_mnist" / "mine")
    assert card.weights.sha256 == sha256_file(added / "fashion_mnist" / "mine" / "weights.safetensors")
    assert card.weights.parameters == 436_202
    assert (card.method, card.accuracy.test_examples) == ("by me", 500)
    assert 0.88 < (card.accuracy.test or 0) < 0.95
    verify = ("models", "verify", "mine", "--registry", added, "--examples", 500)
    status, out, _ = bench(*verify, "--program", code)
    assert status == 0 and "1 right" in out
    status, out, _ = bench(*verify)
    assert status == 0 and "1 not checked" in out and "name that file if you trust it" in out


def test_a_card_of_few_images_is_right_and_a_bad_method_is_refused(bench: Bench, code: Path, tmp_path: Path) -> None:
    own = ("models", "add", f"{code}:make", "--weights", WEIGHTS, "--registry", tmp_path / "few")
    for count in (12, 40):
        assert bench(*own, "--model-id", f"net{count}", "--examples", count)[0] == 0
    card = tmp_path / "few" / "fashion_mnist" / "net12" / "card.toml"
    card.write_text(re.sub(r"test = [\d.]+", "test = 0.7", card.read_text()))  # 19 points off, of 12 images
    status, out, _ = bench("models", "verify", "net*", "--registry", tmp_path / "few", "--program", code)
    assert status == 0 and "2 right" in out
    assert "method" in bench.refused(*own, "--model-id", "other", "--method", "a\nb")
    assert not (tmp_path / "few" / "fashion_mnist" / "other").exists()


def test_of_several_programs_each_card_gets_its_own(bench: Bench, added: Path, code: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.py"
    second.write_text(FACTORY + "\n# another file\n")
    own = ("--weights", WEIGHTS, "--registry", added, "--model-id", "second", "--examples", 20)
    assert bench("models", "add", f"{second}:make", *own)[0] == 0
    verify = ("models", "verify", "--registry", added, "mine", "second", "--examples", 20)
    second.rename(tmp_path / "renamed.py")  # a card knows its program by digest
    status, out, _ = bench(*verify, "--program", code, "--program", tmp_path / "renamed.py")
    assert status == 0 and "2 right" in out
    status, out, _ = bench(*verify, "--program", tmp_path / "renamed.py")
    assert status == 0 and "1 right, 1 not checked" in out


def test_a_card_never_runs_a_program_that_the_user_has_not_named(
    bench: Bench, added: Path, code: Path, tmp_path: Path, tiny_suite: Path
) -> None:
    ran = code.with_name("ran")
    board = tmp_path / "board"
    run = ("run", "--registry", added, "--model", "mine", "--suite", tiny_suite, "--leaderboard", board)
    assert "needs net.py, a program (python)" in bench.refused(*run)
    bench("models", "--registry", added)
    bench("models", "verify", "--registry", added, "mine")
    assert not ran.exists() and not board.exists()
    status, _, err = bench(*run, "--program", code)
    assert status == 0, err
    assert ran.exists()
    row = read_leaderboard(board).iloc[0]
    assert row["model_sha256"] == read_card(added / "fashion_mnist" / "mine").weights.sha256[:16]


def test_another_program_than_the_cards_is_refused_before_it_runs(
    bench: Bench, added: Path, code: Path, tmp_path: Path, tiny_suite: Path
) -> None:
    code.write_text(FACTORY + "\n# changed\n")
    run = ("run", "--registry", added, "--model", "mine", "--suite", tiny_suite, "--leaderboard", tmp_path / "b")
    assert "is not the program that the model's card names" in bench.refused(*run, "--program", code)
    assert not code.with_name("ran").exists()


def test_a_program_for_models_that_need_none_is_refused(bench: Bench, code: Path, tiny_suite: Path) -> None:
    run = ("run", "--model", "standard", "--suite", tiny_suite, "--program", code)
    assert "none of these has one" in bench.refused(*run)


ATTACK = "def still(model, images, labels, *, eps):\n    return images\n"
OWN_SUITE = """schema_version = 1
name = "own"
version = 1
protocol = "robustness"
examples = 5
[[parameters.attacks]]
attack = "my_attack.py:still"
norms = ["linf"]
[parameters.datasets.fashion_mnist]
reference = { linf = 0.1 }
radii = { linf = [0.1] }
"""


def test_a_model_and_an_attack_of_ones_own_are_judged_together_each_file_by_its_name(
    bench: Bench, added: Path, code: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(OWN_SUITE)
    (tmp_path / "my_attack.py").write_text(ATTACK)
    own = ("--model", "mine", "--registry", added, "--suite", tmp_path / "own.toml")
    files, board = ("--program", tmp_path / "my_attack.py", "--program", code), tmp_path / "board"
    status, _, err = bench("run", *own, *files, "--leaderboard", board)
    assert status == 0, err
    (manifest,) = board.glob("runs/*/manifest.json")
    assert json.loads(manifest.read_text())["request"]["named"]["program"] == ["my_attack.py", "net.py"]
    assert bench("check", *own, *files, "--baseline", board, "--time-factor", 0)[0] == 0
    assert "my_attack.py:still is code of a file" in bench.refused("run", *own, "--program", code)
    (tmp_path / "idle.py").touch()
    assert "idle.py is the program of none of these models, and no suite asks for it (--program)" in bench.refused(
        "run", *own, *files, "--program", tmp_path / "idle.py"
    )
    assert "two of these have one" in bench.refused("run", *own, *files, "--program", tmp_path / "elsewhere" / "net.py")


def test_a_zoos_net_joins_the_registry_and_needs_no_program(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=10)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    registry = tmp_path / "mine"
    status, out, err = bench(
        "models", "add", "timm:test_resnet", "--weights", tmp_path / "w.safetensors", "--registry", registry,
        "--input-size", 32, "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--examples", 50,
    )  # fmt: skip
    assert status == 0, err
    status, out, _ = bench(
        "models", "verify", "fashion_mnist/timm-test_resnet", "--registry", registry, "--examples", 50
    )
    assert status == 0 and "1 right" in out
    run = ("--registry", registry, "--model", "timm-test_resnet", "--suite", tiny_suite, "--examples", 4)
    assert bench("run", *run, "--leaderboard", tmp_path / "board")[0] == 0


def test_verify_finds_what_is_wrong_and_goes_on(bench: Bench, model_copy: ModelCopy, tmp_path: Path) -> None:
    import shutil

    for name in ("lies", "damaged", "unreadable"):
        shutil.copytree(model_copy.folder, model_copy.folder.parent / name)
    folder = model_copy.folder.parent
    card = (folder / "copy" / "card.toml").read_text()
    (folder / "lies" / "card.toml").write_text(
        card.replace('id = "copy"', 'id = "lies"').replace("test = 0.9", "test = 0.6")
    )
    (folder / "damaged" / "card.toml").write_text(card.replace('id = "copy"', 'id = "damaged"'))
    weights = folder / "damaged" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    (folder / "unreadable" / "card.toml").write_text("id = [")
    status, out, _ = bench("models", "verify", "--examples", 150)
    found = {line.split()[0]: line for line in out.splitlines() if line.strip().startswith("fashion_mnist/")}
    assert status == 1
    assert "wrong" in found["fashion_mnist/lies"] and "card says 6" in found["fashion_mnist/lies"]
    assert "wrong" in found["fashion_mnist/damaged"] and "wrong" in found["fashion_mnist/unreadable"]
    assert "right" in found["fashion_mnist/copy"] and "right" in found["fashion_mnist/standard"]
    assert "3 wrong" in out


def test_a_taken_name_is_refused_and_nothing_is_written(bench: Bench, added: Path, code: Path) -> None:
    before = sorted(added.rglob("*"))
    add = ("models", "add", f"{code}:make", "--weights", WEIGHTS, "--registry", added, "--model-id", "mine")
    assert "exists already" in bench.refused(*add)
    assert "names no source" in bench.refused("models", "add", "standard", "--registry", added)
    assert sorted(added.rglob("*")) == before


def test_a_model_named_by_its_source_runs_without_a_registry(
    bench: Bench, code: Path, tmp_path: Path, tiny_suite: Path
) -> None:
    run = ("run", "--model", f"{code}:make", "--weights", WEIGHTS, "--suite", tiny_suite, "--leaderboard", tmp_path)
    status, _, err = bench(*run, "--model-id", "nameless")
    assert status == 0, err
    rows = read_leaderboard(tmp_path)
    assert set(rows["model"]) == {"nameless"} and set(rows["method"]) == {"external"}
    ours = bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path / "other")
    assert ours[0] == 0
    assert list(read_leaderboard(tmp_path / "other")["value"]) == list(rows["value"])
    assert "takes the place" not in bench(*run, "--model-id", "nameless")[2], "these are its own weights"
    net = shipped("models") / "fashion_mnist" / "lga" / "weights.safetensors"
    for name, told in (("nameless", True), ("another", False)):
        others = ("--model-id", name, "--suite", "clean", "--examples", 2, "--leaderboard", tmp_path)
        status, _, err = bench("run", "--model", f"{code}:make", "--weights", net, *others)
        said = f"fashion_mnist/{name} takes the place of a net of other weights"
        assert status == 0 and (said in " ".join(err.split())) == told


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [("--mean", "a,b", "is not a list of numbers"), ("--classes", "1,-2", "is not a list of outputs")],
)
def test_lists_of_numbers_are_read_strictly(
    bench: Bench, code: Path, tiny_suite: Path, option: str, value: str, line: str
) -> None:
    assert line in bench.refused("run", "--model", f"{code}:make", "--suite", tiny_suite, option, value)


def test_weights_that_link_out_of_their_folder_are_refused(
    bench: Bench, model_copy: ModelCopy, tmp_path: Path, tiny_suite: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.safetensors"
    model_copy.weights.rename(elsewhere)
    model_copy.weights.symlink_to(elsewhere)
    error = bench.refused("run", "--model", "copy", "--suite", tiny_suite, "--leaderboard", tmp_path / "b")
    assert "a link that leads out of the model's folder" in error
