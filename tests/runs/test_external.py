from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from bench.attacks.verification import AttackResults
from bench.catalog.cards import read_card
from bench.core.threat import NORMS
from bench.data import ImageDataset
from bench.leaderboard.evidence.adversarial import read_images, read_own
from bench.leaderboard.evidence.manifest import read_evidence
from bench.leaderboard.evidence.records import ROBUSTNESS_COLUMNS
from bench.leaderboard.prune import superseded_runs
from bench.runs.external_records import with_external_rows
from tests.conftest import TINY_SUITE, Bench, ModelCopy

WEAK = TINY_SUITE.replace("steps = 5", "steps = 1").replace('"tiny"', '"weak"')
"""One step, which leaves images of `at_linf` standing that more steps break."""


@pytest.fixture
def weak(bench: Bench, tmp_path: Path) -> Path:
    """A suite too weak for `at_linf`, under which the board has a run of 12 images."""
    path = tmp_path / "weak.toml"
    path.write_text(WEAK.replace("0.1", "0.18").replace("1.5", "2.0"))
    judged(bench, tmp_path, path, "board", 12)
    return path


def judged(bench: Bench, tmp_path: Path, suite: Path, board: str, examples: int, *more: str) -> None:
    asked = ("run", "--model", "at_linf", "--suite", suite, "--examples", examples, "--leaderboard", tmp_path / board)
    code, _, err = bench(*asked, *more)
    assert code == 0, err


def stored(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "theirs.npz"
    np.savez_compressed(path, **arrays)
    return path


def along_gradient(data: ImageDataset, count: int, eps: float) -> np.ndarray[Any, Any]:
    """Steps along the sign of a gradient: strong enough for a net without a defence."""
    from bench.api import attack, load_model

    found = attack(load_model("at_linf"), data.pixels(slice(0, count)), data.labels[:count], norm="linf", eps=eps)
    return found.images.numpy()


def asked(tmp_path: Path, suite: Path, file: Path, *more: object) -> tuple[object, ...]:
    return "verify", file, "--model", "at_linf", "--suite", suite, "--leaderboard", tmp_path / "board", *more


def test_what_holds_lowers_the_rows_and_what_does_not_is_counted_by_reason(
    bench: Bench, tmp_path: Path, weak: Path, fashion_test: ImageDataset
) -> None:
    images = along_gradient(fashion_test, 14, 0.18)
    images[1] = fashion_test.pixels(slice(1, 2))[0]  # classified right
    images[2] = 1 - images[2]  # far outside of every ball
    images[3, 0, 0, 0] = 1.5
    file = stored(tmp_path, images=images, ids=np.arange(14), data_sha256=fashion_test.sha256)
    before = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    code, out, err = bench(*asked(tmp_path, weak, file, "--name", "pgd"))
    assert code == 0, err
    for line in (
        "2 not counted: of images that the run did not judge", "1 not counted: pixels outside [0, 1]",
        "1 not counted: classified right by the model", "1 not counted: outside every ball of the suite",
    ):  # fmt: skip
        assert line in out, out
    (kept,) = (tmp_path / "board").rglob("adversarial.npz")
    assert "linf" in set(read_own(kept).norms) <= {"linf", "l2"}
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    pd.testing.assert_frame_equal(rows.iloc[: len(before)], before)
    ours, theirs = (
        rows[rows["attack"] == name].set_index(["metric", "norm", "eps"]) for name in ("sweep", "external:pgd")
    )
    values = ours[~ours.index.duplicated()]["value"]
    assert (theirs["value"] <= values.reindex(theirs.index)).all()
    place = ("robust_accuracy", "linf", 0.18)
    assert theirs.loc[place, "value"] < values.loc[place]
    assert "best known" in (table := bench("leaderboard", "--leaderboard", tmp_path / "board", "--wide")[1])
    assert "external:pgd" in table
    assert "external:pgd" in bench("leaderboard", "--leaderboard", tmp_path / "board", "--by", "method", "--wide")[1]
    code, out, err = bench("compare", "at_linf", "at_linf", "--leaderboard", tmp_path / "board")
    assert "external" not in out + err and out.count("union ") == 2, "models are compared under the suite's own attacks"
    assert code == 0, err


def test_a_row_stays_lowered_whatever_is_run_or_pruned_or_brought_later(
    bench: Bench, tmp_path: Path, weak: Path, fashion_test: ImageDataset
) -> None:
    def shown() -> str:
        lines = bench("leaderboard", "--leaderboard", tmp_path / "board", "--format", "csv")[1].splitlines()
        cells = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
        return f"{cells['best known']} {cells['L-inf 0.18']}"

    file = stored(tmp_path, images=along_gradient(fashion_test, 12, 0.18), ids=np.arange(12))
    assert bench(*asked(tmp_path, weak, file))[0] == 0
    lowered = shown()
    assert lowered.startswith("external:theirs")
    again = bench(*asked(tmp_path, weak, file, "--name", "again"))[1]
    assert "no number fell: these images had been broken already" in again, "what had fallen does not fall again"
    clean = stored(tmp_path, images=fashion_test.pixels(slice(0, 12)).numpy(), ids=np.arange(12))
    assert "no number fell: none of" in bench(*asked(tmp_path, weak, clean))[1], "nor by images that hold nowhere"
    assert shown() == lowered, "images that hold nowhere take nothing back"
    judged(bench, tmp_path, weak, "board", 12, "--fresh")
    assert shown() == lowered
    named = {run.run_id for run in superseded_runs(tmp_path / "board")}
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert named.isdisjoint(rows.loc[rows["attack"].astype(str).str.startswith("external:"), "run_id"])


def test_the_file_that_a_run_keeps_is_one_that_verify_reads(bench: Bench, tmp_path: Path, weak: Path) -> None:
    strong = tmp_path / "strong.toml"
    strong.write_text(weak.read_text().replace("steps = 1", "steps = 12").replace('"weak"', '"strong"'))
    judged(bench, tmp_path, strong, "strong", 12, "--save-adversarial")
    (folder,) = (tmp_path / "strong" / "runs").iterdir()
    code, out, err = bench(*asked(tmp_path, weak, folder / "adversarial.npz"))
    assert code == 0 and "not counted" not in out, (out, err)
    runs = sorted((tmp_path / "board" / "runs").iterdir(), key=lambda path: (path / "adversarial.npz").exists())
    lowered, theirs = read_evidence(runs[-1])[1], read_evidence(folder)[1]
    mine = lowered[lowered["attack"] == "external:adversarial"].set_index(["example_id", "norm", "eps"])["broken"]
    assert (mine >= theirs.set_index(["example_id", "norm", "eps"])["broken"].reindex(mine.index)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": np.zeros((2, 1, 28, 27), np.float32)}, "needs (n, 1, 28, 28)"),
        ({"images": np.zeros((0, 1, 28, 28), np.float32), "ids": np.zeros(0, np.int64)}, "holds no images"),
        ({"images": np.zeros((2, 1, 28, 28), np.uint8)}, "are bytes"),
        ({"images": np.full((2, 1, 28, 28), np.nan, np.float32)}, "NaN"),
        ({"images": np.full((2, 1, 28, 28), 255.0, np.float32)}, "pixels up to 255"),
        ({"ids": np.array([0, 10_000])}, "id 10000 in"),
        ({"ids": np.array([-1, 1])}, "id -1 in"),
        ({"ids": np.array([3, 3])}, "id 3 comes twice"),
        ({"ids": np.array([0.0, 1.0])}, "whole numbers"),
        ({"ids": np.array([0])}, "2 images, 1 ids"),
        ({"norms": np.array(["linf", "l7"])}, "l7"),
        ({"data_sha256": "0" * 64}, "of other images"),
        ({"ids": None}, "no array `ids`"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_line(
    bench: Bench, tmp_path: Path, tiny_suite: Path, change: dict[str, Any], said: str
) -> None:
    good = {"images": np.zeros((2, 1, 28, 28), np.float32), "ids": np.array([0, 1])}
    arrays = {name: value for name, value in (good | change).items() if value is not None}
    assert said in bench.refused(*asked(tmp_path, tiny_suite, stored(tmp_path, **arrays)))


def test_two_files_are_not_entered_at_the_same_time(bench: Bench, tmp_path: Path, weak: Path) -> None:
    file = stored(tmp_path, images=np.zeros((1, 1, 28, 28), np.float32), ids=np.array([0]))
    with FileLock(tmp_path / "board" / ".verify.lock"):
        assert "another bench verify is at work" in bench.refused(*asked(tmp_path, weak, file))


def test_without_a_run_to_lower_nothing_is_written(
    bench: Bench, tmp_path: Path, weak: Path, model_copy: ModelCopy
) -> None:
    file = stored(tmp_path, images=np.zeros((1, 1, 28, 28), np.float32), ids=np.array([0]))
    before = sorted((tmp_path / "board").rglob("*"))
    line = bench.refused("verify", file, "--model", "copy", "--suite", weak, "--leaderboard", tmp_path / "board")
    assert "there is no finished run of these weights" in line
    assert sorted((tmp_path / "board").rglob("*")) == before
    assert model_copy.folder.is_dir() and torch.is_grad_enabled()


def test_images_lower_no_rows_of_another_net_of_the_same_weights(
    bench: Bench, tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy
) -> None:
    board = ("--leaderboard", tmp_path / "board")
    asked = ("--model", "copy", "--suite", tiny_suite, *board, "--examples", 12)
    images = np.zeros((12, 1, 28, 28), np.float32)
    tiny_suite.write_text(TINY_SUITE.replace("0.1", "1.0"))  # a ball that every image lies in
    assert bench("run", *asked)[0] == 0
    assert bench("verify", stored(tmp_path, images=images, ids=np.arange(12)), *asked)[0] == 0
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    theirs = rows["attack"].astype(str).str.startswith("external:")
    rows.loc[theirs, "value"] = -1.0
    rows.to_csv(tmp_path / "board" / "leaderboard.csv", index=False)
    assert "external:theirs" in bench("leaderboard", *board, "--wide")[1]
    parameters = read_card(model_copy.folder).architecture_parameters
    model_copy.rewrite_card(architecture_parameters={**parameters, "activation": "softplus", "softplus_beta": 1.0})
    line = bench.refused("verify", stored(tmp_path, images=images, ids=np.arange(12)), *asked)
    assert "there is no finished run of these weights" in line
    assert bench("run", *asked)[0] == 0
    assert "external:theirs" not in bench("leaderboard", *board, "--wide")[1], "the row is the other net's"
    page = tmp_path / "page.html"
    assert bench("report", *board, "--output", page, "--plain")[0] == 0
    assert "external:theirs" not in page.read_text().split("<h2", 2)[1]
    lowered = set(rows.loc[theirs, "run_id"])
    assert {run.by for run in superseded_runs(tmp_path / "board")} == lowered, "the other net's run repeats none"


def test_in_l0_images_count_up_to_the_largest_number_of_pixels_and_runs_of_another_seed_stay(
    bench: Bench, tmp_path: Path, fashion_test: ImageDataset
) -> None:
    suite = tmp_path / "pixels.toml"
    suite.write_text(
        TINY_SUITE.replace("[[parameters", "[parameters]\nzero_norm_steps = 1\n\n[[parameters", 1)
        + "pixels = [3, 900]\n"
    )
    judged(bench, tmp_path, suite, "board", 4)
    judged(bench, tmp_path, suite, "board", 4, "--seed", "1")
    file = stored(tmp_path, images=1 - fashion_test.pixels(slice(0, 4)).numpy(), ids=np.arange(4))
    code, out, err = bench(*asked(tmp_path, suite, file))
    assert code == 0 and "4 of 4 images fool the model inside a ball of the suite, 4 of them also" in out, (out, err)
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert set(rows.loc[rows["attack"] == "external:theirs", "seed"]) == {0}, "of the seed that was asked for"
    suite.write_text(suite.read_text().replace("900", "700"))
    judged(bench, tmp_path, suite, "board", 4)
    code, out, err = bench(*asked(tmp_path, suite, file))
    assert code == 0 and "4 not counted: outside every ball of the suite" in out, (out, err)
    assert "no number fell: none of the images counts" in out
    assert len(list((tmp_path / "board").rglob("adversarial.npz"))) == 1, "only where an image holds"
    line = bench.refused(*asked(tmp_path, suite, file, "--seed", 7, "--examples", 3))
    assert f"bench run --model fashion_mnist/at_linf --suite {suite} --examples 3 --seed 7 --leaderboard" in line


def test_the_run_of_the_suites_own_number_of_images_is_lowered_else_that_on_most_and_none_where_nothing_holds(
    bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    for examples in (3, 2):
        judged(bench, tmp_path, tiny_suite, "board", examples)
    file = stored(tmp_path, images=np.zeros((1, 1, 28, 28), np.float32), ids=np.array([0]))
    assert ", 3 images" in bench(*asked(tmp_path, tiny_suite, file))[1]
    assert ", 2 images" in bench(*asked(tmp_path, tiny_suite, file, "--examples", 2))[1]
    tiny_suite.write_text(tiny_suite.read_text().replace("examples = 20", "examples = 2"))
    judged(bench, tmp_path, tiny_suite, "own", 2)
    judged(bench, tmp_path, tiny_suite, "own", 3)
    own = bench(*asked(tmp_path, tiny_suite, file, "--leaderboard", tmp_path / "own"))[1]
    assert ", 2 images" in own and "evidence" not in own
    assert len(list(tmp_path.glob("*/runs/*"))) == 4, "nothing is entered where nothing holds"


def test_norms_that_were_cut_to_two_letters_are_read_as_what_they_were(
    tmp_path: Path, fashion_test: ImageDataset
) -> None:
    found = {"images": np.zeros((2, 1, 28, 28), np.float32), "ids": np.array([0, 1]), "norms": np.array(["li", "l2"])}
    file = stored(tmp_path, **found, predictions=np.array([1, 2]))
    assert read_own(file).norms.tolist() == read_images(file, fashion_test).norms.tolist() == ["linf", "l2"]


def test_medians_and_unions_fall_too() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    results = AttackResults.start(torch.tensor([0, 0, 1]), labels)
    found = {norm: torch.tensor([0.2], dtype=torch.float64) for norm in NORMS}
    results.record(torch.tensor([0]), "linf", found, torch.tensor([4]))
    shared = {"example_id": [0, 1, 2], "label": 0, "prediction": [0, 0, 1], "attack": "own"}
    fewest = torch.tensor([7.0, torch.inf, torch.inf], dtype=torch.float64)
    distances = pd.DataFrame({**shared, "norm": "linf", "distance": [0.5, np.inf, 0.0]})
    values = distances.assign(norm="l0", distance=[3.0, np.inf, 0.0])
    made = with_external_rows(pd.concat([distances, values]), results, fewest, "external:x", radii={"linf": [0.3]})
    rows = made[made["attack"] == "external:x"].set_index(["norm", "example_id"])["distance"]
    assert rows["linf"].tolist() == [0.2, np.inf, 0.0] and rows["l0"].tolist() == [3.0, np.inf, 0.0]

    union = pd.DataFrame({**shared, "norm": "all", "eps": np.nan, "broken": [False, False, True], "distance": np.nan})
    union = union.assign(adversarial_prediction=[-1, -1, 1], found_in_norm="").astype(ROBUSTNESS_COLUMNS)
    made = with_external_rows(union, results, fewest, "external:x", radii={"linf": [0.3]})
    rows = made[made["attack"] == "external:x"].set_index("example_id")
    assert rows["broken"].tolist() == [True, False, True] and rows["found_in_norm"].tolist() == ["linf", "", ""]
    assert rows["adversarial_prediction"].tolist() == [4, -1, 1]
