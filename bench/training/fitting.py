"""From a request to a trained net: data, source of the target maps, maps, net, trainer."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model
from bench.catalog.cards import Gradients
from bench.catalog.models import find_model, load_model, resolve_models
from bench.catalog.sources import SourceOptions
from bench.catalog.state_files import state_bytes, weights_of
from bench.core.devices import device_label
from bench.core.errors import BenchError, bench_command, reason_of
from bench.core.files import clear_disk_errors, write_atomically
from bench.core.keyed_random import stream_key
from bench.core.memory import is_out_of_memory
from bench.core.names import require_safe_name
from bench.core.version import code_version
from bench.data import ImageDataset, known_spec, load_split
from bench.data.loading import Split
from bench.data.specs import DatasetSpec
from bench.nets import build_net
from bench.nets.preparation import prepare_net
from bench.training.epochs import CHECKPOINT, LOCK, Progress, alone_in
from bench.training.measures import gradient_alignment, gradient_norm, gradient_stability
from bench.training.recipe import Recipe
from bench.training.target_maps import Source, Wanted
from bench.training.templates import TEMPLATES
from bench.training.trainer import TrainingRun, split_validation, train

MEASURED_EXAMPLES = 1000
UNTRAINED = "untrained"
"""Source of target maps: a randomly initialised net, the control of the IR paper."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What the user asked for, as the command line has it."""

    recipe: Recipe
    dataset: str
    output: Path
    device: torch.device
    model_id: str | None = None
    seed: int = 0
    data_dir: Path | None = None
    download: bool = False
    fresh: bool = False
    method: str | None = None

    @property
    def name(self) -> str:
        return self.model_id or self.recipe.name

    @property
    def folder(self) -> Path:
        """Where the finished model lies."""
        return self.output / self.dataset / self.name

    @property
    def work(self) -> Path:
        """Where the unfinished one lies, so that a stopped training can go on."""
        return self.output / self.dataset / f".{self.name}.training"

    @property
    def spec(self) -> DatasetSpec:
        """What is known of the data set; raises BenchError where nothing is."""
        return known_spec(self.dataset, "training")

    def load(self, split: Split) -> ImageDataset:
        return load_split(self.dataset, split, data_dir=self.data_dir, download=self.download)

    def require_free(self) -> None:
        """Raise BenchError if the name cannot be a folder's, or the folder is taken."""
        require_safe_name(self.name, "model id")
        if self.folder.exists() and not self.fresh:
            raise BenchError(
                f"{self.folder} exists already; choose another name, or train it afresh.", option=("model_id", "fresh")
            )

    def prepare_work(self) -> None:
        """Make the work folder, empty where the training is to begin afresh; raises BenchError where one is at work."""
        with clear_disk_errors(self.work):
            if self.fresh and self.work.is_dir():
                with alone_in(self.work):
                    shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Prepare the work folder; what fails in here leaves it only if it holds a whole epoch, to be gone on from.

        Raises:
            BenchError: as `prepare_work`.
        """
        self.prepare_work()
        try:
            yield
        except BaseException:
            with suppress(BenchError), alone_in(self.work):  # another training may have begun there
                if not (self.work / CHECKPOINT).exists():
                    shutil.rmtree(self.work, ignore_errors=True)
            raise

    def publish(self, net: nn.Module, write_card: Callable[[Path], None]) -> None:
        """Write weights and card beside training.csv, and move the finished model into its place."""
        write_atomically(self.work / "weights.safetensors", state_bytes(net))
        write_card(self.work)
        with clear_disk_errors(self.folder):
            for name in (CHECKPOINT, LOCK):
                (self.work / name).unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.work.replace(self.folder)


@dataclass(frozen=True, slots=True)
class Fit:
    """A finished training with what it was made from."""

    run: TrainingRun
    net_parameters: dict[str, Any]
    source: Source | None
    dataset: ImageDataset
    test: ImageDataset


def fit(
    request: TrainingRequest,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_targets: Callable[[int, int], None] = lambda *_: None,
) -> Fit:
    """Train what the request asks for; its state lies in `request.work` until someone publishes or removes it.

    Raises:
        BenchError: the data or the source model is missing, both splits are the same images, the net cannot take
            them, or training failed.
    """
    net_parameters = request.recipe.architecture_parameters(request.spec)
    dataset, test = request.load("train"), request.load("test")
    if dataset.sha256 == test.sha256:
        raise BenchError(f"{dataset.source} and {test.source} are the same images; a test split has to be others.")
    source = find_source(request, net_parameters)
    torch.manual_seed(request.seed)
    model = build_net(request.recipe.schedule.architecture, net_parameters)
    model = _prepared(model.to(request.device), dataset.pixels(slice(0, 2)).to(request.device))
    with request.at_work():
        maps = None
        if source is not None:
            wanted = Wanted(
                source, dataset, split_validation(len(dataset))[0],
                seed=request.seed, device=request.device, on_progress=on_targets,
            )  # fmt: skip
            with torch.random.fork_rng([request.device] if request.device.type == "cuda" else []):
                maps = request.recipe.method.target_maps(wanted)
        run = train(
            request.recipe, model, dataset, seed=request.seed, device=request.device, folder=request.work,
            target_maps=maps, test=test, on_progress=on_progress,
        )  # fmt: skip
    return Fit(run, net_parameters, source, dataset, test=test)


def _prepared(net: nn.Module, images: Tensor) -> nn.Module:
    """The net prepared for many gradients, or as it is where that breaks it: `x.view` after a convolution, say.

    Raises:
        BenchError: it cannot take such images either way.
    """
    plain = copy.deepcopy(net)
    net = prepare_net(net)
    for prepared in (net, plain):
        try:
            with attacked_model(prepared):
                inputs = images.requires_grad_(True)
                torch.autograd.grad(prepared(inputs).sum(), inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            why = reason_of(error)
        else:
            return prepared
    raise BenchError(f"the net cannot take images of shape {tuple(images.shape[1:])}: {why}")


def find_source(request: TrainingRequest, net_parameters: dict[str, Any]) -> Source | None:
    """From the output folder if it lies there, else from the registry; `untrained` is built afresh."""
    name = request.recipe.method.source
    if name is None:
        return None
    if name == UNTRAINED:
        torch.manual_seed(stream_key(UNTRAINED, request.seed) & ((1 << 63) - 1))
        net = build_net(request.recipe.schedule.architecture, net_parameters).to(request.device)
        return Source(name, weights_of(net).sha256, net)
    beside = request.output / request.dataset / name
    if (beside / "card.toml").is_file():
        entry = resolve_models([str(beside.resolve())])[0]
    elif find_model(f"{request.dataset}/{name}") is not None:
        entry = resolve_models([name], request.dataset, options=SourceOptions(download=request.download))[0]
    else:
        named = {"recipe": name} if name in TEMPLATES else {"recipe": "RECIPE", "id": name}
        raise BenchError(
            f"recipe {request.recipe.name} needs the model {request.dataset}/{name} for its target maps; train that "
            f"first: {bench_command('train', **named, dataset=request.dataset, output=request.output)}"
        )
    return Source(entry.card.name, entry.card.weights.sha256, load_model(entry, request.device))


def measure_gradients(
    request: TrainingRequest, model: nn.Module, dataset: ImageDataset, source: Source | None
) -> Gradients:
    """Stability, norm, and alignment where there are targets, on the first held-out examples."""
    indices = split_validation(len(dataset))[1][:MEASURED_EXAMPLES]
    images, labels = dataset.pixels(indices).to(request.device), dataset.labels[indices].to(request.device)
    method, aligned = request.recipe.method, None
    if source is not None:
        maps = method.target_maps(Wanted(source, dataset, indices, seed=request.seed, device=request.device))
        aligned = gradient_alignment(model, images, labels, method.compared_maps(maps))
    stability = gradient_stability(model, images, labels, indices)
    norm = gradient_norm(model, images, labels)
    return Gradients(examples=len(indices), stability=stability, target_cosine=aligned, norm=norm)


def environment(device: torch.device) -> dict[str, Any]:
    """What a card says of the code and machine that trained."""
    versions = {"bench_version": code_version(), "torch_version": str(torch.__version__)}
    return {**versions, "device": device_label(device), "threads": torch.get_num_threads()}
