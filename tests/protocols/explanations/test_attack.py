from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.data import ImageDataset
from bench.protocols.explanations.attack import donor_ids
from tests.protocols.attribution_suites import ATTACK, make, run, values

EPS = 0.031372


def test_aligned_gradients_withstand_more_and_attacks_beat_the_control(
    tmp_path: Path, standard: nn.Module, lga: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ATTACK.replace("steps = 4", "steps = 10"))
    found = {
        name: values(protocol, run(protocol, model, fashion_test).records)
        for name, model in (("standard", standard), ("lga", lga))
    }
    for attack in ("frame", "top_k", "worst"):
        for measure in ("cosine", "top_k"):
            name = f"saps/{measure}/gradient"
            assert found["lga"][name, attack, EPS] > found["standard"][name, attack, EPS]
            for numbers in found.values():
                assert numbers[name, attack, EPS] < numbers[name, "random_sign", EPS]
    for numbers in found.values():
        assert numbers["taps/cosine/gradient", "frame", EPS] > numbers["taps_clean/cosine/gradient", "frame", EPS]


def test_the_worst_over_attacks_is_taken_per_example(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ATTACK)
    records = run(protocol, standard, fashion_test).records
    metrics = values(protocol, records)
    by_id = records.groupby("example_id")
    assert metrics["saps/cosine/gradient", "worst", EPS] == pytest.approx(by_id["saps_cosine"].min().mean(), abs=1e-6)
    assert metrics["saps/centre_shift/gradient", "worst", EPS] == pytest.approx(
        by_id["saps_centre_shift"].max().mean(), abs=1e-6
    )
    right = records[records["label"] == records["prediction"]].groupby("example_id")["saps_cosine"].min()
    assert metrics["saps_correct/cosine/gradient", "worst", EPS] == pytest.approx(right.mean(), abs=1e-6)


def test_an_image_whose_map_is_not_finite_under_one_attack_has_no_worst(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ATTACK)
    records = run(protocol, standard, fashion_test).records
    first = int(records.loc[records["label"] == records["prediction"], "example_id"].iloc[0])
    where = (records["example_id"] == first) & (records["attack"] == "top_k")
    broken = records.assign(saps_cosine=records["saps_cosine"].mask(where))
    whole, found = (
        {one.key.metric: one.n_examples for one in protocol.metrics("fashion_mnist", each) if one.key.attack == "worst"}
        for each in (records, broken)
    )
    assert found == {name: count - name.endswith("/cosine") for name, count in whole.items()} and len(found) == 6
    without = values(protocol, records[records["example_id"] != first])
    key = "saps/cosine/gradient", "worst", EPS
    assert values(protocol, broken)[key] == pytest.approx(without[key], abs=1e-6)


def test_records_show_verified_distances_and_targets_only_where_there_are_some(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    result = run(make(tmp_path, ATTACK), standard, fashion_test)
    records = result.records
    assert len(records) == 24 * 3 and not records.duplicated(["example_id", "attack", "eps"]).any()
    assert (records["distance"] <= records["eps"] * (1 + 1e-6)).all() and records["distance"].max() > 0.03
    assert records["taps_cosine"].notna().equals(records["attack"] == "frame")
    assert result.counters["claims"] > 40 and result.counters["rejected_claims"] == 0
    assert result.counters["gradient_evaluations"] >= 24 * 2 * 4 * 2


def test_a_map_without_derivatives_is_attacked_through_the_gradient_and_it_is_said(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ATTACK.replace('{ name = "gradient" }', '{ name = "deeplift" }'))
    result = run(protocol, standard, fashion_test, stop=8)
    assert "transferred_deeplift" in {finding.id for finding in result.findings}
    assert 0 < values(protocol, result.records)["saps/cosine/deeplift", "worst", EPS] < 1


def test_every_example_has_another_one_for_a_target_keyed_by_its_id() -> None:
    ids = torch.arange(500)
    donors = donor_ids(ids, 500, 0)
    assert (donors != ids).all() and donors.min() >= 0 and donors.max() < 500 and len(donors.unique()) > 250
    assert torch.equal(donor_ids(ids[40:50], 500, 0), donors[40:50])
    assert donor_ids(torch.tensor([0]), 1, 0).tolist() == [0]
