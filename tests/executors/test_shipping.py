"""What travels to a worker arrives whole, and what cannot travel is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.catalog.sources import SourceOptions
from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.executors.shipping import pack_plan, pack_split, unpack_plan, unpack_split
from bench.runs.plan import RunPlan, RunRequest, plan_runs
from tests.catalog.test_sources import WEIGHTS
from tests.conftest import ModelCopy

FACTORY = """
from bench.nets import build_net

def make():
    return build_net("small_cnn", dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353]))
"""


def plan_of(folder: Path, suite: Path, model: str, weights: Path | None = None) -> RunPlan:
    source = SourceOptions(weights=weights)
    (plan,) = plan_runs(RunRequest([model], [str(suite)], folder, device="cpu", source=source))
    return plan


def there(plan: RunPlan) -> nn.Module:
    """The plan's model after the journey."""
    packed = pickle.loads(pickle.dumps(pack_plan(plan)))
    return unpack_plan(packed, torch.device("cpu"), plan.dataset, None)[1]


def require_same(plan: RunPlan, expected: nn.Module) -> None:
    images = plan.dataset.pixels(slice(0, 8))
    torch.testing.assert_close(there(plan)(images), expected(images))


def test_a_registered_model_travels_by_its_bytes(
    tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy, standard: nn.Module
) -> None:
    require_same(plan_of(tmp_path, tiny_suite, "copy"), standard)


def test_a_factory_travels_by_the_bytes_of_its_file(tmp_path: Path, tiny_suite: Path, standard: nn.Module) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    plan = plan_of(tmp_path, tiny_suite, f"{tmp_path / 'net.py'}:make", WEIGHTS)
    require_same(plan, standard)


def test_an_attack_of_the_users_travels_by_the_bytes_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def attack(model, images, labels, *, eps):\n    return images\n")
    (tmp_path / "mine.toml").write_text(
        'schema_version = 1\nname = "mine"\nversion = 1\nprotocol = "robustness"\nexamples = 4\n'
        '[[parameters.attacks]]\nattack = "mine.py:attack"\n'
        "[parameters.datasets.fashion_mnist]\nreference = { linf = 0.1 }\n"
    )
    request = RunRequest(["standard"], [str(tmp_path / "mine.toml")], tmp_path, programs=[tmp_path / "mine.py"])
    (plan,) = plan_runs(request)
    packed = pickle.loads(pickle.dumps(pack_plan(plan)))
    (tmp_path / "mine.py").unlink()
    arrived = unpack_plan(packed, torch.device("cpu"), plan.dataset, None)[0]
    assert arrived.protocol.program == plan.protocol.program and "attack_program" in arrived.dependencies


def test_a_file_that_changed_after_planning_is_refused(tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy) -> None:
    plan = plan_of(tmp_path, tiny_suite, "copy")
    model_copy.weights.write_bytes(b"rubbish")
    with pytest.raises(BenchError, match="a file of model fashion_mnist/copy has changed"):
        pack_plan(plan)


def test_a_factory_that_needs_its_neighbours_says_so(tmp_path: Path, tiny_suite: Path) -> None:
    (tmp_path / "a_neighbour.py").write_text("SIZE = 28")
    (tmp_path / "net.py").write_text("import a_neighbour\n" + FACTORY)
    plan = plan_of(tmp_path, tiny_suite, f"{tmp_path / 'net.py'}:make", WEIGHTS)
    packed = pack_plan(plan)
    __import__("sys").modules.pop("a_neighbour")
    with pytest.raises(BenchError, match="No module named 'a_neighbour'"):
        unpack_plan(packed, torch.device("cpu"), plan.dataset, None)


def test_a_net_in_memory_cannot_travel(tmp_path: Path, tiny_suite: Path, standard: nn.Module) -> None:
    from bench.api.in_memory import entry_of_net

    entry = entry_of_net(standard, "fashion_mnist", "mine", None, adaptation={})
    (plan,) = plan_runs(RunRequest([], [str(tiny_suite)], tmp_path, device="cpu", entries=[entry]))
    with pytest.raises(BenchError, match="only in this process's memory"):
        pack_plan(plan)


def test_images_arrive_with_their_digest_even_in_memory_that_cannot_be_written(fashion_test: ImageDataset) -> None:
    packed = pickle.loads(pickle.dumps(pack_split(fashion_test)))
    packed.images.flags.writeable = packed.labels.flags.writeable = False
    arrived = unpack_split(packed)
    assert arrived.sha256 == fashion_test.sha256
    assert arrived.images.data_ptr() == packed.images.ctypes.data
