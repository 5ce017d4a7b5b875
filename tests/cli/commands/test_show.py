from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from bench import evaluate, load_model
from tests.conftest import Bench


@pytest.fixture
def kept(bench: Bench, tmp_path: Path, tiny_suite: Path) -> Path:
    """The folder of a run that has kept its adversarial images."""
    board = tmp_path / "board"
    asked = ("run", "--model", "standard", "--suite", tiny_suite, "--examples", 13, "--leaderboard", board)
    assert bench(*asked, "--save-adversarial")[0] == 0
    (folder,) = (board / "runs").iterdir()
    return folder


def test_the_nearest_images_are_drawn_and_named_and_so_are_those_that_are_asked_for(
    bench: Bench, kept: Path, tmp_path: Path
) -> None:
    picture, board = tmp_path / "worst.png", kept.parent.parent
    shown = ("show", kept.name, "--leaderboard", board, "--output", picture)
    code, out, err = bench(*shown, "--worst", 2)
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith("  image")]
    assert [("L-inf" in line, "L2" in line) for line in lines] == [(True, False)] * 2 + [(False, True)] * 2
    assert out.rstrip().endswith(f"picture: {picture}")
    with Image.open(picture) as drawn:
        assert drawn.height > drawn.width, "four rows of three"
    code, out, _ = bench("show", kept, "--image", 3, "--output", tmp_path / "one.svg")
    assert code == 0 and out.count("image 3: Trouser, predicted Trouser, then") == 2
    assert "image 12 is misclassified as it is" in bench.refused(*shown, "--image", 12)
    assert "image 13 was not judged" in bench.refused(*shown, "--image", 13)
    assert "unknown run" in bench.refused("show", "nonsense", "--leaderboard", board)
    (kept / "adversarial.npz").write_bytes(b"another's")
    assert "not what the run wrote" in bench.refused(*shown)


def test_the_page_has_a_panel_of_them(bench: Bench, kept: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, _, err = bench(
        "report", "--leaderboard", kept.parent.parent, "--output", page, "--plain", "--images", 1, "--device", "cpu"
    )
    assert code == 0, err
    section = page.read_text().partition('<section id="adversarial"')[2].partition("</section>")[0]
    assert section.count("<figure") == 2 and section.count("data:image/png") == 6


def test_a_run_that_kept_none_says_how_to_keep_them(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from bench import load_model\n\n\ndef make():\n    return load_model('standard')\n"
    )
    board = tmp_path / "board"
    asked = ("run", "--model", f"{tmp_path}/net.py:make", "--suite", tiny_suite, "--examples", 2)
    asked += ("--precision", "bfloat16")
    assert bench(*asked, "--leaderboard", board)[0] == 0
    (folder,) = (board / "runs").iterdir()
    line = bench.refused("show", folder, "--output", tmp_path / "x.png")
    assert "bench run --model net.py:make --suite tiny.toml --examples 2 --leaderboard" in line
    assert "--precision bfloat16 --dataset fashion_mnist --save-adversarial keeps them" in line


def test_a_run_of_a_net_in_memory_that_kept_none_names_no_model(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    evaluate(load_model("standard"), tiny_suite, examples=2, model_id="mine", leaderboard=tmp_path, device="cpu")
    (folder,) = (tmp_path / "runs").iterdir()
    line = bench.refused("show", folder, "--output", tmp_path / "x.png")
    assert "call bench.evaluate again with save_adversarial=True" in line and "mine" not in line.replace(
        folder.name, ""
    )
