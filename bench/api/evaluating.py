"""One model under one suite."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from bench.api.arguments import as_path, as_paths, batches, require_options, require_text, source_options, whole
from bench.api.in_memory import entry_of_net
from bench.api.result import Result
from bench.catalog.models import DEFAULT_DATASET
from bench.catalog.suites import Suite
from bench.core.errors import BenchError
from bench.core.torch_state import undisturbed
from bench.executors.choose import choose_executor
from bench.leaderboard.evidence.adversarial import FILE_NAME, read_own
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.metrics import KEY_COLUMNS
from bench.nets.adapter import AdapterSettings
from bench.runs.execute import RunOutcome, execute
from bench.runs.plan import RunRequest, plan_runs


@undisturbed()
def evaluate(
    model: nn.Module | Path | str,
    suite: Suite | Path | str,
    *,
    dataset: str | None = None,
    examples: int | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    batch_size: int | str | None = None,
    precision: str = "float32",
    compile: bool = False,  # noqa: A002  (as on the command line)
    save_adversarial: bool = False,
    expect_clean: float | None = None,
    data_dir: Path | str | None = None,
    download: bool = False,
    leaderboard: Path | str | None = None,
    registry: Path | str | None = None,
    program: Path | str | Sequence[Path | str] | None = None,
    suite_path: Path | str | None = None,
    model_id: str | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    **options: Any,
) -> Result:
    """Evaluate one model under one suite, as `bench run` does.

    Args:
        model: a net (images in [0, 1] in, logits out), or anything that `bench run` takes as a model. A copy of a net,
            in eval mode and float32, is evaluated, so that the net stays as it is.
        batch_size: images attacked at once; `auto` or None chooses by device and memory.
        precision: of the search for adversarial examples: float32, tf32 or bfloat16; verified in float32.
        compile: search through torch.compile where it can take the net; it pays in attacks of minutes on large nets.
        save_adversarial: keep the smallest adversarial image of every example and norm: in the result's `adversarial`,
            and in the evidence's `adversarial.npz`, see docs/howto/adversarial-images.md.
        expect_clean: the clean accuracy that the model is known to have, e.g. 0.83; far from it, it is refused.
        download: fetch a data set, or pretrained weights, that are not on this machine.
        leaderboard: a folder to keep rows and evidence in; None keeps nothing on the disk.
        program: the file, or several, that the model's card or the suite's attacks and maps name; it is run.
        suite_path: a folder of suites beside the shipped ones.
        model_id: what a net or a model named by its source is called.
        executor: `local`, on this machine, or `ray`, which a net in memory cannot travel to. A cluster that is
            connected already (`ray.init()`) is used and stays connected.
        workers: processes that compute side by side; None: as many as cores and memory have room for, where it pays.
            A net in memory is evaluated in this process alone.
        ray_address: HOST:PORT of a Ray cluster, or `auto`; it and all that follows are for Ray, see docs/scale.md.
        options: as in `load_model`; of these, a net takes `mean`, `std`, `input_size`, and `classes` or `label_map`.

    Raises:
        BenchError: as `bench run` would be refused.
    """
    require_text(precision=precision, executor=executor, dataset=dataset or "", model_id=model_id or "")
    seed, device = whole(seed, "seed", 0), str(device)
    counts = {"examples": examples, "workers": workers, "cpus_per_worker": cpus_per_worker}
    if not isinstance(gpus_per_worker, float | int | None):
        raise BenchError(f"gpus_per_worker {gpus_per_worker!r} is not a number; pass one such as 0.5.")
    given = {name: None if count is None else whole(count, name) for name, count in counts.items()}
    place = choose_executor(
        executor, device, ray_address=ray_address, workers=given["workers"], cpus_per_worker=given["cpus_per_worker"],
        gpus_per_worker=gpus_per_worker,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        request = RunRequest(
            models=[], suites=[suite if isinstance(suite, Suite) else str(suite)], compile=bool(compile),
            leaderboard=as_path(leaderboard) or Path(temporary), dataset=dataset, examples=given["examples"], seed=seed,
            device=place.planning_device(device), batch_size=batches(batch_size), data_dir=as_path(data_dir),
            download=download, registry=as_path(registry), programs=as_paths(program), precision=precision,
            suite_path=as_path(suite_path), save_adversarial=bool(save_adversarial), expect_clean=expect_clean,
        )  # fmt: skip
        plans = plan_runs(_with_model(request, model, model_id, options, executor=executor))
        if len(plans) != 1:
            raise BenchError(f"these are {len(plans)} runs; name one model and one suite.")
        with place:
            return _result(execute(plans[0], request.leaderboard, executor=place), kept=leaderboard is not None)


def _with_model(
    request: RunRequest, model: nn.Module | Path | str, model_id: str | None, options: dict[str, Any], *, executor: str
) -> RunRequest:
    """The request for a model that is named, or for a net in memory; raises BenchError for options of the other."""
    require_options(options, evaluate)
    if isinstance(model, str | Path):
        options = options | {"download": request.download, "data_dir": request.data_dir}
        source = source_options(options if model_id is None else options | {"model_id": model_id})
        return replace(request, models=[str(model)], source=source)
    dataset = request.dataset or DEFAULT_DATASET
    adaptation = _adaptation(options, executor, dataset, request)
    entry = entry_of_net(model, dataset, model_id or "in_memory", request.data_dir, adaptation=adaptation)
    return replace(request, entries=[entry], source=source_options({}))


def _adaptation(options: dict[str, Any], executor: str, dataset: str, request: RunRequest) -> dict[str, Any]:
    """What adapts a net in memory; raises BenchError for options that are for other models."""
    for name in options:
        if name not in (*AdapterSettings.model_fields, "label_map"):
            raise BenchError(f"{name} is for models that are named by their source, not for a net.")
    if executor != "local":
        raise BenchError(
            "a net in memory cannot go to other workers; name it as FILE.py:FACTORY, or leave executor out."
        )
    if options.get("label_map") is None:
        return options
    known = {"data_dir": request.data_dir, "download": request.download}
    return options | {"label_map": None, "classes": source_options(options | known).for_classes_of(dataset).classes}


def _result(outcome: RunOutcome, *, kept: bool) -> Result:
    columns = [*KEY_COLUMNS, "value", "ci_low", "ci_high", "n_examples", "direction", "unit"]
    frame = pd.DataFrame([metric.as_dict() for metric in outcome.metrics], columns=columns)
    frame["eps"] = frame["eps"].astype("float64")
    images = outcome.folder / FILE_NAME
    return Result(
        model=outcome.plan.entry.card.name, suite=outcome.plan.suite.name, frame=frame,
        records=read_records(outcome.folder / "examples.parquet"), findings=outcome.findings,
        counters=outcome.counters, seconds=outcome.seconds, folder=outcome.folder if kept else None,
        adversarial=read_own(images) if outcome.manifest.result.adversarial_sha256 else None,
    )  # fmt: skip
