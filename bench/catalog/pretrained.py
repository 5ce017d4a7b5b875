"""Pretrained weights of timm, torchvision and the Hugging Face hub: from the local cache, fetched only when asked.

What is fetched or found is checked against the digest that its publisher gives: the hub names each blob by its own,
torchvision and timm put the first digits into the file's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from bench.catalog.state_files import read_state
from bench.core.errors import BenchError, in_one_line
from bench.core.files import read_regular, sha256_file
from bench.core.packages import optional_import
from bench.nets.adapter import AdapterSettings
from bench.nets.external.zoos import timm_package, torchvision_models

_HASHED_NAME = re.compile(r"-([0-9a-f]{8,})\.pth?$")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Pretrained:
    """What a package says of a net with pretrained weights: how to build it, how images reach it, its state."""

    name: str
    num_classes: int
    adapter: AdapterSettings
    in_channels: int = 3
    arguments: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] | None = None


def timm_pretrained(name: str, *, download: bool, weights: bool) -> Pretrained:
    """A timm model; its weights only if `weights`. Raises BenchError: unknown, or not here and no `download`."""
    config = timm_package(name).get_pretrained_cfg(name)
    settings = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    found = _from_config(name, settings)
    if not weights:
        return found
    if settings.get("hf_hub_id"):
        file_name = settings.get("hf_hub_filename")
        return _with_state(found, _hub_weights(settings["hf_hub_id"], None, file_name, download=download))
    if settings.get("url"):
        return _with_state(found, _from_url(settings["url"], f"timm:{name}", download=download))
    raise BenchError(f"timm:{name} has no pretrained weights; name a file of weights.", option="weights")


def hub_pretrained(text: str, *, download: bool, weights: bool) -> Pretrained:
    """A timm model of the Hugging Face hub, `ORG/NAME` or `ORG/NAME@REVISION`; raises BenchError."""
    repository, _, revision = text.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise BenchError(f"hf-hub:{text} does not name a repository; use hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION.")
    path = _hub_file(repository, "config.json", revision or None, download=download)
    try:
        config = json.loads(read_regular(path))
        name, settings = str(config["architecture"]), dict(config.get("pretrained_cfg") or {})
        settings.setdefault("num_classes", config.get("num_classes", 1000))
        found = _from_config(name, settings, dict(config.get("model_args") or {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BenchError(f"hf-hub:{text} has no config.json of a timm model ({error!r}).") from error
    return _with_state(found, _hub_weights(repository, revision or None, None, download=download)) if weights else found


def torchvision_pretrained(name: str, *, download: bool, weights: bool) -> Pretrained:
    """A torchvision classifier with its default weights; raises BenchError."""
    default = torchvision_models(name).get_model_weights(name).DEFAULT
    transforms = default.transforms()
    adapter = AdapterSettings(
        mean=tuple(transforms.mean), std=tuple(transforms.std), input_size=transforms.crop_size[0]
    )
    found = Pretrained(name, len(default.meta["categories"]), adapter)
    return _with_state(found, _from_url(default.url, f"torchvision:{name}", download=download)) if weights else found


def _from_config(name: str, config: dict[str, Any], arguments: dict[str, Any] | None = None) -> Pretrained:
    channels, side, *_ = config.get("input_size") or (3, None)
    adapter = AdapterSettings(mean=tuple(config.get("mean") or ()), std=tuple(config.get("std") or ()), input_size=side)
    classes = int(config.get("num_classes") or 1000)
    return Pretrained(name, classes, adapter, in_channels=int(channels), arguments=arguments or {})


def _with_state(found: Pretrained, path: Path) -> Pretrained:
    return replace(found, state=read_state(path))


def _hub_weights(repository: str, revision: str | None, file_name: str | None, *, download: bool) -> Path:
    names = [file_name] if file_name else ["model.safetensors", "pytorch_model.bin"]
    errors = []
    for name in names:
        try:
            return _hub_file(repository, name, revision, download=download)
        except BenchError as error:
            errors.append(error)
    raise errors[0]


def _hub_file(repository: str, file_name: str, revision: str | None, *, download: bool) -> Path:
    hub = optional_import("huggingface_hub", "a model of the hub", "ribench[timm]")
    try:
        path = hub.hf_hub_download(repository, file_name, revision=revision, local_files_only=not download)
    except Exception as error:
        if not download:
            raise BenchError(
                f"{file_name} of {repository} is not in the cache of the Hugging Face hub; allow its download.",
                option="download",
            ) from error
        raise BenchError(
            f"{file_name} of {repository} cannot be fetched from the Hugging Face hub ({in_one_line(error)})."
        ) from error
    _check_blob(Path(path))
    return Path(path)


def _check_blob(path: Path) -> None:
    """The cache names a blob by its digest: sha256 for large files, git's sha1 for small ones."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        digest = sha256_file(blob)
    elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = read_regular(blob)
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        raise BenchError(
            f"{path} is not a blob of the hub's cache, so its digest is unknown; name a file of weights.",
            option="weights",
        )
    if digest != blob.name:
        raise BenchError(f"{path} does not match its digest; delete {blob} and download it again.", option="download")


def _from_url(url: str, what: str, *, download: bool) -> Path:
    """The file of a URL in torch's cache; its name holds the first digits of its sha256."""
    name = Path(urlparse(url).path).name
    stated = _HASHED_NAME.search(name)
    if stated is None:
        raise BenchError(
            f"the publisher of {what} gives no digest for {name}; fetch it yourself and name that file.",
            option="weights",
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        if not download:
            raise BenchError(
                f"the weights of {what} are not on this machine ({path}); allow their download.", option="download"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=stated[1], progress=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise BenchError(
                f"the weights of {what} cannot be fetched from {urlparse(url).netloc} ({error})."
            ) from error
    if not sha256_file(path).startswith(stated[1]):
        raise BenchError(
            f"{path} does not match the digest in its name; delete it and download it again.", option="download"
        )
    return path
