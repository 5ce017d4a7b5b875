from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.protocols.explanations.base import stored


@pytest.mark.parametrize("name", ["cosine", "saps_pearson", "taps_clean_ssim"])
def test_a_similarity_keeps_ten_bits_of_its_distance_from_one(name: str) -> None:
    values = (1.0 - np.geomspace(1e-6, 2.0, 500)).astype("float32")
    found = stored(pd.DataFrame({name: values}))[name].to_numpy()
    distance = 1.0 - values.astype("float64")
    assert found.dtype == np.float32 and len(set(found)) > 200
    # float32 itself has no more than 2^-24 just below 1
    assert np.all(np.abs(found.astype("float64") - values) <= 2.0**-10 * distance + 2.0**-25)
    bits = np.frexp(1.0 - found.astype("float64"))[0] * 1024
    np.testing.assert_array_equal(bits, bits.round())


def test_a_number_keeps_ten_bits_of_itself_and_none_stays_none() -> None:
    values = np.array([0.0, np.nan, 1e-5, 0.3, 123.4], dtype="float32")
    found = stored(pd.DataFrame({"area": values}))["area"].to_numpy()
    np.testing.assert_allclose(found, values, rtol=2.0**-10, atol=0)
    assert found[3] != values[3]


def test_what_is_stored_is_stored_alike_a_second_time() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 500).astype("float32")
    once = stored(pd.DataFrame({"spearman": values, "area": values}))
    pd.testing.assert_frame_equal(stored(once), once)


@pytest.mark.parametrize("name", ["prediction_kept", "top_k", "saps_top_k", "gradient_cosine", "hessian_ratio", "eps"])
def test_shares_radii_and_the_parts_of_a_bound_stay_whole(name: str) -> None:
    records = pd.DataFrame({name: np.array([1 / 3, 76 / 78], dtype="float32")})
    pd.testing.assert_frame_equal(stored(records), records)
