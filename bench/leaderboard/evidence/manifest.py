"""The manifest of a run: the one place where what a stranger may have written becomes checked values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.core.errors import BenchError
from bench.core.files import leads_out, read_regular
from bench.core.toml_files import refuse_odd_values
from bench.leaderboard.metrics import Direction, Prominence, Unit
from bench.leaderboard.migration import migrated_manifest

SCHEMA_VERSION = 2


_Share = Annotated[float, Field(ge=0, le=1)]
_Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]


class _Part(BaseModel):
    """Nothing is converted: what is checked here is what everybody reads afterwards."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Facts(_Part):
    model: str = ""
    model_sha256: str = ""
    program_sha256: str = ""
    suite: str = ""
    suite_version: int = 0
    suite_sha256: str = ""
    dataset: str = ""
    split: str = ""
    data_sha256: str = ""
    examples: int = 0
    seed: int = 0


class _Weights(_Part):
    sha256: str = ""
    parameters: int = 0


class _Accuracy(_Part):
    validation: _Share | None = None
    test: _Share | None = None


class _Gradients(_Part):
    examples: int = 0
    stability: dict[str, _Cosine] = {}
    target_cosine: _Cosine | None = None


class _Training(_Part):
    recipe: str
    parameters: dict[str, Any]
    schedule: dict[str, Any]
    seed: int = 0
    training_examples: int | None = None
    minutes: float | None = None
    source_model: str | None = None
    source_sha256: str | None = None
    data_sha256: str = ""
    device: str = ""
    bench_version: str = ""
    torch_version: str = ""
    finished_at: str = ""


class _Card(_Part):
    method: str = ""
    description: str = ""
    architecture: str = ""
    architecture_parameters: dict[str, Any] = {}
    weights: _Weights = _Weights()
    accuracy: _Accuracy | None = None
    gradients: _Gradients | None = None
    training: _Training | None = None


class _Finding(_Part):
    id: str
    severity: str
    evidence: str
    advice: str


class _Metric(_Part):
    model_config = ConfigDict(strict=True, allow_inf_nan=True)

    metric: str
    subject: str
    attack: str
    norm: str
    eps: float | None
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_examples: int
    direction: Direction
    unit: Unit
    prominence: Prominence = "usual"


class _Manifest(_Part):
    """All that anybody reads of a manifest besides what the process that writes it put there itself."""

    run_id: str
    status: str
    facts: _Facts = _Facts()
    units: dict[str, dict[str, Any]] = {}
    suite: dict[str, Any] = {}
    card: _Card = _Card()
    metrics: list[_Metric] = []
    findings: list[_Finding] = []
    counters: dict[str, int] = {}
    versions: dict[str, str] = {}
    device: str = ""
    seconds: float = 0.0
    finished_at: str = ""
    examples_sha256: str = ""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run; raises BenchError when it is missing, damaged, or from a newer version."""
    path = folder / "manifest.json"
    if leads_out(path, folder.parent.parent):
        raise BenchError(f"the manifest {path} is a link out of the leaderboard, which is not followed.")
    try:
        manifest = json.loads(read_regular(path))
        refuse_odd_values(manifest)
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"the manifest {path} is missing or damaged; run the evaluation again.") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") not in (1, SCHEMA_VERSION):
        raise BenchError(f"the manifest {path} is of another version of RIBench; use that version to read it.")
    try:
        if manifest["schema_version"] == 1:
            manifest |= migrated_manifest(manifest)
        _Manifest.model_validate(manifest)
    except (ValidationError, LookupError, TypeError, ValueError) as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "metrics"
        raise BenchError(f"the manifest {path} is damaged at {where}; run the evaluation again.") from error
    return manifest
