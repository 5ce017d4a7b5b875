from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.catalog.locations import shipped
from bench.core.errors import BenchError
from bench.leaderboard.statistics.groups import sum_of_groups
from bench.leaderboard.table import read_leaderboard
from bench.studies.names import MetricName, expand
from bench.studies.study import find_study, read_study
from bench.studies.values import Values, groups_of
from tests.conftest import TINY_SUITE, Bench

ROOT = Path(__file__).parents[2]

STUDY = """
schema_version = 1
name = "tiny_study"
paper = "nobody's"
dataset = "fashion_mnist"
figures = ["robustness"]
differences = ["everything"]

[scales.quick]
models = ["standard", "at_linf", "nowhere"]
suites = { main = "SUITE", absent = "no_such_suite" }
seconds = { main = 3.0, absent = 1.0 }

[[experiments]]
what = "Table 1"
suites = ["main"]
models = ["at_*"]

[[experiments]]
what = "Table 2, no run of ours"

[[claims]]
id = "true"
headline = true
text = "Adversarial training helps."
published = "42"
statistic = "difference"
of = { suite = "main", metric = "robust_accuracy", attack = "sweep", norm = "linf", eps = 0.1 }
better = "at_linf"
worse = "standard"

[[claims]]
id = "false"
text = "It harms."
statistic = "difference"
of = { suite = "main", metric = "robust_accuracy", attack = "sweep", norm = "linf", eps = 0.1 }
better = "standard"
worse = "at_linf"

[[claims]]
id = "open"
text = "A model against itself."
ours = true
statistic = "difference"
of = { suite = "main", metric = "clean_accuracy" }
better = "standard"
worse = "standard"
margin = -0.0

[[claims]]
id = "no_model"
text = "Of a model that is not there."
statistic = "difference"
of = { suite = "main", metric = "clean_accuracy" }
better = "nowhere"
worse = "standard"

[[claims]]
id = "no_suite"
text = "Of a suite that is not there."
statistic = "ordering"
of = { suite = "absent", metric = "clean_accuracy" }
models = ["standard", "at_linf"]

[[claims]]
id = "few"
text = "A correlation of two models."
statistic = "correlation"
first = { suite = "main", metric = "clean_accuracy" }
second = { suite = "main", metric = "union_accuracy", attack = "sweep", norm = "all" }
models = ["standard", "at_linf", "nowhere"]
sign = "negative"

[[claims]]
id = "scaling"
text = "The L2 criterion shrinks with the last layer."
statistic = "scale_invariance"
model = "standard"
criterion = "l2"
factor = 0.5
expected = 0.25

[[claims]]
id = "wrong_scaling"
text = "The cosine criterion shrinks too."
statistic = "scale_invariance"
model = "standard"
criterion = "cosine"
factor = 0.5
expected = 0.25
"""


@pytest.fixture
def study(tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from bench.studies import computations as study_computations

    monkeypatch.setattr(study_computations, "EXAMPLES", 60)
    tiny_suite.write_text(TINY_SUITE.replace("examples = 20", "examples = 40"))
    path = tmp_path / "tiny_study.toml"
    path.write_text(STUDY.replace("SUITE", str(tiny_suite)))
    return path


def claims(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "claims.csv").open() as stream:
        return {row["claim"]: row for row in csv.DictReader(stream)}


def test_a_study_runs_judges_draws_and_is_not_done_twice(bench: Bench, study: Path, tmp_path: Path) -> None:
    board, folder = tmp_path / "board", tmp_path / "board" / "studies" / "tiny_study-quick"
    code, out, err = bench("reproduce", study, "--leaderboard", board, "--device", "cpu")
    assert code == 0, err
    assert "left out: model nowhere: not in the registry" in out
    assert "left out: suite no_such_suite: this version has none of that name" in out
    judged = claims(folder)
    assert {name: row["verdict"] for name, row in judged.items()} == {
        "true": "suggestive",  # one training seed a side
        "false": "undecided",  # of one seed a side, as well
        "open": "undecided",  # no difference at all is no sign of one, nor of none
        "no_model": "undecided",
        "no_suite": "undecided",
        "few": "undecided",
        "scaling": "passed",
        "wrong_scaling": "failed",
    }
    rows = read_leaderboard(board)
    robust = rows[(rows["metric"] == "robust_accuracy") & (rows["norm"] == "linf") & (rows["eps"] == 0.1)]
    values = robust.set_index("model")["value"]
    assert float(judged["true"]["effect"]) == pytest.approx(values["at_linf"] - values["standard"], abs=1e-4)
    assert float(judged["true"]["effect"]) == pytest.approx(-float(judged["false"]["effect"]))
    assert "40 images in pairs" in judged["true"]["n"]
    assert "nowhere" in judged["no_model"]["detail"] and "not in the registry" in judged["no_model"]["detail"]
    assert "this version has none of that name" in judged["no_suite"]["detail"]
    verdict = (folder / "verdict.md").read_text()
    assert "Repeat it with `bench reproduce tiny_study.toml --scale quick`" in verdict
    first = verdict.splitlines()[2]
    numbers = ", 95 % interval [{ci_low}, {ci_high}]; robust accuracy".format_map(judged["true"])
    assert first.startswith("1. Adversarial training helps. *Suggestive*: effect ") and numbers in first
    assert "\n2. " not in verdict and judged["true"]["headline"] == "yes" and not judged["false"]["headline"]
    assert "## true: suggestive" in verdict and "- published: 42" in verdict and "- everything" in verdict
    sections = {part.split(":")[0]: part for part in verdict.split("\n## ")}
    assert "- published: no number of the paper could be recovered" in sections["false"]
    assert "- ours, of no paper" in sections["open"] and "published" not in sections["open"]
    assert [judged[name]["published"] for name in ("true", "false", "open")] == ["42", "", "ours"]
    results = (folder / "results.md").read_text()
    assert f"{values['at_linf']:.4f} [" in results and "L-inf 0.05" not in results  # no claim is on it
    for name in ("robustness_tiny",):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.mode == "P"  # few colours
        assert "<svg" in (folder / "figures" / f"{name}.svg").read_text()[:2000]
        assert f"figures/{name}.svg" in verdict
    before = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    code, out, _ = bench("reproduce", study, "--leaderboard", board, "--device", "cpu")
    assert code == 0 and out.count("have") == 2 and re.search(r"Table 1 +done ", out)
    assert len(read_leaderboard(board)) == len(rows)
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == before
    facts = json.loads((folder / "plan.json").read_text())
    assert all(step["done_before"] for step in facts["steps"]) and facts["planned_seconds"] == 0


def test_a_plan_shows_minutes_and_writes_nothing(bench: Bench, study: Path, tmp_path: Path) -> None:
    code, out, _ = bench("reproduce", study, "--plan", "--leaderboard", tmp_path / "board")
    assert code == 0 and "standard under" in out and "minutes to go" in out
    assert re.search(r"Table 1 +to do: 1 of 1 ", out) and re.search(r"Table 2, no run of ours +not at this scale", out)
    assert not (tmp_path / "board" / "studies").exists() and not list(tmp_path.glob("board/runs/*"))


def test_paired_differences_are_those_of_the_records(
    bench: Bench, study: Path, tmp_path: Path, tiny_suite: Path
) -> None:
    board = tmp_path / "board"
    bench("run", "--model", "standard", "--model", "at_linf", "--suite", tiny_suite, "--leaderboard", board)
    rows = read_leaderboard(board)
    records = {
        model: pd.read_parquet(board / "runs" / run / "examples.parquet")
        for model, run in zip(rows["model"], rows["run_id"], strict=True)
    }
    for name, of in (
        ("l2", MetricName(suite="tiny", metric="robust_accuracy", attack="sweep", norm="l2", eps=1.5)),
        ("clean", MetricName(suite="tiny", metric="clean_accuracy")),
    ):
        found = sum_of_groups(difference(board, rows, of) or [])
        columns = []
        for model in ("at_linf", "standard"):
            part = records[model]
            if name == "l2":
                columns.append(~part.loc[part["norm"] == "l2", "broken"].to_numpy())
            else:
                once = part.drop_duplicates("example_id")
                columns.append((once["prediction"] == once["label"]).to_numpy())
        gaps = columns[0].astype(float) - columns[1]
        assert found.value == pytest.approx(gaps.mean())
        assert np.ptp(found.interval) == pytest.approx(2 * 2.02 * gaps.std() / np.sqrt(40), rel=0.05)
    union = MetricName(suite="tiny", metric="union_accuracy", attack="sweep", norm="all")
    found = sum_of_groups(difference(board, rows, union) or [])
    values = rows[rows["metric"] == "union_accuracy"].set_index("model")["value"]
    assert found.value == pytest.approx(values["at_linf"] - values["standard"], abs=1e-6)
    with pytest.raises(BenchError, match="no made up of at_linf"):
        difference(board, rows, MetricName(suite="tiny", metric="made_up"))
    assert difference(tmp_path / "elsewhere", rows, of) is None


def difference(board: Path, rows: pd.DataFrame, of: MetricName) -> list[np.ndarray] | None:
    return groups_of(Values(board, rows), [(1.0, of, "at_linf"), (-1.0, of, "standard")]).arrays


@pytest.mark.parametrize("path", sorted((shipped("suites") / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_study_names_only_what_its_scales_have(path: Path) -> None:
    study = read_study(path)
    assert study.name == path.stem and ("quick" in study.scales or study.dataset == "imagenet100")
    for name, scale in study.scales.items():
        for claim in study.claims_at(name):
            for field in ("of", "against", "first", "second"):
                of = getattr(claim, field, None)
                assert of is None or of.suite in scale.suites, (claim.id, of)
        for picture in study.pictures:
            assert {of.suite for of in (picture.x, *picture.y) if of} <= scale.suites.keys(), picture.name


@pytest.mark.parametrize("name", ["bridging", "ir", "lga"])
def test_every_claim_of_a_committed_verdict_could_be_computed(name: str) -> None:
    """A claim that names a metric no run has is undecided for ever."""
    claims = pd.read_csv(ROOT / "leaderboard" / "studies" / f"{name}-quick" / "claims.csv")
    assert list(claims["claim"]) == [claim.id for claim in find_study(name).claims_at("quick")]
    assert not list(claims.loc[claims["effect"].isna(), "claim"])


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('statistic = "ordering"', 'statistic = "oracle"', "statistic"),
        ("seconds = { main = 3.0, absent = 1.0 }", "seconds = { main = 3.0 }", "seconds lacks absent"),
        ('id = "false"', 'id = "true"', "two claims have the same id"),
        ('figures = ["robustness"]', 'figures = ["pie"]', "figures"),
        ("schema_version = 1", "schema_version = 1\ncolour = 1", "colour: unknown key"),
    ],
)
def test_impossible_studies_are_refused(bench: Bench, study: Path, old: str, new: str, line: str) -> None:
    study.write_text(study.read_text().replace(old, new))
    assert line in bench.refused("reproduce", study, "--plan")


def test_unknown_studies_and_scales_are_refused(bench: Bench, study: Path, tmp_path: Path) -> None:
    assert "did you mean bridging" in bench.refused("reproduce", "briding")
    assert "unknown scale of study tiny_study 'huge'" in bench.refused("reproduce", study, "--scale", "huge")
    with pytest.raises(BenchError, match="unknown study"):
        find_study("x")


def test_runs_that_are_done_count_without_the_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the shipped leaderboard, which has the study's ROAR and KAR."""
    from bench.runs import fitting
    from bench.studies.plan import StudyRequest, usable_plans

    load = fitting.load_split

    def only_test(name: str, split: str, **options: object) -> object:
        if split == "train":
            raise BenchError("no training split here.")
        return load(name, split, **options)

    monkeypatch.setattr(fitting, "load_split", only_test)
    study = find_study("bridging")
    scale, rows = study.scale("quick"), read_leaderboard(ROOT / "leaderboard")
    request = StudyRequest(study, "quick", tmp_path, ROOT / "leaderboard")
    models = expand(scale.only["roar"], set(rows["model"]))
    plans, reason = usable_plans(request, scale, scale.suites["roar"], models, rows=rows)
    assert [plan.entry.card.id for plan in plans] == models and reason is None
    missing = rows[rows["model"] != "standard"]
    plans, reason = usable_plans(request, scale, scale.suites["roar"], models, rows=missing)
    assert len(plans) == len(models) - 1 and reason == "no training split here."
    assert usable_plans(request, scale, scale.suites["roar"], models, rows=None) == (
        [],
        "no training split here.",
    )
