from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.core.devices import worker_device
from bench.executors import local_workers
from bench.executors.local_pool import LocalPool
from bench.runs import pieces
from bench.runs.execute import execute
from bench.runs.plan import RunRequest, plan_runs


@pytest.mark.usefixtures("forked_helpers", "after_helpers")
def test_each_worker_of_a_machine_with_gpus_is_given_its_own(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two CPU workers in the place of two GPUs."""
    given = []

    def assigned(device: torch.device, number: int) -> torch.device:
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "device_count", lambda: 2)
            given.append(str(worker_device(torch.device("cuda"), number)))
        return device

    monkeypatch.setattr(local_workers, "worker_device", assigned)
    monkeypatch.setattr(pieces, "UNIT_EXAMPLES", 10)
    tiny_suite.write_text(tiny_suite.read_text().replace("steps = 5", "steps = 1"))
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path, device="cpu"))
    with LocalPool(2) as executor:
        both = execute(replace(plan, unit_images=1000, batch_size=10), tmp_path / "both", executor=executor)
    assert given == ["cuda:1"], "this process has the first"
    assert both.workers == 2 and len(both.manifest.units) == 2
    assert {unit.device for unit in both.manifest.units.values()} == {"cpu"}
