from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from bench.attacks.adapters import under_way
from bench.catalog.suites import resolve_suites
from bench.core.errors import StoppedError
from bench.executors.local_pool import LocalPool
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.evidence.records import read_records
from bench.protocols import protocol_for
from bench.runs import pieces as module
from bench.runs.execute import Observer, execute
from bench.runs.pieces import UnitWatch, missing_units, pieces, shared
from bench.runs.plan import RunPlan, RunRequest, WorkUnit, plan_runs
from tests.conftest import TINY_SUITE


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    suite = tmp_path / "tiny.toml"
    suite.write_text(TINY_SUITE)
    (planned,) = plan_runs(RunRequest(["standard"], [str(suite)], tmp_path, examples=40, device="cpu"))
    return planned


def records_of(folder: Path) -> pd.DataFrame:
    return read_records(folder / "examples.parquet")


def test_a_unit_is_cut_only_where_it_takes_more_than_a_minute(plan: RunPlan) -> None:
    (unit,) = plan.units
    assert pieces(plan, unit, 0.0) == pieces(plan, unit, 1.5) == [unit]
    cut = pieces(plan, unit, 2.0)
    assert [(one.start, one.stop) for one in cut] == [(0, 20), (20, 40)]
    assert [one.stop - one.start for one in pieces(plan, unit, 1000.0)] == [1] * 40
    assert len({one.index for one in cut} | {unit.index}) == 3
    one_image = WorkUnit(0, 0, 1)
    assert pieces(plan, one_image, 1000.0) == [one_image]


def test_units_are_never_cut_where_their_images_share_random_numbers() -> None:
    for suite in resolve_suites(["roar_quick", "autoattack_rand"]):
        assert not protocol_for(suite).may_be_cut
    for suite in resolve_suites(["cross_norm", "autoattack", "attribution_stability", "corruptions"]):
        assert protocol_for(suite).may_be_cut


def test_a_slow_unit_is_cut_and_the_verdicts_are_those_of_the_whole(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(plan, examples=10)
    whole = execute(plan, tmp_path / "whole")
    for name, value in {
        "_LOOK_SECONDS": 0.0,
        "LONGEST_SECONDS": 1e-9,
        "_PIECE_SECONDS": 1e-9,
        "_STEP_SECONDS": 0.0,
    }.items():
        monkeypatch.setattr(module, name, value)
    told: list[int] = []
    watch = Observer()
    watch.advanced = told.append  # type: ignore[method-assign]
    cut = execute(plan, tmp_path / "cut", observer=watch)
    assert len(cut.manifest.units) == 10 and sum(told) == plan.work and min(told) <= 0
    expected, found = records_of(whole.folder), records_of(cut.folder)
    columns = ["attack", "norm", "eps", "example_id"]
    both = [one.sort_values(columns, ignore_index=True) for one in (expected, found)]
    assert both[0][["broken", "prediction"]].equals(both[1][["broken", "prediction"]])
    assert [metric.value for metric in whole.metrics] == [metric.value for metric in cut.metrics]


def test_a_stopped_run_goes_on_with_what_no_piece_has_covered(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {}

    class Stopping(LocalPool):
        def compute(self, *arguments):  # type: ignore[no-untyped-def]
            for count, unit in enumerate(super().compute(*arguments)):
                if count == 3:
                    raise KeyboardInterrupt
                done[unit.index] = unit.stats
                yield unit

    with monkeypatch.context() as patch:
        for name, value in {
            "_LOOK_SECONDS": 0.0,
            "LONGEST_SECONDS": 1e-9,
            "_PIECE_SECONDS": 1e-9,
            "_STEP_SECONDS": 0.0,
        }.items():
            patch.setattr(module, name, value)
        with pytest.raises(KeyboardInterrupt):
            execute(plan, tmp_path / "board", executor=Stopping())
    assert len(done) == 3
    (gap,) = missing_units(plan, done.values())
    assert (gap.start, gap.stop) == (3, 40)
    outcome = execute(plan, tmp_path / "board")
    assert outcome.resumed_units == 3 and len(read_manifest(outcome.folder).units) == 4
    assert sorted(set(records_of(outcome.folder)["example_id"])) == list(range(40))


WHOLE_UNITS = """
schema_version = 1
name = "whole_units"
version = 1
protocol = "robustness"
examples = 8
[[parameters.attacks]]
attack = "torchattacks:PGD"
steps = 3
norms = ["linf"]
[[parameters.attacks]]
attack = "torchattacks:CW"
steps = 4
norms = ["l2"]
[parameters.datasets.fashion_mnist]
reference = { linf = "8/255", l2 = 1 }
radii = { linf = ["8/255", "16/255"], l2 = [1] }
"""


def test_a_unit_that_cannot_be_cut_goes_on_where_a_stop_has_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_way, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache"))
    (tmp_path / "suite.toml").write_text(WHOLE_UNITS)
    (plan,) = plan_runs(RunRequest(["standard"], [str(tmp_path / "suite.toml")], tmp_path, device="cpu"))
    assert plan.net is not None and plan.protocol.keeps_under_way
    calls, last = [0], 1 << 30

    def called(_: nn.Module, given: tuple[torch.Tensor]) -> None:
        if calls[0] == last:
            raise KeyboardInterrupt
        calls[0] += given[0].requires_grad

    plan.net.register_forward_pre_hook(called)
    whole = execute(plan, tmp_path / "whole")
    needed, calls[0] = calls[0], 0
    last = 8  # within the last attack, after which masking is looked for
    with pytest.raises(KeyboardInterrupt):
        execute(plan, tmp_path / "board")
    kept = list((tmp_path / "cache").rglob("*.pt"))
    last = 1 << 30
    outcome = execute(plan, tmp_path / "board")
    assert outcome.resumed_units == 0 and kept
    assert calls[0] == needed, "3 steps of PGD at each of two radii and 2 of CW are not done again"
    assert records_of(outcome.folder).equals(records_of(whole.folder))
    assert not list((tmp_path / "cache").rglob("*.pt")), "nothing is left of a unit that is done"


def test_gaps_between_pieces_are_found(plan: RunPlan) -> None:
    stats = execute(replace(plan, examples=2), plan.suite.path.parent / "board").manifest.units
    known = [stats["0"].model_copy(update={"start": a, "stop": b, "seconds": 0.0}) for a, b in ((5, 10), (0, 2))]
    assert [(one.start, one.stop) for one in missing_units(plan, known)] == [(2, 5), (10, 40)]


class _Net(nn.Module):
    def __init__(self, clock: list[float], call: float, image: float) -> None:
        super().__init__()
        self.clock, self.call, self.image = clock, call, image

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.clock[0] += self.call + self.image * len(images)
        return images


@pytest.mark.parametrize(("call", "image", "given_up"), [(0.004, 0.0, False), (0.0, 0.1, True)])
def test_a_unit_whose_calls_cost_as_much_for_one_image_is_not_cut(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, call: float, image: float, given_up: bool
) -> None:
    clock = [0.0]
    for name in ("monotonic", "thread_time"):
        monkeypatch.setattr(f"time.{name}", lambda: clock[0])
    watch, net = UnitWatch(plan, plan.units[0], lambda: False), _Net(clock, call, image)
    with watch.over(net), pytest.raises(StoppedError) if given_up else nullcontext():
        for _ in range(6000):
            net(torch.zeros(40, 1, 1, 1))
    assert (watch.slow is not None) == given_up


def test_pieces_stay_as_large_as_a_batch_needs_to_pay(plan: RunPlan) -> None:
    (unit,) = plan.units
    for smallest, sizes in {1: [1] * 40, 10: [10] * 4, 15: [20, 20], 21: [40]}.items():
        assert [one.stop - one.start for one in pieces(plan, unit, 1000.0, smallest)] == sizes


def bounds(units: list[WorkUnit]) -> list[tuple[int, int]]:
    return [(one.start, one.stop) for one in units]


def test_a_device_that_is_to_be_filled_gets_a_batch_and_then_all_that_it_holds(plan: RunPlan) -> None:
    filled = replace(plan, unit_images=1000, batch_size=16)
    assert bounds(filled.units) == [(0, 16), (16, 40)]
    assert bounds(replace(filled, unit_images=15).units) == [(0, 15), (15, 30), (30, 40)]
    assert bounds(replace(filled, batch_size=2048).units) == [(0, 40)]
    assert bounds(pieces(filled, filled.units[1], 5.0)) == [(16, 24), (24, 32), (32, 40)], "a minute is still the most"
    (suite,) = resolve_suites(["autoattack_rand"])
    drawn_together = replace(filled, suite=suite, protocol=protocol_for(suite))
    assert drawn_together.units == replace(drawn_together, unit_images=None).units


def test_several_workers_share_what_one_device_would_hold(plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = replace(plan, unit_images=1000, batch_size=4)
    monkeypatch.setattr(module, "UNIT_EXAMPLES", 2)
    assert shared(filled, filled.units, 1) == filled.units
    assert bounds(shared(filled, filled.units, 2)) == [(0, 4), (4, 14), (14, 24), (24, 34), (34, 40)]
    monkeypatch.setattr(module, "UNIT_EXAMPLES", 250)
    assert shared(filled, filled.units, 2) == filled.units


def test_a_run_that_went_on_on_a_device_with_other_units_has_every_image_once(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(LocalPool):
        def compute(self, *arguments):  # type: ignore[no-untyped-def]
            for count, unit in enumerate(super().compute(*arguments)):
                if count == stop_after:
                    raise KeyboardInterrupt
                yield unit

    monkeypatch.setattr("bench.protocols.base.UNIT_EXAMPLES", 5)
    plan = replace(plan, examples=20)
    filled, whole = replace(plan, unit_images=1000, batch_size=8), records_of(execute(plan, tmp_path / "whole").folder)
    # its second unit lies across the end of the other's first
    for first, second in ((plan, filled), (filled, plan)):
        stop_after = 2 if first is plan else 1
        board = tmp_path / str(stop_after)
        with pytest.raises(KeyboardInterrupt):
            execute(first, board, executor=Stopping())
        outcome = execute(second, board)
        assert outcome.resumed_units == stop_after
        records = records_of(outcome.folder)
        columns = ["attack", "norm", "eps", "example_id", "broken"]
        expected, found = (one.sort_values(columns, ignore_index=True)[columns] for one in (whole, records))
        assert found.equals(expected)
