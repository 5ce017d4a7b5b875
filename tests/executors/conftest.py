from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bench.executors import local_workers, unit_worker
from bench.executors.local_workers import HelperWorker
from bench.runs.plan import WorkUnit
from bench.runs.units import compute_unit
from tests.conftest import torch_threads
from tests.executors.processes import ForkedContext


@pytest.fixture
def two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


@pytest.fixture
def forked_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not load torch; how one is started others look at."""
    monkeypatch.setattr(local_workers, "_Context", ForkedContext)


@pytest.fixture
def after_helpers(whole_probes: None, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """This process computes nothing before the event is set: by default, as soon as a helper has a unit."""
    given = threading.Event()
    compute = HelperWorker.compute

    def note(helper: HelperWorker, unit: WorkUnit) -> Any:
        given.set()
        return compute(helper, unit)

    def wait(*arguments: Any, **named: Any) -> Any:
        assert given.wait(60)
        return compute_unit(*arguments, **named)

    monkeypatch.setattr(HelperWorker, "compute", note)
    monkeypatch.setattr(unit_worker, "compute_unit", wait)
    return given
