"""A whole manifest, for tests that change parts of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.catalog.cards import read_card
from bench.catalog.locations import shipped
from bench.catalog.suites import read_suite
from bench.leaderboard.evidence.manifest import Environment, ExecutorStats, Manifest, RunConfig


def whole_manifest(**changes: Any) -> Manifest:
    """Of the standard model under cross_norm, with these fields set otherwise."""
    card = read_card(shipped("models") / "fashion_mnist" / "standard")
    suite = read_suite(shipped("suites") / "cross_norm.toml")
    config = RunConfig(
        model=card.name, model_sha256=card.weights.sha256, suite=suite.name, suite_version=suite.file.version,
        suite_sha256=suite.sha256, dataset=card.dataset, split="test", data_sha256="d" * 64, examples=3, seed=0,
        bench_version="0.2.0",
    )  # fmt: skip
    executor = ExecutorStats(name="local", workers=1, threads=1)
    environment = Environment(bench="0.2.0", torch="2.6", python="3.11", commit="", device="cpu", executor=executor)
    whole = Manifest(run_id="a", config=config, card=card, suite=suite.file, environment=environment)
    return whole.model_copy(update=changes)


def as_content(manifest: Manifest) -> dict[str, Any]:
    """As JSON has it."""
    content: dict[str, Any] = json.loads(manifest.to_json())
    return content


def write_content(folder: Path, content: Any) -> Path:
    """The folder, whose manifest has that content."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder
