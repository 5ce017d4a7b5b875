"""Shared fixtures: the shipped models, copies of them to damage, and a tiny suite."""

from __future__ import annotations

import functools
import gc
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.memory import limit_openmp_spinning

limit_openmp_spinning()  # before torch: threads that spin take the processors of the workers beside them
import numpy as np  # noqa: E402
import torch  # noqa: E402
import typer.main  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from bench.catalog.cards import read_card, write_card  # noqa: E402
from bench.catalog.locations import shipped  # noqa: E402
from bench.catalog.models import load_model, resolve_models  # noqa: E402
from bench.cli.main import run_command  # noqa: E402
from bench.core.files import sha256_file  # noqa: E402
from bench.data import ImageDataset, load_split, loading  # noqa: E402

if "PYTEST_XDIST_WORKER" in os.environ:
    # workers share the cores: one thread each, and each in the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start compile the package once, not each anew
os.fsync = lambda _: None  # it is for a power cut, which no test has; a process that is killed loses nothing by it
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")  # how fast a machine is, and what else it does, is no fault of ours
typer.main.get_command = functools.cache(typer.main.get_command)  # from a hundred functions, at every call
loading.read_idx_split = functools.cache(loading.read_idx_split)  # the embedded images, which nearly every run unpacks

EMBEDDED_SHA256 = "3581bf52f521803120533f28e81ae934decd1771980630083c739dc6da7d3bc6"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads of torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


TINY_SUITE = """
schema_version = 1
name = "tiny"
version = 1
protocol = "cross_norm"
examples = 20

[[parameters.attacks]]
kind = "sweep"
name = "sweep"
steps = 5
losses = ["margin"]
patience = 1

[parameters.datasets.fashion_mnist]
reference = { linf = 0.1, l2 = 1.5 }
radii = { linf = [0.05, 0.1], l2 = [1.5] }
"""


gc.disable()  # while modules are loaded nothing becomes garbage


def pytest_collection_finish() -> None:
    """The collector need not look again and again at what is loaded and stays."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    """A test draws the same numbers whatever has run before it: captum, Foolbox and others draw from numpy's too."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    # torch.manual_seed keeps a stack trace for a GPU that is not in use yet, which takes a millisecond
    (torch.manual_seed if torch.cuda.is_initialized() else torch.default_generator.manual_seed)(0)


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The key of unfinished runs, and what is remembered of evidence, stay out of the user's own folders."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("CACHE", "STATE"):
            patch.setenv(f"XDG_{kind}_HOME", str(tmp_path_factory.mktemp(kind)))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_probes() -> Iterator[dict[str, int]]:
    """The look for gradient masking, most of the time of a run of few images, is short where it is beside the point."""
    from bench.protocols.robustness import probes

    whole = {"STEPS": probes.STEPS, "QUERIES": probes.QUERIES}
    with pytest.MonkeyPatch.context() as patch:
        for name, number in (("STEPS", 2), ("QUERIES", 8)):
            patch.setattr(probes, name, number)
        yield whole


@pytest.fixture
def whole_probes(short_probes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of that look, and of runs in processes that know only the whole one."""
    for name, number in short_probes.items():
        monkeypatch.setattr(f"bench.protocols.robustness.probes.{name}", number)


@pytest.fixture(scope="session")
def fashion_test() -> Iterator[ImageDataset]:
    yield (data := load_split("fashion_mnist", "test"))
    assert replace(data).sha256 == EMBEDDED_SHA256, "a test has written to images that all share"


@pytest.fixture(scope="session")
def standard() -> nn.Module:
    return load_model(resolve_models(["standard"])[0])


@pytest.fixture(scope="session")
def at_linf() -> nn.Module:
    return load_model(resolve_models(["at_linf"])[0])


@pytest.fixture(scope="session")
def lga() -> nn.Module:
    return load_model(resolve_models(["lga"])[0])


@pytest.fixture
def fashion_images(fashion_test: ImageDataset) -> tuple[Tensor, Tensor]:
    return fashion_test.pixels(slice(0, 64)), fashion_test.labels[:64]


class ModelCopy:
    """A copy of the shipped `standard` model in a registry of its own, to be damaged."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "fashion_mnist" / "copy"
        shutil.copytree(shipped("models") / "fashion_mnist" / "standard", self.folder)
        self.rewrite_card(id="copy")

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    def rewrite_card(self, **changes: object) -> None:
        write_card(self.folder, read_card(self.folder).model_copy(update=changes))

    def adopt_weights(self) -> None:
        """Make the card name whatever the weights file now holds."""
        card = read_card(self.folder)
        weights = card.weights.model_copy(update={"sha256": sha256_file(self.weights)})
        write_card(self.folder, card.model_copy(update={"weights": weights}))


@pytest.fixture
def model_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCopy:
    root = tmp_path / "registry"
    copy = ModelCopy(root)
    monkeypatch.setenv("BENCH_REGISTRY", str(root))
    return copy


@pytest.fixture
def tiny_suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_SUITE)
    return path


class Bench:
    """Runs the command line in this process and returns exit code, standard output and standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def refused(self, *arguments: object) -> str:
        """Run a command that must be refused: exit code 2 and one line; returns the line."""
        code, _, error = self(*arguments)
        lines = [line for line in error.splitlines() if line.startswith("error:")]
        assert code == 2, f"exit code {code}, stderr: {error}"
        assert len(lines) == 1, error
        assert "Traceback" not in error
        assert error.rstrip().splitlines()[-1] == lines[0]
        return lines[0]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("COLUMNS", "200")
    return Bench(capsys)
