"""Memory that runs out costs time and nothing else; the batch size is chosen by device and memory."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bench import evaluate
from bench.api import Result
from bench.core.errors import BenchError
from bench.core.memory import is_out_of_memory
from bench.leaderboard.evidence.manifest import read_manifest
from bench.protocols import EvaluationContext
from bench.runs import batch_size as module
from bench.runs.batch_size import automatic_batch_size
from bench.runs.plan import RunRequest, plan_runs
from tests.conftest import Bench

CPU = torch.device("cpu")
CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
VERDICTS = ["example_id", "attack", "norm", "eps", "broken"]


class Small(nn.Module):
    """A net on a device with room for `room` images at a time; it counts how often there was none."""

    def __init__(self, net: nn.Module, room: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.net, self.room, self.error = copy.deepcopy(net), room, error

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise self.error(CPU_MESSAGE if self.error is RuntimeError else "CUDA out of memory. Tried to allocate ...")
        logits: Tensor = self.net(images)
        return logits


def run(net: nn.Module, suite: Path | str, folder: Path, **changes: object) -> Result:
    return evaluate(net, suite, leaderboard=folder, device="cpu", **changes)  # type: ignore[arg-type]


def digest(result: Result) -> str:
    assert result.folder is not None
    return str(read_manifest(result.folder).result.examples_sha256)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_unit_without_memory_is_done_again_with_half_the_batch_and_the_same_records(
    tmp_path: Path, tiny_suite: Path, standard: nn.Module, caplog: pytest.LogCaptureFixture, error: type[RuntimeError]
) -> None:
    with caplog.at_level(logging.WARNING):
        halved = run(Small(standard, 6, error), tiny_suite, tmp_path / "small", batch_size=16)
    assert "batches of 16 images; going on with 8" in caplog.text and "of 8 images; going on with 4" in caplog.text
    assert halved.folder is not None
    manifest = read_manifest(halved.folder)
    assert manifest.environment.batch_size == manifest.units["0"].batch_size == 4
    assert digest(halved) == digest(run(Small(standard, 99), tiny_suite, tmp_path / "asked", batch_size=4))
    undisturbed = run(Small(standard, 99), tiny_suite, tmp_path / "large", batch_size=16)
    pd.testing.assert_frame_equal(halved.records[VERDICTS], undisturbed.records[VERDICTS])
    pd.testing.assert_frame_equal(halved.frame, undisturbed.frame)


def test_the_smaller_batch_is_kept_for_the_units_that_follow(
    tmp_path: Path, tiny_suite: Path, standard: nn.Module, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("bench.protocols.base.UNIT_EXAMPLES", 8)
    result = run(Small(standard, 4), tiny_suite, tmp_path, batch_size=8)
    assert result.folder is not None
    units = read_manifest(result.folder).units
    assert [unit.batch_size for unit in units.values()] == [4, 4, 4]
    assert caplog.text.count("out of memory") == 1


def test_progress_ends_where_it_should(tmp_path: Path, tiny_suite: Path, standard: nn.Module) -> None:
    from bench.api.in_memory import entry_of_net
    from bench.runs.execute import Observer, execute
    from bench.runs.plan import RunRequest, plan_runs

    class Sum(Observer):
        total = 0

        def advanced(self, amount: int) -> None:
            self.total += amount

    entry = entry_of_net(Small(standard, 10), "fashion_mnist", "small", None, adaptation={})
    (plan,) = plan_runs(RunRequest([], [str(tiny_suite)], tmp_path, batch_size=16, device="cpu", entries=[entry]))
    observer = Sum()
    execute(plan, tmp_path, observer=observer)
    assert observer.total == plan.work


@pytest.mark.parametrize("suite", ["autoattack_fast", "attribution_stability_quick", "corruptions"])
def test_other_suites_let_the_error_through(tmp_path: Path, standard: nn.Module, suite: str) -> None:
    result = run(Small(standard, 3), suite, tmp_path, examples=4, batch_size=4)
    assert result.folder is not None and read_manifest(result.folder).environment.batch_size == 2


TORCHATTACKS = """
[[parameters.attacks]]
kind = "torchattacks"
name = "pgd"
class_name = "PGD"
norm = "linf"
parameters = { steps = 3 }
"""


def test_attacks_of_torchattacks_see_a_net_that_fits(tmp_path: Path, tiny_suite: Path, standard: nn.Module) -> None:
    content = tiny_suite.read_text()
    tiny_suite.write_text(content.replace("[parameters.datasets", TORCHATTACKS + "\n[parameters.datasets", 1))
    small = run(Small(standard, 7), tiny_suite, tmp_path / "small", batch_size=20)
    large = run(Small(standard, 99), tiny_suite, tmp_path / "large", batch_size=20)
    pd.testing.assert_frame_equal(small.records[VERDICTS], large.records[VERDICTS])


def test_no_memory_for_one_image_is_one_clear_line(tmp_path: Path, tiny_suite: Path, standard: nn.Module) -> None:
    class Shrinking(Small):
        """Two images go through without a gradient, as when the run is planned; with one, not a single one does."""

        def forward(self, images: Tensor) -> Tensor:
            self.room = 0 if images.requires_grad else 99
            return super().forward(images)

    with pytest.raises(BenchError, match=r"cpu has not enough memory for .* with a single image; use another device"):
        run(Shrinking(standard, 0), tiny_suite, tmp_path, batch_size=2)


def test_other_errors_of_a_net_are_not_taken_for_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."))
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError(CPU_MESSAGE))


def test_the_automatic_batch_fits_the_free_memory(standard: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 1, 28, 28)
    monkeypatch.setattr(module, "_free_memory", lambda device: None)
    assert automatic_batch_size(standard, images, CPU) == 256
    needed = module._GRAPHS * module._kept_for_gradient(standard, images) / 2
    assert 50_000 < needed < 5_000_000, "bytes an image of the small net"
    for room in (1000, 100, 3, 0.1):
        monkeypatch.setattr(module, "_free_memory", lambda device, room=room: int(room * needed / module._SHARE))
        assert automatic_batch_size(standard, images, CPU) == {1000: 256, 100: 64, 3: 2, 0.1: 1}[room]


def test_a_gpu_holds_a_whole_data_set_of_small_images_and_a_part_of_one_of_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_free_memory", lambda device: 70 << 30)
    assert module.images_within_memory((3, 32, 32), CPU) is None
    assert module.images_within_memory((3, 32, 32), torch.device("cuda")) > 10_000
    assert 250 < module.images_within_memory((3, 224, 224), torch.device("cuda")) < 10_000
    monkeypatch.setattr(module, "_free_memory", lambda device: 1)
    assert module.images_within_memory((3, 224, 224), torch.device("cuda")) == 1


def test_free_memory_is_a_number_here() -> None:
    free = module._free_memory(CPU)
    assert free is None or free > 1 << 20


def test_the_command_line_takes_a_number_or_auto(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    run_tiny = ("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path, "--examples", 2)
    for wrong in ("0", "-1", "many", "1.5"):
        assert "is not a number of images" in bench.refused(*run_tiny, "--batch-size", wrong)
    assert bench(*run_tiny, "--batch-size", "auto")[0] == 0


def test_processes_share_the_free_memory(
    standard: nn.Module, tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path, device="cpu", batch_size=100))
    batch = module._GRAPHS * module._kept_for_gradient(standard, torch.rand(3, 1, 28, 28)) / 3 * 100
    for processes in (1, 2, 5):
        room = (processes + 0.5) * (batch + module._PROCESS) / module._SHARE
        monkeypatch.setattr(module, "_free_memory", lambda device, room=room: int(room))
        assert module.processes_within_memory(standard, plan) == processes
    for unknown_or_little in (None, 1 << 20):
        monkeypatch.setattr(module, "_free_memory", lambda device, free=unknown_or_little: free)
        assert module.processes_within_memory(standard, plan) == 1


def peak_of_tensors(call: Callable[[], object]) -> int:
    """The most bytes of tensors that lived at once on the CPU beside those from before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    found = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(found, key=lambda event: event.start_ns())))


def test_memory_follows_the_batch_and_not_the_number_of_images(
    tmp_path: Path, tiny_suite: Path, at_linf: nn.Module
) -> None:
    (plan,) = plan_runs(RunRequest(["at_linf"], [str(tiny_suite)], tmp_path, device="cpu"))

    def peak(examples: int, batch_size: int) -> int:
        context = EvaluationContext(
            at_linf, "net", plan.dataset, 0, stop=examples, seed=0, device=CPU, batch_size=batch_size
        )
        return peak_of_tensors(lambda: plan.protocol.evaluate(context))

    peak(1, 1)  # what is loaded once
    few, many, large = peak(4, 4), peak(16, 4), peak(16, 16)
    assert many < 1.5 * few, "images that wait, and what was found of them"
    assert large > 2 * many
