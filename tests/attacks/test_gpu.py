"""A GPU's verdicts are a CPU's, up to the tolerance that docs/howto/use-a-gpu.md states; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bench

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

TOLERANCE = 0.005


def robust(result: bench.Result) -> list[float]:
    return list(result.frame.loc[result.frame["metric"] == "robust_accuracy", "value"])


@pytest.mark.parametrize("suite", ["cross_norm_quick", "autoattack_fast"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_verdicts_are_the_cpus(suite: str, precision: str) -> None:
    on_cpu = bench.evaluate("at_linf", suite, examples=200, device="cpu")
    on_gpu = bench.evaluate("at_linf", suite, examples=200, device="cuda", precision=precision)
    assert on_gpu.value("clean_accuracy") == on_cpu.value("clean_accuracy")
    allowed = TOLERANCE if precision == "float32" else 2 * TOLERANCE
    assert robust(on_gpu) == pytest.approx(robust(on_cpu), abs=allowed + 1e-9)


@pytest.mark.parametrize("index", range(max(1, torch.cuda.device_count())))
def test_every_gpu_can_be_named(tmp_path: Path, tiny_suite: Path, index: int) -> None:
    before = torch.cuda.current_device()
    result = bench.evaluate("standard", tiny_suite, device=f"cuda:{index}", leaderboard=tmp_path)
    assert result.records["broken"].any() and torch.cuda.current_device() == before


def test_a_gpu_without_room_gets_smaller_batches(tmp_path: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(0) + (96 << 20)) / total))
    try:
        result = bench.evaluate("standard", "cross_norm_quick", examples=250, device="cuda", batch_size=4096)
        assert result.records["example_id"].nunique() == 250
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
