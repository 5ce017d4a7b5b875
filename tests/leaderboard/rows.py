"""Rows for leaderboard tests; metrics may be named as older leaderboards named them."""

from __future__ import annotations

from typing import Any

from bench.leaderboard.migration import migrated_name


def row(run_id: str = "run", **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "run_id": run_id, "finished_at": "2026-01-01T00:00:00+00:00", "model": "standard", "method": "standard",
        "dataset": "fashion_mnist", "split": "test", "suite": "cross_norm", "suite_version": 1, "metric": "robust_accuracy",
        "attack": "sweep", "norm": "linf", "eps": 0.1, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n_examples": 100,
        "seed": 0, "model_sha256": "a" * 64, "data_sha256": "b" * 64, "suite_sha256": "c" * 64, "bench_version": "0",
        "dependencies_sha256": "", "commit": "", "torch_version": "2", "device": "cpu", "precision": "float32",
        "seconds": 1.5,
    }  # fmt: skip
    row = {**base, **changes}
    names = ("metric", "subject", "attack", "direction", "unit", "prominence")
    return row | dict(zip(names, migrated_name(row["metric"], row["attack"]), strict=True))
