"""Target maps that two trainings want at once are computed by one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import platformdirs
import pytest
import torch
from torch import Tensor, nn

from bench.core import files
from bench.training.target_maps import Source, Wanted
from tests.training.test_trainer import tiny_data


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    return tmp_path / "target_maps"


def start(maps_of: Callable[[nn.Module, Tensor, Tensor], Tensor], found: list[Tensor]) -> Thread:
    """A training, in a thread, that asks for its maps; locks of files keep threads apart as they do processes."""
    source = Source("net", "x", nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    wanted = Wanted(source, tiny_data(20), torch.arange(10), 0, device=torch.device("cpu"))
    thread = Thread(target=lambda: found.append(wanted.maps(maps_of, "key")), daemon=True)
    thread.start()
    return thread


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fails", [False, True])
def test_maps_that_another_training_is_at_are_waited_for_and_shared(cache: Path, *, fails: bool) -> None:
    begun, go, calls, found = Event(), Event(), list[int](), list[Tensor]()

    def maps_of(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(calls))
        begun.set()
        assert go.wait(30)
        if fails and len(calls) == 1:
            raise MemoryError
        return images

    threads = [start(maps_of, found)]
    assert begun.wait(30)
    threads.append(start(maps_of, found))
    threads[1].join(0.5)
    assert threads[1].is_alive() and calls == [0], "the second waits"
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 1 + fails and len(found) == 2 - fails
    assert torch.equal(found[0], found[-1]) and [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_where_nothing_can_be_cached_maps_are_computed_all_the_same(cache: Path) -> None:
    cache.write_text("a file where the folder would be")
    found: list[Tensor] = []
    start(lambda net, images, labels: images, found).join(30)
    assert len(found) == 1


def test_a_wait_cut_short_leaves_the_lock_to_whoever_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, **_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "locked", interrupted)
    lock = tmp_path / "maps.lock"
    lock.touch()
    with pytest.raises(KeyboardInterrupt), files.computed_once(tmp_path / "maps"):
        pass
    assert lock.exists()
