from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.executors import local_workers
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
