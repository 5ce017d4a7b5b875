from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from bench.core.errors import BenchError
from bench.executors.local_pool import LocalPool
from bench.leaderboard.table import append_rows, read_leaderboard
from bench.runs.plan import RunPlan
from bench.studies.plan import StudyRequest, plan_study, usable_plans
from bench.studies.study import find_study, read_study
from tests.conftest import Bench, ModelCopy
from tests.studies.test_reproduce import ROOT, claims, study

__all__ = ["study"]


def test_finished_runs_of_a_net_whose_weights_are_gone_count_and_only_needed_is_it_trained(
    bench: Bench, study: Path, tmp_path: Path, model_copy: ModelCopy
) -> None:
    board, lone = tmp_path / "board", '[[scales.quick.train]]\nid = "copy"\nrecipe = "standard"\nminutes = 3\n'
    suite = read_study(study).scales["quick"].suites["main"]
    assert bench("run", "--model", model_copy.folder, "--suite", suite, "--leaderboard", board)[0] == 0
    study.write_text(study.read_text().replace('"nowhere"', '"copy"').replace("[[claims]]", f"{lone}\n[[claims]]", 1))
    shutil.rmtree(model_copy.folder)
    code, out, err = bench("reproduce", study, "--leaderboard", board, "--device", "cpu")
    assert code == 0, err
    assert re.search(r"copy under \S+ +have", out) and "left out: model" not in out
    judged = claims(board / "studies" / "tiny_study-quick")["no_model"]
    assert float(judged["effect"]) == 0 and "copy" in judged["detail"]
    alone = tmp_path / "alone.toml"  # no model of the registry is run under the suite
    alone.write_text(study.read_text().replace("\n[[", '\n[scales.quick.only]\nmain = ["copy"]\n\n[[', 1))
    _, out, _ = bench("reproduce", alone, "--leaderboard", board, "--plan")
    assert re.search(r"copy under \S+ +have", out) and "standard under" not in out
    alone.write_text(study.read_text().replace('models = ["standard", "at_linf", "copy"]', 'models = ["copy"]', 1))
    _, out, _ = bench("reproduce", alone, "--leaderboard", board, "--plan")  # no model of the study is here at all
    assert re.search(r"copy under \S+ +have", out)
    alone.write_text(study.read_text().replace("\n[[", '\n[scales.quick.only]\nmain = ["standard"]\n\n[[', 1))
    text = alone.read_text()
    _, out, _ = bench("reproduce", alone, "--leaderboard", board, "--plan")
    assert "at_linf under" not in out
    alone.write_text(text.replace("\n[[", '\n[scales.quick.lent]\nmain = ["at_linf"]\n\n[[', 1))
    _, out, _ = bench("reproduce", alone, "--leaderboard", board, "--plan")  # counts where it is done
    assert re.search(r"at_linf under \S+ +have", out)
    _, out, _ = bench("reproduce", alone, "--leaderboard", tmp_path / "empty", "--plan")  # and is done nowhere
    assert "standard under" in out and "at_linf under" not in out
    code, _, err = bench("reproduce", alone, "--leaderboard", board, "--device", "cpu")
    assert code == 0, err
    assert "at_linf" in claims(board / "studies" / "tiny_study-quick")["true"]["detail"]
    _, out, _ = bench("reproduce", study, "--leaderboard", board, "--plan", "--train")  # nothing is done twice
    assert not re.search(r"train +copy", out) and re.search(r"copy under \S+ +have", out)
    more = 'id = "heir"\nrecipe = "ir_gradient"\nparameters = { source_model = "copy" }\nminutes = 1\n\n[[claims]]'
    heir = tmp_path / "heir.toml"  # whose training needs the net that is gone
    heir.write_text(study.read_text().replace("[[claims]]", f"[[scales.quick.train]]\n{more}", 1))
    _, out, _ = bench("reproduce", heir, "--leaderboard", board, "--plan", "--train")
    assert re.search(r"train +copy +to do", out) and re.search(r"copy under \S+ +to do", out)
    _, out, _ = bench("reproduce", heir, "--leaderboard", board, "--plan")
    assert re.search(r"train +copy +to do with --train", out), "the source of what is to be trained"
    _, out, _ = bench("reproduce", study, "--leaderboard", tmp_path / "empty", "--plan")
    assert re.search(r"train +copy +to do with --train", out) and re.search(r"copy under \S+ +to do with --train", out)
    assert re.search(r"(?m)^with --train about \d+\.\d minutes$", out)
    rows = read_leaderboard(board)
    later = {"run_id": "later", "suite": "other", "model_sha256": "f" * 16, "finished_at": "2999-01-01T00:00:00+00:00"}
    append_rows(board, [{**rows[rows["model"] == "copy"].iloc[0].to_dict(), **later}])
    _, out, _ = bench("reproduce", study, "--leaderboard", board, "--plan")  # another net of that name by now
    assert not re.search(r"copy under \S+ +have", out)


def test_a_verdict_by_a_registry_names_it_in_the_command_that_repeats_it(
    bench: Bench, study: Path, tmp_path: Path
) -> None:
    study.write_text(study.read_text().replace("\n[[", '\n[scales.quick.only]\nmain = ["nowhere"]\n\n[[', 1))
    (tmp_path / "mine").mkdir()
    named = ("--registry", tmp_path / "mine", "--leaderboard", tmp_path / "board")
    code, _, err = bench("reproduce", study, *named, "--output", tmp_path / "out")
    assert code == 0, err
    assert f"--scale quick --registry {tmp_path / 'mine'}`" in (tmp_path / "out" / "verdict.md").read_text()


def test_a_model_that_cannot_be_judged_takes_no_other_out_of_the_study(
    bench: Bench, study: Path, tmp_path: Path, model_copy: ModelCopy
) -> None:
    study.write_text(study.read_text().replace('"nowhere"', '"copy"'))
    model_copy.weights.write_bytes(b"damaged")
    _, out, _ = bench("reproduce", study, "--leaderboard", tmp_path / "board", "--plan")
    assert re.search(r"standard under \S+ +to do", out) and not re.search(r"copy under \S+ ", out)
    assert re.search(r"left out: suite \S+: fashion_mnist/copy: ", out)


def test_a_lone_training_has_no_other_beside_it(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.executors.trainings.free_memory", lambda: None)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr("bench.studies.plan.speed", lambda: 1.0)
    lines = ('[[scales.quick.train]]\nid = "nowhere"\n', '[[scales.quick.train]]\nid = "unasked"\n')
    more = "".join(f'{line}recipe = "standard"\nminutes = 3\n\n' for line in lines)
    only = '[scales.quick.only]\nmain = ["nowhere", "standard"]\nabsent = ["standard"]\n\n'
    study.write_text(study.read_text().replace("[[experiments]]", f"{only}{more}[[experiments]]", 1))
    request = StudyRequest(read_study(study), "quick", tmp_path / "out", tmp_path / "board", device="cpu", train=True)
    plan = plan_study(request)
    assert [step.name for step in plan.steps if step.kind == "train"] == ["nowhere"] and plan.side_by_side == 1


def test_models_are_not_trained_where_they_cannot_be_found(bench: Bench, study: Path, tmp_path: Path) -> None:
    line = bench.refused("reproduce", study, "--leaderboard", tmp_path / f"at_18{os.pathsep}00", "--train")
    assert "models cannot lie in" in line and not any(tmp_path.glob("at*"))


class Elsewhere(LocalPool):
    """As a cluster with devices that this machine may not have."""

    def planning_device(self, device: str) -> str:
        return "cpu"


def test_a_device_that_only_the_cluster_has_is_not_looked_for_here(study: Path, tmp_path: Path) -> None:
    request = StudyRequest(
        read_study(study), "quick", tmp_path / "out", tmp_path / "board", device="cuda:77", executor=Elsewhere()
    )
    assert plan_study(request).side_by_side == 1


def test_runs_on_a_leaderboard_that_may_only_be_read_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise BenchError(f"no permission to write {folder}.")

    monkeypatch.setattr("bench.runs.plan.check_leaderboard", refuse)
    study, board = find_study("bridging"), ROOT / "leaderboard"
    scale, request = study.scale("quick"), StudyRequest(study, "quick", tmp_path, board)
    asked = (request, scale, scale.suites["manifold"], ["standard"])
    plans, reason = usable_plans(*asked, rows=(rows := read_leaderboard(board)))
    assert len(plans) == 1 and reason is None
    plans, reason = usable_plans(*asked, rows=rows[rows["model"] != "standard"])
    assert not plans and reason == f"no permission to write {board}."


def test_a_run_that_fails_leaves_the_others_and_the_verdict(
    bench: Bench, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def execute(plan: RunPlan, *_: object, **__: object) -> None:
        if plan.entry.card.id == "standard":
            raise BenchError("it fails.")
        done.append(plan.entry.card.id)

    monkeypatch.setattr("bench.studies.reproduce.execute", execute)
    code, out, err = bench("reproduce", study, "--leaderboard", tmp_path / "board")
    assert code == 2 and done == ["at_linf"] and "verdict: " in out
    assert "failed standard under tiny: it fails." in err and "error: 1 failed, 0 runs are done." in err
    folder = tmp_path / "board" / "studies" / "tiny_study-quick"
    assert "- model standard: under tiny, it fails." in (folder / "verdict.md").read_text()
    assert "under tiny, it fails" in claims(folder)["false"]["detail"]
