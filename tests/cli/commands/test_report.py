from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bench.leaderboard.table import read_leaderboard
from tests.conftest import Bench
from tests.reporting.page.pages import add_run, metric, parse, robustness, unpack_all

QUICK = ("--suite", "cross_norm_quick", "--examples", 8)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    add_run(tmp_path / "board", "alpha", [metric("clean_accuracy", 0.9)], manifest={"suite": {}})
    return tmp_path / "board"


def test_a_page_of_real_runs_has_panels_cards_and_commands_that_repeat_its_numbers(
    bench: Bench, tmp_path: Path
) -> None:
    folder, output = tmp_path / "board", tmp_path / "sub" / "page.html"
    assert bench("run", "--model", "standard", "--model", "at_linf", *QUICK, "--leaderboard", folder)[0] == 0
    code, out, _ = bench("report", "--leaderboard", folder, "--output", output, "--images", 2)
    assert code == 0
    assert f"{output}: 2 models, 2 runs" in out
    page = parse(unpack_all(output.read_text()))
    assert len(page.with_class("strip")) == 4 and len(page.find("img")) == 16
    assert all(image.attributes["alt"] for image in page.find("img"))
    table = next(node for node in page.with_class("board") if "cross_norm" in node.text).find("table")[0]
    headers = [node.text for node in table.find("thead")[0].find("th")]
    ranks = {
        row.attributes["data-model"]: row.find("td")[headers.index("rank") - 1].text for row in table.find("tr")[1:]
    }
    assert ranks == {"fashion_mnist/at_linf": "1", "fashion_mnist/standard": "1"}  # 8 images separate nothing
    captions = {node.find("figcaption")[0].text for node in page.with_class("panel")}
    assert {"Robust accuracy in L1", "Worst over all norms", "Gradient cosine, noise 8/255"} <= captions
    (model,) = [node for node in page.with_class("model") if node.attributes["data-model"] == "fashion_mnist/at_linf"]
    assert "436,202" in model.text and "recipe" in model.text
    (command,) = [shlex.split(node.text) for node in model.find("code") if node.text.startswith("bench run")]
    assert bench(*command[1:], "--leaderboard", tmp_path / "again")[0] == 0
    first, again = read_leaderboard(folder), read_leaderboard(tmp_path / "again")
    first = first[first["model"] == "at_linf"].reset_index(drop=True)
    for column in ("model", "metric", "norm", "eps", "value", "n_examples", "suite_sha256", "model_sha256"):
        assert first[column].equals(again[column]), column


def test_saliency_can_be_left_out_and_what_is_missing_is_said(bench: Bench, tmp_path: Path) -> None:
    add_run(tmp_path, "[alpha]", robustness(0.9, 0.5))
    output = tmp_path / "page.html"
    code, _, err = bench("report", "--leaderboard", tmp_path, "--output", output, "--no-saliency")
    assert code == 0 and "saliency panel" not in err
    code, _, err = bench("report", "--leaderboard", tmp_path, "--output", output)
    assert code == 0
    assert "no saliency panel of fashion_mnist/[alpha]: its weights are not in this registry" in err
    assert not parse(unpack_all(output.read_text())).with_class("gallery")


def test_a_registered_program_has_panels_a_readable_card_and_a_command_that_repeats_it(
    bench: Bench, tiny_suite: Path, tmp_path: Path
) -> None:
    program, folder, output = tmp_path / "net.py", tmp_path / "board", tmp_path / "page.html"
    program.write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(1)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))\n"
    )
    own = ("--model-id", "mine", "--mean", "0.286", "--std", "0.353", "--registry", tmp_path / "zoo")
    assert bench("models", "add", f"{program}:make", *own, "--examples", 20)[0] == 0
    named = ("--model", "mine", "--registry", tmp_path / "zoo", "--program", program)
    assert bench("run", *named, "--suite", tiny_suite, "--examples", 4, "--leaderboard", folder)[0] == 0
    report = ("report", "--leaderboard", folder, "--registry", tmp_path / "zoo", "--output", output, "--images", 1)
    assert "mine: it needs net.py; name that file as the program if you trust it" in bench(*report)[2]
    refused = bench.refused(*report, "--program", tiny_suite)
    assert f"{tiny_suite} is not the program that the model's card names" in refused and "(--program)" in refused
    code, _, err = bench(*report, "--program", program)
    assert code == 0 and "no saliency panel" not in err
    page = parse(unpack_all(output.read_text()))
    assert len(page.with_class("strip")) == 1
    (model,) = page.with_class("model")
    assert "net.py, function make (python)" in model.text and "mean 0.286, std 0.353" in model.text
    assert "{" not in model.text
    (command,) = [shlex.split(node.text) for node in model.find("code") if node.text.startswith("bench run")]
    # no page tells where on this machine they lay
    assert command[4:8] == ["--program", "net.py", "--registry", "zoo"]
    for option, path in {"--program": program, "--registry": tmp_path / "zoo", "--suite": tiny_suite}.items():
        command[command.index(option) + 1] = str(path)
    assert bench(*command[1:], "--leaderboard", tmp_path / "again")[0] == 0
    assert read_leaderboard(folder)["value"].equals(read_leaderboard(tmp_path / "again")["value"])


def test_only_what_was_asked_for_is_shown(bench: Bench, tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", [metric("clean_accuracy", 0.9)], suite_name="one")
    add_run(tmp_path, "beta", [metric("clean_accuracy", 0.8)], suite_name="two")
    output = tmp_path / "page.html"
    arguments = ("report", "--leaderboard", tmp_path, "--output", output, "--suite", "two", "--title", "Only two")
    assert bench(*arguments, "--no-saliency")[0] == 0
    page = parse(unpack_all(output.read_text()))
    assert [node.attributes["data-model"] for node in page.with_class("model")] == ["fashion_mnist/beta"]
    assert page.find("h1")[0].text == "Only two"


def test_a_plain_page_says_the_same_without_being_unpacked(bench: Bench, tmp_path: Path) -> None:
    add_run(tmp_path, "alpha", robustness(0.9, 0.5))
    pages = {}
    for form in ("--packed", "--plain"):
        output = tmp_path / f"page{form}.html"
        assert bench("report", "--leaderboard", tmp_path, "--output", output, "--no-saliency", form)[0] == 0
        pages[form] = output.read_text()
    assert "All 7 numbers" in pages["--plain"] and "All 7 numbers" not in pages["--packed"]
    assert parse(pages["--plain"]).find("main")[0].text == parse(unpack_all(pages["--packed"])).find("main")[0].text


BAD = {
    "another kind of file": (["--output", "page.pdf"], "must end in .html"),
    "a folder": (["--output", "folder.html"], "is a folder; name a file in it"),
    "a file where a folder is needed": (["--output", "file/page.html"], "a file stands where a folder is needed"),
    "no leaderboard": (["--leaderboard", "nowhere"], "make one with `bench run`"),
    "an unknown data set": (
        ["--dataset", "fashion_mnst"],
        "unknown data set 'fashion_mnst'; did you mean fashion_mnist",
    ),
    "an unknown suite": (["--suite", "cros_norm"], "unknown suite 'cros_norm'; did you mean cross_norm"),
    "a negative number of images": (["--images", "-1"], "-1 is not a number of images; use 0 or more (--images)."),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_writes_no_page(
    bench: Bench, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    arguments, line = BAD[case]
    given = {"--leaderboard": str(board), "--output": "page.html"}
    given.update(zip(arguments[::2], arguments[1::2], strict=True))
    assert line in bench.refused("report", *[part for pair in given.items() for part in pair])
    assert not [path for path in tmp_path.rglob("*.html") if path.is_file()]


def test_an_empty_leaderboard_is_refused(bench: Bench, board: Path, tmp_path: Path) -> None:
    path = board / "leaderboard.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    for command, name in (("report", "page.html"), ("plot robustness", "plot.svg"), ("leaderboard", "")):
        output = ("--output", tmp_path / name) if name else ()
        line = bench.refused(*command.split(), "--leaderboard", board, *output)
        assert "has no rows yet; make some with `bench run`." in line


def test_a_verdict_that_cannot_be_read_is_refused_and_the_old_page_kept(
    bench: Bench, board: Path, tmp_path: Path
) -> None:
    verdict = board / "studies" / "lga" / "verdict.md"
    verdict.parent.mkdir(parents=True)
    verdict.write_bytes(b"\xff\xfe\x00")
    output = tmp_path / "page.html"
    output.write_text("the old page")
    assert "cannot read the verdict" in bench.refused("report", "--leaderboard", board, "--output", output)
    assert output.read_text() == "the old page"
