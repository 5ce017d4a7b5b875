"""A grid search on the validation split, every trial kept as a row of `<output>/<data set>/tuning.csv`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import locked, sha256_bytes, write_atomically
from bench.training.epochs import LOCK, Progress
from bench.training.fitting import TrainingRequest, fit, measure_gradients
from bench.training.trainer import describe_recipe

_KEY = ["recipe", "changed", "seed", "recipe_sha256", "data_sha256"]


def grid(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination, the last name changing fastest."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def try_setting(
    request: TrainingRequest, changed: Mapping[str, Any], on_progress: Callable[[Progress], None] = lambda _: None
) -> dict[str, Any]:
    """Train one setting, measure it on held-out training examples, write its row; a row that is there is returned.

    The row has the parameters that were `changed`, validation accuracy, quick robust validation accuracies, the
    gradients' stability, norm and cosine to the targets, the minutes. The test split is not looked at.

    Raises:
        BenchError: training failed, the file of an earlier search cannot be read, or the schedule looks at the test
            split to choose its epoch.
    """
    if request.recipe.schedule.checkpoint == "best_test":
        raise BenchError("checkpoint=best_test looks at test images, which a search must not; use best_validation.")
    path = request.output / request.dataset / "tuning.csv"
    setting = json.dumps(dict(changed), sort_keys=True)
    done = read_trials(path)
    digest = sha256_bytes(json.dumps(describe_recipe(request.recipe), sort_keys=True).encode())
    key = [request.recipe.name, setting, request.seed, digest, request.load("train").sha256]
    same = done[(done[_KEY].astype(str) == [str(part) for part in key]).all(axis=1)]
    if len(same):
        return {str(name): value for name, value in same.iloc[-1].items()}
    trial = dataclasses.replace(request, model_id=f"tuning-{sha256_bytes(str(key).encode())[:12]}")
    fitted = fit(trial, on_progress=on_progress)
    published = fitted.run.rows[fitted.run.published]
    accuracies = {name: value for name, value in published.items() if name.startswith("validation_")}
    gradients = measure_gradients(trial, fitted.run.model, fitted.dataset, fitted.source)
    row = dict(zip(_KEY, key, strict=True)) | {"epochs": request.recipe.schedule.epochs} | accuracies
    row |= {f"stability_{radius}": value for radius, value in gradients.stability.items()}
    row |= {"target_cosine": gradients.target_cosine, "gradient_norm": gradients.norm}
    row["minutes"] = round(fitted.run.seconds / 60, 2)
    with locked(path.with_name(LOCK)):
        table = pd.concat([read_trials(path), pd.DataFrame([row])], ignore_index=True)
        write_atomically(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    shutil.rmtree(trial.work, ignore_errors=True)
    return row


def read_trials(path: Path) -> pd.DataFrame:
    """All trials of a tuning.csv, none where there is no such file; raises BenchError."""
    if not path.is_file():
        return pd.DataFrame(columns=_KEY)
    try:
        table = pd.read_csv(path)
        table[_KEY]
    except (ValueError, KeyError) as error:
        raise BenchError(f"{path} is no table of an earlier search; move it away.") from error
    return table
