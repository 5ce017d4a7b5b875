"""Models out of timm, the Hugging Face hub, torchvision and RobustBench."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.catalog.models import resolve_models
from bench.catalog.sources import SourceOptions
from bench.core.errors import BenchError
from tests.catalog.named import Images, logits_of


def importlib_spec(package: str) -> object:
    from importlib.util import find_spec

    return find_spec(package)


def test_a_timm_net_with_weights_of_its_own(tmp_path: Path, fashion_images: Images) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    net = timm.create_model("test_resnet", num_classes=10).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    options = SourceOptions(weights=tmp_path / "w.safetensors", input_size=32)
    images = fashion_images[0][:4]
    found = logits_of("timm:test_resnet", images, options)
    resized = nn.functional.interpolate(images.expand(-1, 3, -1, -1), (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(found, net((resized - 0.5) / 0.5), atol=1e-5, rtol=1e-4)


def hub_cache(root: Path, files: dict[str, bytes]) -> None:
    """The cache of the Hugging Face hub as its client lays it out: blobs by digest, links to them by name."""
    folder = root / "models--someone--net"
    snapshot = folder / "snapshots" / ("c" * 40)
    for part in (snapshot, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text("c" * 40)
    for name, content in files.items():
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = folder / "blobs" / (git if name.endswith(".json") else hashlib.sha256(content).hexdigest())
        blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))


def test_a_hub_model_comes_from_the_cache_with_its_digest_checked(
    tmp_path: Path, fashion_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BenchError, match="not in the cache of the Hugging Face hub; allow its download"):
        resolve_models(["hf-hub:someone/net"])
    torch.manual_seed(4)
    net = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    save_file(net.state_dict(), tmp_path / "w")
    settings = {"mean": [0.2], "std": [0.4], "input_size": [1, 28, 28]}
    config = {"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": settings}
    hub_cache(
        tmp_path, {"config.json": json.dumps(config).encode(), "model.safetensors": (tmp_path / "w").read_bytes()}
    )
    images = fashion_images[0][:4]
    with torch.no_grad():
        torch.testing.assert_close(logits_of("hf-hub:someone/net", images), net((images - 0.2) / 0.4))
    (blob,) = (path for path in (tmp_path / "models--someone--net" / "blobs").iterdir() if len(path.name) == 64)
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(BenchError, match="does not match its digest"):
        resolve_models(["hf-hub:someone/net"])


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "pretrained"])
def test_arguments_of_a_hubs_config_cannot_load_anything(argument: str) -> None:
    pytest.importorskip("timm")
    from bench.nets import build_net

    with pytest.raises(BenchError, match="could load something"):
        build_net("timm", {"name": "test_resnet", "num_classes": 10, "arguments": {argument: "/etc/passwd"}})
    with pytest.raises(BenchError, match="unknown timm model"):
        build_net("timm", {"name": "local-dir:/etc", "num_classes": 10})


def test_torchvision_weights_are_checked_by_the_digest_in_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(BenchError, match=r"not on this machine .*allow their download"):
        resolve_models(["torchvision:squeezenet1_1"])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"something else")
    with pytest.raises(BenchError, match="does not match the digest in its name"):
        resolve_models(["torchvision:squeezenet1_1"])


def test_a_torchvision_net_with_a_class_subset(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(5)
    net = models.squeezenet1_1(num_classes=12).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    (tmp_path / "map.json").write_text(json.dumps({str(digit): 11 - digit for digit in range(10)}))
    images = torch.rand(2, 1, 28, 28)
    common = {"weights": tmp_path / "w.pth", "num_classes": 12, "input_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    subset = SourceOptions(**common, classes=tuple(range(11, 1, -1)))
    found = logits_of("torchvision:squeezenet1_1", images, subset, "mnist")
    resized = nn.functional.interpolate(images.expand(-1, 3, -1, -1), (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(found, net((resized - 0.5) / 0.5)[:, range(11, 1, -1)])
    mapped = SourceOptions(**common, label_map=tmp_path / "map.json")
    torch.testing.assert_close(logits_of("torchvision:squeezenet1_1", images, mapped, "mnist"), found)


def test_a_robustbench_net_from_a_checkpoint_in_the_zoos_format(tmp_path: Path) -> None:
    for package in ("timm", "robustbench", "geotorch", "torchdiffeq"):
        if importlib_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from bench.nets.external.robustbench_zoo import build_robustbench_net

    name = "robustbench:cifar10/Linf/Wong2020Fast"
    with pytest.raises(BenchError, match="needs its checkpoint: fetch Google Drive file"):
        resolve_models([name], "cifar10")
    torch.manual_seed(6)
    net = build_robustbench_net("cifar10", "Linf", "Wong2020Fast").eval()
    constants = {"mu", "sigma", "mean", "std"}
    state = {f"module.{key}": value for key, value in net.state_dict().items() if key not in constants}
    torch.save({"state_dict": state}, tmp_path / "zoo.pt")
    images = torch.rand(2, 3, 32, 32)
    found = logits_of(name, images, SourceOptions(weights=tmp_path / "zoo.pt"), "cifar10")
    with torch.no_grad():
        torch.testing.assert_close(found, net(images))
    state.popitem()
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(BenchError, match="not one of robustbench's Wong2020Fast"):
        resolve_models([name], "cifar10", options=SourceOptions(weights=tmp_path / "short.pt"))
    with pytest.raises(BenchError, match="did you mean Wong2020Fast"):
        resolve_models(["robustbench:cifar10/Linf/Wang2020Fast"], "cifar10")
