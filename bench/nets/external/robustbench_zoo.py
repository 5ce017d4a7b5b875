"""RobustBench's model zoo, and nothing else of that package.

`import robustbench` runs its evaluation code, which imports a module `autoattack` that no package index provides. The
zoo itself needs none of that, so it is imported below an empty stand-in for the package, which leaves again when the
zoo is in memory. torchattacks carries an older copy of part of these files; where its installation has overwritten
them, that is said.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.core.errors import BenchError, reason_of
from bench.core.names import unknown_name

DATASETS = {"cifar10": "cifar_10_models", "cifar100": "cifar_100_models", "imagenet": "imagenet_models"}
_INSTALL = "pip install 'ribench[robustbench]'"
_REPAIR = "pip install --force-reinstall --no-deps robustbench==1.1.1"
_CONSTANTS = ("mean", "std", "mu", "sigma")
"""Buffers that a zoo's net sets by itself and its checkpoint may lack."""
_LEFTOVERS = ("model_preact_hl1.", ".scores")
"""Parts of checkpoints that their nets do not use when they predict."""


def zoo_entry(dataset: str, threat: str, name: str) -> Mapping[str, Any]:
    """What the zoo says of one model: `model`, its factory, and `gdrive_id`, where its authors keep the checkpoint.

    Raises:
        BenchError: robustbench is missing or damaged, the name is unknown, or the model is not one net with a
            checkpoint.
    """
    if dataset not in DATASETS:
        raise unknown_name(dataset, DATASETS, "RobustBench data set")
    module = _import_zoo(f"robustbench.model_zoo.{dataset}")
    by_threat = {key.value: models for key, models in getattr(module, DATASETS[dataset]).items()}
    if threat not in by_threat:
        raise unknown_name(threat, by_threat, f"RobustBench threat model of {dataset}")
    if name not in by_threat[threat]:
        raise unknown_name(name, by_threat[threat], f"RobustBench {dataset}/{threat} model")
    entry: Mapping[str, Any] = by_threat[threat][name]
    if isinstance(entry["gdrive_id"], list):
        raise BenchError(f"robustbench:{dataset}/{threat}/{name} is an ensemble of several checkpoints; use one net.")
    if not entry["gdrive_id"]:
        raise BenchError(
            f"robustbench:{dataset}/{threat}/{name} has no checkpoint in the zoo, its weights come with timm or "
            "torchvision; use timm:NAME or torchvision:NAME."
        )
    return entry


def build_robustbench_net(dataset: str, threat: str, name: str) -> nn.Module:
    """The net alone, with random weights; raises BenchError as `zoo_entry` does."""
    with warnings.catch_warnings(action="ignore"):
        net: nn.Module = zoo_entry(dataset, threat, name)["model"]()
    return net


def fit_checkpoint(net: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a checkpoint, the zoo's prefixes and all; raises BenchError if it lacks weights of the net, or has more."""
    own = net.state_dict()
    plain = {key.removeprefix("module.").removeprefix("model."): value for key, value in state.items()}
    wrapped = {f"model.{key}": value for key, value in plain.items()}
    chosen = max((plain, wrapped), key=lambda candidate: len(candidate.keys() & own.keys()))
    missing = [key for key in own.keys() - chosen.keys() if key.rsplit(".", 1)[-1] not in _CONSTANTS]
    extra = [key for key in chosen.keys() - own.keys() if not any(part in key for part in _LEFTOVERS)]
    if missing or extra:
        detail = f"{len(missing)} missing, {len(extra)} unknown, such as {sorted(missing + extra)[0]}"
        raise BenchError(f"the checkpoint is not one of robustbench's {name} ({detail}).")
    try:
        net.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        raise BenchError(f"the checkpoint does not fit robustbench's {name}: {reason_of(error)}.") from error


def _import_zoo(module: str) -> types.ModuleType:
    if module in sys.modules:
        return sys.modules[module]
    _refuse_overwritten()
    standing = sys.modules.get("robustbench")
    if standing is None:
        spec = importlib.util.find_spec("robustbench")
        if spec is None:
            raise BenchError(f"a RobustBench model needs the package robustbench; install it: {_INSTALL}.")
        shell = types.ModuleType("robustbench")
        shell.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["robustbench"] = shell
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError as error:
        raise BenchError(f"RobustBench's model zoo cannot be imported ({error}); install it: {_INSTALL}.") from error
    finally:
        if standing is None:  # a later import of robustbench gets the real one, or its own error
            del sys.modules["robustbench"]


def _refuse_overwritten() -> None:
    """Raise BenchError where files of the zoo are not those that robustbench was installed with."""
    try:
        distribution = metadata.distribution("robustbench")
    except metadata.PackageNotFoundError:
        return
    zoo = [file for file in distribution.files or [] if str(file).startswith("robustbench/model_zoo/") and file.hash]
    changed = [file for file in zoo if file.suffix == ".py" and not _as_installed(file)]
    if changed:
        raise BenchError(
            f"{len(changed)} files of RobustBench's zoo, such as {changed[0]}, are not those of robustbench "
            f"{distribution.version}; torchattacks installs older copies over them. Put them back: {_REPAIR}."
        )


def _as_installed(file: metadata.PackagePath) -> bool:
    path, recorded = Path(str(file.locate())), file.hash
    if recorded is None or not path.is_file():
        return False
    digest = base64.urlsafe_b64encode(hashlib.new(recorded.mode, path.read_bytes()).digest()).decode().rstrip("=")
    return digest == recorded.value
