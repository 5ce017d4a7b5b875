"""RIBench from Python: what the command line does, for notebooks and scripts.

Load a registered model, or any that `bench run --model` takes, and judge it:

>>> import bench
>>> result = bench.evaluate("standard", "cross_norm_quick", examples=20, device="cpu")
>>> result.model, result.suite, len(result.records["example_id"].unique())
('fashion_mnist/standard', 'cross_norm_quick', 20)
>>> clean = result.value("clean_accuracy")
>>> clean >= result.value("robust_accuracy", norm="linf", eps=0.1)
True

A net in memory is judged in the same way; it takes images in [0, 1] and returns logits:

>>> net = bench.load_model("at_linf")
>>> bench.evaluate(net, "cross_norm_quick", examples=5, model_id="mine").model
'fashion_mnist/mine'

Attack or explain single images; what an attack found has been verified:

>>> from bench.data import load_split
>>> test = load_split("fashion_mnist", "test")
>>> images, labels = test.pixels(slice(0, 8)), test.labels[:8]
>>> attacked = bench.attack(bench.load_model("standard"), images, labels, norm="linf", eps=0.1)
>>> attacked.images.shape == images.shape, bool(attacked.broken.all())
(True, True)
>>> maps = bench.attribute(net, images, labels, method="smoothgrad", samples=4)
>>> maps.shape
torch.Size([8, 1, 28, 28])
"""

from __future__ import annotations

import copy
import html
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench.attacks.losses import LossName
from bench.attacks.pgd import attacked_model, pgd
from bench.attacks.verification import pull_inside, verify
from bench.attribution.methods import METHODS
from bench.attribution.methods import attribute as attribution_maps
from bench.catalog.cards import ModelCard, Weights
from bench.catalog.models import DEFAULT_DATASET, ModelEntry, resolve_models
from bench.catalog.models import load_model as load_entry
from bench.catalog.sources import METHOD, SourceOptions
from bench.catalog.state_files import state_bytes
from bench.catalog.suites import Suite, resolve_suites
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.core.keyed_random import keyed_uniform
from bench.core.names import require_safe_name, unknown_name
from bench.core.precision import float32_products
from bench.core.threat import NORM_LABELS, NORMS, Norm
from bench.core.toml_files import explain
from bench.data import dataset_spec, load_split
from bench.orchestration import RunOutcome, RunRequest, execute, plan_runs
from bench.protocols.clean_pass import require_unit_pixels
from bench.results.findings import Finding
from bench.results.records import read_records

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.table import Table

__all__ = ["AttackResult", "Result", "attack", "attribute", "evaluate", "load_model", "load_suite"]


def load_model(
    name: str,
    *,
    dataset: str | None = None,
    device: str = "cpu",
    registry: Path | str | None = None,
    program: Path | str | None = None,
    **options: Any,
) -> nn.Module:
    """A model by its name, folder or source, as `bench run --model` takes it.

    Args:
        name: e.g. `at_linf`, `mnist/at_l2`, `zoo/mine`, `net.py:make`, `timm:resnet18`.
        registry: a folder of models, looked in first.
        program: the file that a card with a [program] section needs; it is run.
        options: of a model named by its source; the fields of bench.catalog.sources.SourceOptions, e.g. `weights`.

    Returns:
        A net in eval mode, float32, parameters without gradient: (N, C, H, W) in [0, 1] in, logits (N, K) out.

    Raises:
        BenchError: unknown name, several models, or weights that are missing, damaged or not those of the card.
    """
    entries = resolve_models(
        [name], dataset, options=_options(options), registry=_path(registry), program=_path(program)
    )
    if len(entries) != 1:
        raise BenchError(f"{name!r} stands for {len(entries)} models; name one.")
    return load_entry(entries[0], resolve_device(device))


def load_suite(name: Path | str) -> Suite:
    """A suite by its name or the path of its TOML file; raises BenchError."""
    suites = resolve_suites([str(name)])
    if len(suites) != 1:
        raise BenchError(f"{str(name)!r} stands for {len(suites)} suites; name one.")
    return suites[0]


def evaluate(
    model: nn.Module | str,
    suite: Suite | Path | str,
    *,
    dataset: str | None = None,
    examples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    data_dir: Path | str | None = None,
    leaderboard: Path | str | None = None,
    registry: Path | str | None = None,
    program: Path | str | None = None,
    model_id: str | None = None,
    **options: Any,
) -> Result:
    """Evaluate one model under one suite, as `bench run` does.

    Args:
        model: a net (images in [0, 1] in, logits out), or whatever `bench run --model` takes. A net is copied, so its
            mode, device and gradients stay as they are.
        batch_size: images attacked at once; None chooses by device and memory.
        precision: of the search for adversarial examples: float32, tf32 or bfloat16; verified in float32.
        leaderboard: a folder to keep rows and evidence in; None keeps nothing on the disk.
        model_id: what a net or a model named by its source is called.
        options: as in `load_model`.

    Raises:
        BenchError: as `bench run` would be refused.
    """
    entries: list[ModelEntry] = []
    names: list[str] = []
    if isinstance(model, nn.Module):
        if options:
            raise BenchError(f"{next(iter(options))} is for models that are named by their source, not for a net.")
        entries = [_entry_of_net(model, dataset or DEFAULT_DATASET, model_id or "in_memory", _path(data_dir))]
    else:
        names = [model]
        options |= {} if model_id is None else {"model_id": model_id}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        board = Path(temporary) if leaderboard is None else Path(leaderboard)
        suite_path = suite.path if isinstance(suite, Suite) else suite
        request = RunRequest(
            names,
            [str(suite_path)],
            board,
            dataset,
            examples,
            seed,
            device,
            batch_size,
            _path(data_dir),
            download=bool(options.get("download", False)),
            source=_options(options),
            registry=_path(registry),
            program=_path(program),
            entries=entries,
            precision=precision,
        )
        plans = plan_runs(request)
        if len(plans) != 1:
            raise BenchError(f"these are {len(plans)} runs; name one model and one suite.")
        outcome = execute(plans[0], board)
        return _result(outcome, kept=leaderboard is not None)


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, verified by the plain model.

    Attributes:
        images: (N, C, H, W) in [0, 1]; the adversarial example where `broken`, the clean image elsewhere.
        broken: (N,) bool; also where the clean image is misclassified.
        predictions: (N,) what the model says of `images`.
        distances: (N,) float64, how far `images` lie from the clean ones in the attack's norm.
    """

    images: Tensor
    broken: Tensor
    predictions: Tensor
    distances: Tensor

    @property
    def robust_accuracy(self) -> float:
        """The share of images that withstood."""
        return 1.0 - float(self.broken.float().mean())


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: float,
    steps: int = 40,
    losses: Sequence[LossName] = ("cross_entropy", "margin"),
    seed: int = 0,
    batch_size: int = 256,
) -> AttackResult:
    """Untargeted PGD at one radius, one keyed random start for each loss, worst case per image.

    For a look at images; the suites attack harder, see `evaluate`.

    Args:
        model: images in [0, 1] in, logits out; attacked in eval mode, its mode is put back.
        images: (N, C, H, W) float32 in [0, 1], on the model's device.
        labels: (N,) int64.
        eps: radius of the ball, in pixels of [0, 1].

    Raises:
        BenchError: unknown norm, a radius that is not positive, no image, or pixels outside [0, 1].
    """
    if norm not in NORMS:
        raise unknown_name(str(norm), NORMS, "norm")
    if not (eps > 0 and math.isfinite(eps)) or steps < 1 or batch_size < 1:
        raise BenchError(f"eps {eps}, {steps} steps, batches of {batch_size}: all must be positive.")
    _require_images(images, labels)
    parts = []
    with attacked_model(model), float32_products():
        for begin in range(0, len(images), batch_size):
            chosen = slice(begin, begin + batch_size)
            ids = torch.arange(begin, begin + len(images[chosen]), device=images.device)
            parts.append(_attack_batch(model, images[chosen], labels[chosen], ids, norm, eps, steps, losses, seed))
    return AttackResult(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _attack_batch(
    model: nn.Module, clean: Tensor, labels: Tensor, ids: Tensor, norm: Norm, eps: float, steps: int,
    losses: Sequence[LossName], seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    with torch.no_grad():
        predictions = model(clean).argmax(1)
    found, broken = clean.clone(), predictions != labels
    distances = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    for number, loss in enumerate(losses):
        standing = (~broken).nonzero().squeeze(1)
        if len(standing) == 0:
            break
        part, target = clean[standing], labels[standing]
        start = keyed_uniform(seed, f"api/{norm}/{number}", ids[standing], part.shape[1:])
        tried = pgd(
            model, part, target, norm=norm, eps=eps, steps=steps, step_size=2.5 * eps / steps, loss=loss, start=start
        )
        radius = tried.new_full((len(tried),), eps)
        verified, measured, said = verify(model, tried, part, target, radius, norm)
        won = standing[verified]
        found[won] = pull_inside(tried, part, radius, norm)[verified]
        predictions[won] = said[verified]
        distances[won] = measured[norm][verified]
        broken[won] = True
    return found, broken, predictions, distances


def attribute(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    method: str = "gradient",
    seed: int = 0,
    batch_size: int = 256,
    **parameters: Any,
) -> Tensor:
    """Signed attributions of the logit of `labels`.

    Args:
        model: images in [0, 1] in, logits out; in eval mode while it is explained, its mode is put back.
        images: (N, C, H, W) float32 in [0, 1], on the model's device.
        labels: (N,) the class whose logit is explained.
        method: one of bench.attribution.methods.METHODS, e.g. `gradient`, `smoothgrad`, `integrated_gradients`.
        seed: keys the noise of methods that have any, together with the position of the image.
        parameters: of the method, e.g. `samples` and `sigma` (pixels of [0, 1]) of `smoothgrad`.

    Returns:
        (N, C, H, W), detached; (N, 1, H, W) for Grad-CAM.

    Raises:
        BenchError: unknown method or parameter, a net that the method does not support, no image, or pixels outside
            [0, 1].
    """
    if method not in METHODS:
        raise unknown_name(method, METHODS, "attribution method")
    _require_images(images, labels)
    try:
        chosen = METHODS[method](**parameters)
    except ValidationError as error:
        raise BenchError(f"attribution method {method} does not take {parameters}: {explain(error)}.") from error
    with float32_products():
        return attribution_maps(model, images, labels, chosen, seed=seed, batch_size=batch_size)


@dataclass(frozen=True, repr=False)
class Result:
    """An evaluation: its metrics as a frame, the records behind them, and what there was to remark.

    Attributes:
        frame: a row a metric: metric, attack, norm, eps, value, ci_low, ci_high, n_examples. Shares are fractions.
        records: a row an image, attack, norm and radius, as the suite's protocol writes them.
        folder: where the evidence lies; None where nothing was kept.
    """

    model: str
    suite: str
    frame: pd.DataFrame
    records: pd.DataFrame = field(repr=False)
    findings: list[Finding]
    counters: dict[str, int]
    seconds: float
    folder: Path | None

    def value(
        self, metric: str, *, attack: str | None = None, norm: str | None = None, eps: float | None = None
    ) -> float:
        """The one value of that metric; raises BenchError if there is none, or more than one."""
        rows = self.frame[self.frame["metric"] == metric]
        for name, wanted in (("attack", attack), ("norm", norm)):
            rows = rows if wanted is None else rows[rows[name] == wanted]
        if eps is not None:
            rows = rows[(rows["eps"] - eps).abs() <= 1e-9 + 1e-6 * eps]
        if len(rows) != 1:
            raise BenchError(f"{len(rows)} rows have metric {metric!r}, attack {attack}, norm {norm}, eps {eps}.")
        return float(rows["value"].iloc[0])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Curves of robust accuracy over the radius, one a norm; a bar for each metric where there is no radius."""
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots()
        curves = self.frame[self.frame["eps"].notna()]
        (_plot_curves if len(curves) else _plot_bars)(ax, curves if len(curves) else self.frame)
        ax.set_title(self._title())
        return ax

    def _title(self) -> str:
        return f"{self.model} under {self.suite}"

    def __rich__(self) -> Table:
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self._title()), box=box.SIMPLE_HEAD)
        for name in self.frame.columns:
            table.add_column(name)
        for row in self.frame.itertuples(index=False):
            table.add_row(*(escape(_cell(one)) for one in row))
        return table

    def __repr__(self) -> str:
        remarks = [f"{one.severity} {one.id}: {one.evidence}" for one in self.findings]
        return "\n".join([self._title(), self.frame.to_string(index=False, na_rep=""), *remarks])

    def _repr_html_(self) -> str:
        remarks = "".join(f"<p>{html.escape(f'{one.severity} {one.id}: {one.evidence}')}</p>" for one in self.findings)
        table = self.frame.to_html(index=False, na_rep="", escape=True)
        return f"<p><b>{html.escape(self._title())}</b></p>{table}{remarks}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _plot_curves(ax: Axes, rows: pd.DataFrame) -> None:
    for (metric, attack_name, norm), curve in rows.groupby(["metric", "attack", "norm"], sort=False):
        ordered = curve.sort_values("eps")
        label = " ".join(
            part
            for part in (str(metric).replace("_", " "), str(attack_name), NORM_LABELS.get(str(norm), str(norm)))
            if part
        )
        (line,) = ax.plot(ordered["eps"], ordered["value"], marker="o", label=label)
        ax.fill_between(ordered["eps"], ordered["ci_low"], ordered["ci_high"], alpha=0.15, color=line.get_color())
    ax.set_xlabel("radius, pixels in [0, 1]")
    ax.set_ylabel("value, 95 % interval")
    ax.legend()


def _plot_bars(ax: Axes, rows: pd.DataFrame) -> None:
    names = [" ".join(str(part) for part in (row.metric, row.attack, row.norm) if part) for row in rows.itertuples()]
    errors = [(rows["value"] - rows["ci_low"]).clip(lower=0), (rows["ci_high"] - rows["value"]).clip(lower=0)]
    ax.barh(names, rows["value"], xerr=errors)
    ax.invert_yaxis()
    ax.set_xlabel("value, 95 % interval")


def _result(outcome: RunOutcome, *, kept: bool) -> Result:
    import pandas as pd

    columns = ["metric", "attack", "norm", "eps", "value", "ci_low", "ci_high", "n_examples"]
    frame = pd.DataFrame([metric.as_dict() for metric in outcome.metrics], columns=columns)
    frame["eps"] = frame["eps"].astype("float64")
    return Result(
        outcome.plan.entry.card.name,
        outcome.plan.suite.name,
        frame,
        read_records(outcome.folder / "examples.parquet"),
        outcome.findings,
        outcome.counters,
        outcome.seconds,
        outcome.folder if kept else None,
    )


def _entry_of_net(net: nn.Module, dataset: str, model_id: str, data_dir: Path | None) -> ModelEntry:
    spec = dataset_spec(dataset)
    frozen = copy.deepcopy(net).cpu().float().eval()
    card = ModelCard(
        schema_version=1,
        id=require_safe_name(model_id, "model_id"),
        method=METHOD,
        dataset=require_safe_name(dataset, "data set"),
        num_classes=None if spec else load_split(dataset, "test", data_dir=data_dir).num_classes,
        architecture=type(net).__name__,
        weights=Weights(
            sha256=sha256_bytes(state_bytes(frozen)),
            parameters=max(1, sum(parameter.numel() for parameter in net.parameters())),
        ),
    )
    return ModelEntry(card, Path(), lambda: copy.deepcopy(frozen))


def _require_images(images: Tensor, labels: Tensor) -> None:
    if images.dim() != 4 or len(images) == 0 or labels.shape != (len(images),):
        raise BenchError(
            f"images must be (N, C, H, W) and labels (N,), these are {tuple(images.shape)} and {tuple(labels.shape)}."
        )
    require_unit_pixels(images)


def _options(given: dict[str, Any]) -> SourceOptions:
    known = SourceOptions.__slots__
    for name in given:
        if name not in known:
            raise unknown_name(name, known, "option")
    paths = {name: _path(given[name]) for name in ("weights", "label_map") if given.get(name) is not None}
    tuples = {name: tuple(given[name]) for name in ("mean", "std", "classes") if given.get(name) is not None}
    return SourceOptions(**{**given, **paths, **tuples})


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
