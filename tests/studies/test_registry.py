from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.catalog.models import list_models
from bench.studies.plan import study_registry
from tests.conftest import ModelCopy


def test_the_users_registry_comes_before_what_the_study_trained_and_goes_with_the_study(
    tmp_path: Path, model_copy: ModelCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_REGISTRY", raising=False)
    registry = model_copy.weights.parents[2]
    assert "fashion_mnist/copy" not in [entry.card.name for entry in list_models("fashion_mnist")]
    with study_registry(tmp_path / "models", registry):
        assert os.environ["BENCH_REGISTRY"].split(os.pathsep) == [str(registry), str(tmp_path / "models")]
        assert "fashion_mnist/copy" in [entry.card.name for entry in list_models("fashion_mnist")]
    assert "BENCH_REGISTRY" not in os.environ and not (tmp_path / "models").exists()
