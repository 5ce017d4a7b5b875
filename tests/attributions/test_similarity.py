from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor

from bench.attributions.similarity import DISTANCES, MEASURES, Measure, PreparedMaps, similarities
from bench.core.errors import BenchError

SIMILARITIES = [name for name in MEASURES if name not in DISTANCES]


def random_maps(seed: int, count: int = 6, height: int = 16, width: int = 13, ties: bool = True) -> Tensor:
    """Heat maps as ReLU nets have them: not negative, many exact zeros, some equal values."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(count, height, width, generator=generator) ** 3
    if ties:
        maps = torch.where(torch.rand(maps.shape, generator=generator) < 0.4, 0.0, maps)
        maps[:, ::3] = (maps[:, ::3] * 8).round() / 8
    return maps


def measure(name: Measure, first: Tensor, second: Tensor, top_share: float = 0.1) -> Tensor:
    return similarities(PreparedMaps(first, top_share), PreparedMaps(second, top_share), [name])[name]


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(MEASURES), st.booleans())
def test_bounds_symmetry_scale_and_identity(seed: int, name: Measure, ties: bool) -> None:
    first, second = random_maps(seed, ties=ties), random_maps(seed + 1, ties=ties)
    value = measure(name, first, second)
    assert ((value >= (0 if name in ("top_k", "centre_shift") else -1)) & (value <= 1)).all()
    torch.testing.assert_close(value, measure(name, second, first), atol=1e-6, rtol=0)
    # powers of two scale floats exactly, so that ties stay ties
    torch.testing.assert_close(value, measure(name, 4.0 * first, 2.0**-40 * second), atol=1e-5, rtol=0)
    own = measure(name, first, 8.0 * first)
    torch.testing.assert_close(own, torch.full_like(own, 0.0 if name in DISTANCES else 1.0), atol=1e-5, rtol=0)


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.permutations(range(6)), st.integers(1, 5))
def test_a_maps_similarity_does_not_depend_on_its_batch(seed: int, order: list[int], cut: int) -> None:
    first, second = random_maps(seed), 3.0 * random_maps(seed + 1)
    second[0] *= 1000.0
    whole = similarities(PreparedMaps(first), PreparedMaps(second), MEASURES)
    for rows in (order[:cut], order[cut:]):
        part = similarities(PreparedMaps(first[rows]), PreparedMaps(second[rows]), MEASURES)
        for name in MEASURES:
            torch.testing.assert_close(part[name], whole[name][rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_scipy_and_scikit_image(ties: bool) -> None:
    first, second = random_maps(1, ties=ties), 5.0 * random_maps(2, ties=ties)
    found = similarities(PreparedMaps(first), PreparedMaps(second), MEASURES)
    for row in range(len(first)):
        a, b = first[row].double().numpy().ravel(), second[row].double().numpy().ravel()
        assert float(found["cosine"][row]) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
        assert float(found["pearson"][row]) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-5)
        assert float(found["spearman"][row]) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-5)
        expected = structural_similarity(
            first[row].numpy() / a.max(),
            second[row].numpy() / b.max(),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(found["ssim"][row]) == pytest.approx(expected, abs=1e-4)


def test_top_k_counts_the_shared_pixels_and_breaks_ties_by_place() -> None:
    first = torch.zeros(1, 2, 5)
    first[0, 0] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    second = first.clone()
    second[0, 0, 0] = 0.0
    second[0, 1, 4] = 9.0
    assert float(measure("top_k", first, second, 0.2)) == 0.5
    few = torch.zeros(2, 2, 5)
    few[0, 1, 4] = few[1, 1, 4] = 1.0  # the other k - 1 are ties at zero: the earliest places, in both maps
    assert measure("top_k", few, few, 0.3).tolist() == [1.0, 1.0]
    assert PreparedMaps(few, 0.3).top.sort(1).values.tolist() == [[0, 1, 9]] * 2


def test_centre_shift_is_the_move_over_the_diagonal() -> None:
    first, second = torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)
    first[0, 0, 0], second[0, 3, 4] = 2.0, 7.0
    assert float(measure("centre_shift", first, second)) == pytest.approx(1.0)
    assert float(measure("centre_shift", first, first + second / 7 * 2)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_an_all_zero_map_has_similarity_zero_and_no_nan(name: Measure) -> None:
    zero, other = torch.zeros(2, 12, 12), random_maps(0, 2, 12, 12)
    for first, second in ((zero, other), (other, zero), (zero, zero)):
        assert measure(name, first, second).tolist() == [0.0, 0.0]
        assert measure("centre_shift", first, second).tolist() == [1.0, 1.0]  # the worst, of a distance


def test_a_constant_map_has_no_correlation_and_tiny_values_lose_nothing() -> None:
    constant, other = torch.full((1, 12, 12), 0.3), random_maps(0, 1, 12, 12)
    for name in ("pearson", "spearman"):
        assert float(measure(name, constant, other)) == 0.0  # type: ignore[arg-type]
    assert float(measure("cosine", 1e-30 * other, other)) == pytest.approx(1.0, abs=1e-5)


def test_bad_shapes_and_shares_are_refused() -> None:
    with pytest.raises(BenchError, match="at least 11x11"):
        measure("ssim", torch.rand(1, 8, 8), torch.rand(1, 8, 8))
    for share in (0.0, 1.5):
        with pytest.raises(BenchError, match="top_share"):
            PreparedMaps(torch.rand(1, 8, 8), share)
    assert PreparedMaps(torch.rand(1, 8, 8), 1e-9).k == 1
