from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.leaderboard.evidence.records import read_records, write_records


def made(examples: int = 400) -> pd.DataFrame:
    """Records of two attacks and two radii, sorted by example, with float32 noise, NaN and infinity among the values."""
    noise = np.random.default_rng(0)
    rows = pd.MultiIndex.from_product(
        [range(examples), ["b", "a"], [np.nan, 0.1]], names=["example_id", "attack", "eps"]
    )
    frame = rows.to_frame(index=False).astype({"example_id": "int32", "attack": "category"})
    frame["cosine"] = noise.random(len(frame), dtype=np.float32)
    frame.loc[3:5, "cosine"] = [np.nan, np.inf, np.float32(1e-42)]
    frame["distance"] = np.where(frame["attack"] == "a", noise.random(len(frame)), 0.1)
    frame["broken"] = noise.random(len(frame)) < 0.5
    return frame


def test_small_evidence_has_every_row_to_the_bit_with_rows_of_one_attack_and_radius_together(tmp_path: Path) -> None:
    records = made()
    write_records(tmp_path / "plain", records)
    write_records(tmp_path / "small", records, small=True)
    pd.testing.assert_frame_equal(read_records(tmp_path / "plain"), records, check_exact=True)
    found = read_records(tmp_path / "small")
    groups = [(attack, eps) for attack in ("b", "a") for eps in (np.nan, 0.1)]
    expected = [
        records[(records["attack"] == attack) & (records["eps"].eq(eps) | (records["eps"].isna() & np.isnan(eps)))]
        for attack, eps in groups
    ]
    pd.testing.assert_frame_equal(found, pd.concat(expected, ignore_index=True), check_exact=True)


def test_noise_is_stored_without_a_dictionary_which_would_make_it_larger(tmp_path: Path) -> None:
    records = made()
    write_records(tmp_path / "ours", records, small=True)
    records.to_parquet(tmp_path / "pandas", index=False, compression="zstd")
    assert (tmp_path / "ours").stat().st_size < 0.7 * (tmp_path / "pandas").stat().st_size
