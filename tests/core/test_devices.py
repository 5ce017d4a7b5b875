from __future__ import annotations

import pytest
import torch

from bench.core.devices import exact, exact_device, exact_dtype, resolve_device, worker_device
from bench.core.errors import BenchError
from bench.core.precision import resolve_precision


def test_workers_take_the_gpus_of_the_machine_in_turn_unless_one_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = [str(worker_device(torch.device("cuda"), number)) for number in range(3)]
    assert taken == ["cuda:0", "cuda:1", "cuda:0"]
    assert str(worker_device(torch.device("cuda:1"), 0)) == "cuda:1"
    assert str(worker_device(torch.device("cpu"), 1)) == "cpu"


def test_apples_gpu_is_taken_where_torch_sees_one_and_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(BenchError, match="torch sees no GPU of Apple's; use cpu"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = resolve_device("mps")
    assert device.type == "mps" and resolve_device("auto").type != "mps"
    with pytest.raises(BenchError, match="use float32"):
        resolve_precision("bfloat16", device)


def test_arithmetic_that_decides_is_in_float64_on_the_cpu_where_a_device_has_none() -> None:
    mps, cpu = torch.device("mps"), torch.device("cpu")
    assert (exact_device(mps), exact_dtype(mps)) == (cpu, torch.float32)
    assert (exact_device(cpu), exact_dtype(cpu)) == (cpu, torch.float64)
    assert exact(torch.ones(2)).dtype == torch.float64
