"""Runs on a real Ray: a cluster of this machine, one of two nodes of which one dies, workers that crash, Ctrl-C.

`pytest -m slow tests/executors/test_ray.py`; `.ci/run` does the first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import BenchError
from bench.executors.ray_cluster import RayOptions
from bench.executors.ray_executor import RayExecutor
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.table import read_leaderboard
from bench.runs.execute import Observer, RunOutcome, execute
from bench.runs.plan import RunRequest, plan_runs
from tests.conftest import torch_threads
from tests.executors.processes import descendants, require_gone
from tests.runs.test_execute import slow_suite, start, wait_for_a_part

__all__ = ["slow_suite"]  # a fixture


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread here as in a worker, and nobody's cluster by accident; Ray is imported only where a test runs."""
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with torch_threads(1):
        yield


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """Two nodes of one CPU each; the second may be killed."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Watcher(Observer):
    """Adds the work up; calls `when_all_work` once, as soon as `workers` of them have been given a unit."""

    def __init__(self, executor: RayExecutor, workers: int, when_all_work: Callable[[], None]) -> None:
        self.executor, self.workers, self.when_all_work = executor, workers, when_all_work
        self.total, self.called = 0, False

    def advanced(self, amount: int) -> None:
        self.total += amount
        busy = sum(worker.unit is not None for worker in self.executor._workers)
        if not self.called and busy == self.workers:
            self.called = True
            self.when_all_work()


def run(folder: Path, suite: Path, model: str = "standard", **options: Any) -> RunOutcome:
    """On Ray where there are options, else here."""
    (plan,) = plan_runs(RunRequest([model], [str(suite)], folder, device="cpu"))
    if not options:
        return execute(plan, folder)
    with RayExecutor(RayOptions(**options)) as executor:
        return execute(plan, folder, executor=executor)


def require_same_evidence(one: RunOutcome, other: RunOutcome) -> None:
    first, second = (read_manifest(run.folder).result.model_dump_json(exclude={"seconds"}) for run in (one, other))
    assert first == second


@pytest.mark.slow
def test_a_cluster_of_this_machine_leaves_the_local_executors_evidence(tmp_path: Path, tiny_suite: Path) -> None:
    import ray

    far = run(tmp_path / "far", tiny_suite, workers=1)
    require_same_evidence(far, run(tmp_path / "here", tiny_suite))
    assert read_manifest(far.folder).environment.executor.name == "ray"
    assert not ray.is_initialized()


def test_an_address_where_nobody_answers_is_refused_at_once() -> None:
    with pytest.raises(BenchError, match=r"no Ray cluster at 127\.0\.0\.1:9.*ray start --head"):
        RayExecutor(RayOptions(address="127.0.0.1:9")).__enter__()
    with pytest.raises(BenchError, match=r"Ray Client \(ray://head:10001\) is not supported"):
        RayExecutor(RayOptions(address="ray://head:10001")).__enter__()


@pytest.mark.slow
def test_a_node_killed_in_the_middle_changes_nothing_but_the_time(
    tmp_path: Path, slow_suite: Path, two_nodes: Any
) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(slow_suite)], tmp_path, device="cpu"))
    with RayExecutor(RayOptions(address=two_nodes.address)) as executor:
        watcher = Watcher(executor, 2, lambda: two_nodes.remove_node(two_nodes.second, allow_graceful=False))
        far = execute(plan, tmp_path / "far", observer=watcher, executor=executor)
    manifest = read_manifest(far.folder)
    assert watcher.called and manifest.environment.executor.workers_lost >= 1
    assert watcher.total == plan.work
    require_same_evidence(far, run(tmp_path / "here", slow_suite))
    assert read_leaderboard(tmp_path / "far")["run_id"].unique().tolist() == [far.run_id]


CRASHING = """
import os
from pathlib import Path
from bench.nets import build_net

BOMB = Path({bomb!r})

def make():
    net = build_net("small_cnn", dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353]))
    net.register_forward_pre_hook(explode)
    return net

def explode(net, inputs):
    if BOMB.exists() and len(inputs[0]) == 20:  # the unit's images, and not the fewer that a worker is made ready with
        if BOMB.read_text() == "once":
            BOMB.unlink()
        os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_worker_killed_by_its_unit_is_replaced_and_a_unit_that_always_kills_ends_in_one_line(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb"
    (tmp_path / "net.py").write_text("import torch\ntorch.manual_seed(0)\n" + CRASHING.format(bomb=str(bomb)))
    (plan,) = plan_runs(RunRequest([f"{tmp_path / 'net.py'}:make"], [str(tiny_suite)], tmp_path, device="cpu"))
    here = execute(plan, tmp_path / "here")
    with RayExecutor(RayOptions(workers=1)) as executor:
        bomb.write_text("once")
        once = execute(plan, tmp_path / "once", executor=executor)
        require_same_evidence(once, here)
        assert read_manifest(once.folder).environment.executor.workers_lost == 1
        bomb.write_text("always")
        with pytest.raises(BenchError, match=r"work unit 0 \(0 to 20\) failed on 3 Ray workers"):
            execute(plan, tmp_path / "always", executor=executor)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done_ends_ray_and_the_run_goes_on_here(tmp_path: Path, slow_suite: Path) -> None:
    process = start(tmp_path, slow_suite, executor="ray", workers=1)
    wait_for_a_part(tmp_path, process)
    started = descendants(process.pid or 0)
    assert len(started) > 2
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    require_gone(started)
    (folder,) = (tmp_path / "runs").iterdir()
    resumed = run(tmp_path, slow_suite)
    assert resumed.folder == folder and resumed.resumed_units >= 1


@pytest.mark.slow
def test_a_run_stopped_here_goes_on_on_ray(tmp_path: Path, slow_suite: Path) -> None:
    process = start(tmp_path / "stopped", slow_suite)
    wait_for_a_part(tmp_path / "stopped", process)
    process.kill()
    process.join()
    far = run(tmp_path / "stopped", slow_suite, workers=1)
    assert far.resumed_units >= 1
    assert len(read_manifest(far.folder).units) == len(far.plan.units)
    computed = [unit for unit in read_manifest(far.folder).units.values() if unit.worker is not None]
    assert len(computed) == len(far.plan.units) - far.resumed_units
