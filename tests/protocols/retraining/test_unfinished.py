"""A stop inside a group of nets: what was under way goes on, and its nets become the very same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import platformdirs
import pytest
from torch import nn

from bench.catalog.suites import read_suite
from bench.data import ImageDataset
from bench.protocols import EvaluationContext, protocol_for
from bench.protocols.retraining import cache
from bench.protocols.retraining import protocol as module
from tests.protocols.retraining.test_protocol import CPU, SUITE, split


def test_maps_and_nets_that_were_under_way_go_on_and_become_the_same(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    (tmp_path / "tiny_roar.toml").write_text(SUITE)
    protocol = protocol_for(read_suite(tmp_path / "tiny_roar.toml"))
    (number,) = (place for place, group in enumerate(protocol.parameters.groups()) if group.map == "gradient")  # type: ignore[attr-defined]
    common: dict[str, Any] = {"seed": 0, "device": CPU, "batch_size": 256, "examples": 300}
    common["training"] = split(fashion_test, slice(9000, 9600), "train")
    given = (standard, "net", fashion_test, number)
    whole = protocol.evaluate(EvaluationContext(*given, stop=number + 1, **common))
    monkeypatch.setattr(cache, "EVERY_SECONDS", 0.0)
    calls, original, files = [], module.pixel_scores, tmp_path / "cache" / "retraining"

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls))
        if calls == [0, 1]:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    reported: list[int] = []

    def stopping(amount: int) -> None:
        reported.append(amount)
        if len(reported) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "pixel_scores", counted)
    for _ in range(2):  # stopped among the maps, then in the training
        with pytest.raises(KeyboardInterrupt):
            protocol.evaluate(EvaluationContext(*given, stop=number + 1, on_progress=stopping, **common))
    assert len(calls) == 2 + 4, "500 training and 300 test images are four batches of maps"
    told: list[int] = []
    again = protocol.evaluate(EvaluationContext(*given, stop=number + 1, on_progress=told.append, **common))
    pd.testing.assert_frame_equal(again.records, whole.records)
    assert [finding.id for finding in again.findings] == [finding.id for finding in whole.findings]
    assert told[:2] == [625, 375], "maps count as much as an epoch of one net; those of 500 images were kept"
    assert told[2] >= sum(reported[5:9]) and sum(told) == protocol.unit_work("", number, number + 1)  # type: ignore[attr-defined]
    assert not list(files.glob("*.pt"))


def test_what_another_torch_or_device_has_begun_begins_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.setattr(cache, "EVERY_SECONDS", 0.0)
    cache.Unfinished({}, "nets", "cpu, torch 1.0").write("fits", lambda: {"steps": 3})
    assert cache.Unfinished({}, "nets", "cpu, torch 1.0").read("fits") == {"steps": 3}
    assert cache.Unfinished({}, "nets", "cpu, torch 2.0").read("fits") == {}
    assert "what was under way (nets) begins again" in caplog.text and "torch 1.0" in caplog.text
