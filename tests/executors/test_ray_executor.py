"""What the executor decides, with a Ray that runs in this process; tests/executors/test_ray.py has the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import BenchError
from bench.executors import ray_cluster, ray_executor
from bench.executors.ray_cluster import RayOptions, Shares
from bench.executors.ray_executor import RayExecutor
from bench.leaderboard.evidence.manifest import ExecutorStats, read_manifest
from bench.runs.execute import Observer, RunOutcome, execute
from bench.runs.plan import RunPlan, RunRequest, plan_runs
from tests.conftest import Bench, torch_threads
from tests.executors.fake_ray import FakeRay, Lost


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A worker sets this process's threads here, where it is this process."""
    with torch_threads(1):
        yield


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    for module in (ray_cluster, ray_executor):
        monkeypatch.setattr(module, "import_ray", lambda: fake)
    return fake


@pytest.fixture
def plan(tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch) -> RunPlan:
    """Of three units: 0 to 8, 8 to 16 and 16 to 20."""
    monkeypatch.setattr("bench.protocols.base.UNIT_EXAMPLES", 8)
    (planned,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path, device="cpu"))
    return planned


class Work(Observer):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.total = 0

    def advanced(self, amount: int) -> None:
        self.total += amount


def run_on_ray(plan: RunPlan, folder: Path, observer: Observer | None = None, **options: Any) -> RunOutcome:
    with RayExecutor(RayOptions(**options)) as executor:
        return execute(plan, folder, observer=observer, executor=executor)


def test_the_evidence_is_that_of_the_local_executor_to_the_last_bit(
    ray: FakeRay, plan: RunPlan, tmp_path: Path
) -> None:
    work = Work()
    far = read_manifest(run_on_ray(plan, tmp_path / "far", work).folder)
    here = read_manifest(execute(plan, tmp_path / "here").folder)
    assert far.result.model_dump_json(exclude={"seconds"}) == here.result.model_dump_json(exclude={"seconds"})
    assert (here.environment.executor.name, here.environment.executor.workers) == ("local", 1)
    assert far.environment.executor == ExecutorStats(
        name="ray", workers=2, threads=1, cpus_per_worker=1, gpus_per_worker=0.0
    )
    assert far.environment.device == "cpu"
    assert work.total == plan.work


def test_a_lost_workers_unit_is_computed_by_another(ray: FakeRay, plan: RunPlan, tmp_path: Path) -> None:
    def die(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "compute" and number == 0:
            raise Lost("the node died")

    ray.disturb, work = die, Work()
    manifest = read_manifest(run_on_ray(plan, tmp_path / "far", work).folder)
    here = read_manifest(execute(plan, tmp_path / "here").folder)
    assert manifest.result.examples_sha256 == here.result.examples_sha256
    assert manifest.environment.executor.workers_lost == 1 and ray.killed[0] == 0
    assert sorted(unit.attempts for unit in manifest.units.values()) == [1, 1, 2]
    assert work.total == plan.work


def test_a_unit_that_kills_its_workers_ends_in_one_line_and_what_was_done_is_kept(
    ray: FakeRay, plan: RunPlan, tmp_path: Path
) -> None:
    def die(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "compute" and arguments[0].index == 1:
            raise Lost("out of memory")

    ray.disturb = die
    with pytest.raises(BenchError, match=r"work unit 1 \(8 to 16\) failed on 3 Ray workers.*out of memory.*kept"):
        run_on_ray(plan, tmp_path)
    ray.disturb = lambda number, name, arguments: None
    assert run_on_ray(plan, tmp_path).resumed_units >= 1


def test_workers_that_cannot_start_end_in_one_line(ray: FakeRay, plan: RunPlan, tmp_path: Path) -> None:
    def fail(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        raise Lost("ModuleNotFoundError: No module named 'bench'")

    ray.disturb = fail
    with pytest.raises(BenchError, match=r"no Ray worker can start: 3 failed in a row.*No module named 'bench'"):
        run_on_ray(plan, tmp_path)


def test_the_users_own_errors_are_reported_and_not_tried_again(
    ray: FakeRay, plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(*_: object, **__: object) -> None:
        tries.append(1)
        raise BenchError("the model gives NaN")

    monkeypatch.setattr("bench.executors.unit_worker.compute_unit", refuse)
    with pytest.raises(BenchError, match="the model gives NaN"):
        run_on_ray(plan, tmp_path, workers=1)
    assert len(tries) == 1


def test_other_versions_on_a_worker_are_refused(
    ray: FakeRay, plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.executors.unit_worker.versions", lambda: {"ribench": "9", "torch": "9", "Python": "9"})
    with pytest.raises(BenchError, match=r"a Ray worker has ribench 9, here it is .*; install the same versions"):
        run_on_ray(plan, tmp_path)


def test_a_cluster_without_room_is_given_up(
    ray: FakeRay, plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match="no node of the Ray cluster has 3 CPU for a worker"):
        run_on_ray(plan, tmp_path, cpus_per_worker=3)
    ray.room = False
    monkeypatch.setattr(ray_executor, "START_SECONDS", 0.05)
    with pytest.raises(BenchError, match="no room for a worker of 3 CPU; what was done is kept"):
        run_on_ray(plan, tmp_path, cpus_per_worker=3, workers=1)


def test_workers_are_kept_from_one_plan_to_the_next_and_let_go_at_the_end(
    ray: FakeRay, plan: RunPlan, tmp_path: Path
) -> None:
    with RayExecutor(RayOptions()) as executor:
        for _ in range(2):
            execute(plan, tmp_path, executor=executor)
        assert len(ray.actors) == 2 and not ray.killed
    assert sorted(ray.killed) == [0, 1]


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "room"),
    [
        (1, 0.0, [{"CPU": 2.0}, {"CPU": 3.0}], 5),
        (2, 0.0, [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        (1, 1.0, [{"CPU": 16.0, "GPU": 8.0}, {"CPU": 64.0}], 8),
        (1, 0.5, [{"CPU": 16.0, "GPU": 2.0}], 4),
        (1, 0.1, [{"CPU": 16.0, "GPU": 1.0}], 10),
        (4, 1.0, [{"CPU": 8.0, "GPU": 8.0}], 2),
        (1, 2.0, [{"CPU": 8.0, "GPU": 3.0}], 1),
        (1, 0.0, [{}], 0),
    ],
)
def test_as_many_workers_as_fit(cpus: int, gpus: float, nodes: list[dict[str, float]], room: int) -> None:
    assert Shares(cpus, gpus).room(nodes) == room


def test_the_python_api_and_the_gate_compute_on_ray_too(
    ray: FakeRay, bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    import bench as library

    far, here = (library.evaluate("standard", tiny_suite, executor=name) for name in ("ray", "local"))
    assert far.records.equals(here.records) and len(ray.actors) == len(ray.killed) == 1
    check = ("check", "--model", "standard", "--suite", tiny_suite, "--baseline", tmp_path / "baseline")
    assert bench(*check, "--update", "--device", "cpu")[0] == 0
    code, out, err = bench(*check, "--executor", "ray", "--leaderboard", tmp_path / "new")
    assert code == 0 and "passed" in out, out + err
    (run,) = (tmp_path / "new" / "runs").iterdir()
    assert read_manifest(run).environment.executor.name == "ray" and len(ray.killed) == 2


REFUSED = {
    "an unknown executor": (["--executor", "rey"], "did you mean ray"),
    "a Ray option for the local executor": (
        ["--cpus-per-worker", 2],
        "is for the executor ray; the local one does not take it (--cpus-per-worker)",
    ),
    "no worker": (["--executor", "ray", "--workers", 0], "0 workers are too few; use 1 or more (--workers)"),
    "no CPU": (["--executor", "ray", "--cpus-per-worker", 0], "0 CPUs for a worker are too few"),
    "a GPU and a half": (["--executor", "ray", "--gpus-per-worker", 1.5], "1.5 GPUs for a worker cannot be had"),
    "a GPU by number": (["--executor", "ray", "--device", "cuda:1"], "cannot be had from Ray"),
    "GPUs for the CPU": (["--executor", "ray", "--device", "cpu", "--gpus-per-worker", 1], "contradict each other"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_options_that_make_no_sense_are_refused(bench: Bench, tmp_path: Path, ray: FakeRay, case: str) -> None:
    options, said = REFUSED[case]
    line = bench.refused("run", "--model", "standard", "--suite", "cross_norm", "--leaderboard", tmp_path, *options)
    assert said in line
    assert not list(tmp_path.iterdir())


def test_without_ray_the_line_says_what_to_install(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    arguments = ("run", "--model", "standard", "--suite", "cross_norm", "--leaderboard", tmp_path, "--executor", "ray")
    assert "pip install 'ribench[ray]'" in bench.refused(*arguments)
