from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.data import ImageDataset, known_spec
from bench.nets import build_net
from bench.training.methods import InterpretationRegularization
from bench.training.methods.interpretation import permute_share, threshold_maps
from bench.training.target_maps import Source, Wanted


def maps(seed: int = 0) -> torch.Tensor:
    return torch.randn(7, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_permuting_keeps_each_maps_values_and_moves_about_the_asked_share(seed: int, share: float) -> None:
    before = maps(seed)
    after = permute_share(before, share, torch.Generator().manual_seed(seed))
    assert torch.equal(before.flatten(1).sort(1).values, after.flatten(1).sort(1).values)
    moved = (before != after).flatten(1).float().mean(1)
    assert (moved <= int(share * 36) / 36 + 1e-6).all()
    if share == 1.0:
        assert float(moved.mean()) > 0.8


def test_permuting_repeats_with_its_seed() -> None:
    first, second = (permute_share(maps(), 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_thresholding_keeps_what_is_far_from_the_mean_unchanged_and_zeroes_the_rest() -> None:
    before = maps() + 0.3
    after = threshold_maps(before, 1.0)
    for old, new in zip(before, after, strict=True):
        far = (old - old.mean()).abs() > old.std()
        assert torch.equal(new, old * far)
    assert threshold_maps(before, 0.0) is before


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    return tmp_path / "target_maps"


def make(model: nn.Module, data: ImageDataset, digest: str = "x", seed: int = 0) -> tuple[torch.Tensor, int]:
    method = InterpretationRegularization(target="smoothgrad", samples=2, threshold=0.0)
    calls: list[int] = []
    source = Source("net", digest, model)
    cpu = torch.device("cpu")
    wanted = Wanted(source, data, torch.arange(10), seed, device=cpu, on_progress=lambda done, _: calls.append(done))
    made = method.target_maps(wanted)
    return made, len(calls)


def test_maps_are_computed_once_and_cached_by_what_made_them(
    cache: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    first, computed = make(standard, fashion_test)
    assert computed == 1
    again, computed = make(standard, fashion_test)
    assert computed == 0 and torch.equal(first, again)
    assert make(standard, fashion_test, digest="another model")[1] == 1
    assert make(standard, fashion_test, seed=1)[1] == 1
    assert len(list(cache.iterdir())) == 3
    spec = known_spec("fashion_mnist", "a test")
    smooth = build_net("small_cnn", spec.net_parameters | {"activation": "softplus", "softplus_beta": 1.0})
    smooth.load_state_dict(standard.state_dict())
    assert make(smooth, fashion_test)[1] == 1  # the same weights in another net


def test_a_damaged_cache_is_computed_again(cache: Path, standard: nn.Module, fashion_test: ImageDataset) -> None:
    first, _ = make(standard, fashion_test)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    again, computed = make(standard, fashion_test)
    assert computed == 1 and torch.equal(first, again)
