from __future__ import annotations

import pytest
import torch

from bench.core.devices import worker_device


def test_workers_take_the_gpus_of_the_machine_in_turn_unless_one_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = [str(worker_device(torch.device("cuda"), number)) for number in range(3)]
    assert taken == ["cuda:0", "cuda:1", "cuda:0"]
    assert str(worker_device(torch.device("cuda:1"), 0)) == "cuda:1"
    assert str(worker_device(torch.device("cpu"), 1)) == "cpu"
