"""Running an attack, ours or not: what it is given, what it may return, what it costs, and what of it holds."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.adapters.under_way import UnderWay
from bench.attacks.losses import answers
from bench.attacks.norms import distance
from bench.attacks.pgd import attacked_model
from bench.attacks.registry import AttackResult, NamedAttack
from bench.attacks.verification import AttackResults
from bench.core.devices import exact_dtype
from bench.core.errors import BenchError, goes_on, reason_of
from bench.core.keyed_random import stream_key
from bench.core.precision import Precision
from bench.core.threat import Norm
from bench.core.torch_state import random_numbers_of
from bench.nets.state import changes, state_of

logger = logging.getLogger(__name__)

SLACK = 1e-4
"""How far, over the radius, an attack may overstep the ball by its own rounding."""
_SEEDS = 1 << 31


@dataclass(frozen=True, slots=True)
class Examples:
    """Images under attack.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1] on the model's device, where labels and ids (N,) int64 are too.
        batch_size: images that go through the model at once.
        precision: of the search.
        under_way: keeps what attacks that take their images all together have come to.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    ids: Tensor
    num_classes: int
    seed: int = 0
    batch_size: int = 256
    precision: Precision = "float32"
    under_way: UnderWay | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Tensor) -> Examples:
        """Those of the indices `chosen`, as copies."""
        chosen = chosen.to(self.labels.device)
        images = self.images[chosen].contiguous()
        return replace(self, images=images, labels=self.labels[chosen], ids=self.ids[chosen])


def run_attack(
    run: NamedAttack,
    examples: Examples,
    norm: Norm,
    radii: Sequence[float],
    results: AttackResults,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Attack examples at all radii; what verifies goes into their `results`, which say what stands.

    Args:
        on_progress: called with numbers of examples that sum up to all of them.

    Raises:
        BenchError: the attack fails, or returns what no attack may.
    """
    falling, done = sorted(radii, reverse=True), 0

    def progress(count: int) -> None:
        nonlocal done
        count = min(count, len(examples) - done)
        done += count
        on_progress(count)

    if "results" in run.attack.takes:
        device = examples.images.device
        radii_given = torch.tensor(falling, dtype=exact_dtype(device), device=device)
        _called(run, examples, norm, falling[0], radii=radii_given, results=results, on_progress=progress)
    elif run.attack.kind == "fixed":
        for eps in radii:
            _run_on_standing(run, examples, norm, [eps], results=results)
    else:
        _run_on_standing(run, examples, norm, falling, results=results)
    progress(len(examples))


def _run_on_standing(
    run: NamedAttack, examples: Examples, norm: Norm, radii: Sequence[float], results: AttackResults
) -> None:
    """Attack what stands at the last of the radii, which fall, and have all that comes back judged."""
    standing = ~results.broken(norm, radii[-1])
    if run.attack.whole_units and bool(standing.any()):
        standing = torch.ones_like(standing)
    rows = standing.nonzero().squeeze(1)
    if not len(rows):
        return
    examples, curve = examples.take(rows), run.attack.kind == "curve"
    with attacked_model(examples.model):
        examples, found = _found(run, examples, norm, radii[0], results=results, curve=radii if curve else ())
        for eps, images in zip(radii, found if curve else found[None], strict=False):
            _judge(run, examples, images, norm, eps=eps, results=results, rows=rows)


def fewest_changes(
    run: NamedAttack, examples: Examples, results: AttackResults, *, by_pixel: bool = False
) -> tuple[Tensor, Tensor]:
    """How few values the attack changes to fool the plain model (N,), infinity where it does not, and its answers (N,).

    `by_pixel` counts pixels, so that one that changes in all channels counts once.

    All examples are attacked, also those that need no change; `results` take what it costs.
    """
    with attacked_model(examples.model):
        examples, found = _found(run, examples, "l0", torch.inf, results=results)
        found = found.clamp(0.0, 1.0)
        with torch.no_grad():
            said = answers(examples.model(found))
    if results.images:
        results.images["l0"] = found.cpu()
    changed = found != examples.images
    counts = (changed.any(1) if by_pixel else changed).flatten(1).sum(1).cpu().double()
    return torch.where((said != examples.labels).cpu(), counts, torch.inf), said.cpu()


def _found(
    run: NamedAttack, examples: Examples, norm: str, eps: float, *, results: AttackResults, curve: Sequence[float] = ()
) -> tuple[Examples, Tensor]:
    """The images that the attack returns, at each of the radii `curve` if there are any; `results` take what it costs.

    Also the examples with the model as it was called, in eval mode whatever the attack has left it in.
    """
    prepared = PreparedModel(examples.model, examples.num_classes, examples.batch_size).eval()
    # what a stranger's attack writes into its images stays there
    given = examples if run.attack.trusted else examples.take(torch.arange(len(examples)))
    radii = torch.tensor(curve, dtype=exact_dtype(given.images.device), device=given.images.device)
    before = None if run.attack.trusted else state_of(examples.model)
    result = _called(run, replace(given, model=prepared), norm, eps, **({"radii": radii} if curve else {}))
    prepared.eval()
    if before is not None:
        _require_unchanged(run, examples, before)
    with _told(run, norm):  # a stranger's may be any kind of number, or none
        results.gradient_evaluations += operator.index(result.gradients or 0)
        results.queries += operator.index(result.queries or 0)
    return replace(examples, model=prepared), _images(run, result, (len(curve),) if curve else (), examples.images)


def _require_unchanged(run: NamedAttack, examples: Examples, before: dict[str, str]) -> None:
    """Raise BenchError where an attack has changed weights or buffers that the model does not change itself."""
    model, after = examples.model, state_of(examples.model)
    own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    changed = own.intersection(changes(before, after))
    if changed:
        with torch.no_grad():
            model(examples.images[:1])
        if changed.difference(changes(after, state_of(model))):
            raise BenchError(f"attack {run.name} changes the model, which no attack may.")


def _judge(
    run: NamedAttack, examples: Examples, found: Tensor, norm: Norm, eps: float, results: AttackResults, rows: Tensor
) -> None:
    """Have every image judged that is misclassified; one farther off than a minimum attack's radius claims nothing."""
    model, clean, labels = examples.model, examples.images, examples.labels
    with torch.no_grad():
        claimed = answers(model(found)) != labels
    radius = torch.full((len(clean),), eps, device=clean.device)
    verified = results.judge(model, found, clean, labels, eps=radius, norm=norm, examples=rows, claimed=claimed)
    outside = int((claimed & ~verified & (distance(found - clean, norm) > eps * (1.0 + SLACK))).sum())
    if run.attack.kind == "minimum":
        results.claims -= outside
        results.rejected -= outside
    else:
        results.outside += outside


def _called(run: NamedAttack, examples: Examples, norm: str, eps: float, **further: Any) -> AttackResult:
    """The attack's result as it is; its random numbers are its own, and torch's generators stay as they were."""
    attack, seed, device = run.attack, examples.seed, examples.images.device
    if attack.kind == "fixed":
        seed = stream_key(seed, run.name, norm, eps) % _SEEDS
    offered = {
        "norm": norm, "eps": torch.full(examples.labels.shape, eps, dtype=exact_dtype(device), device=device),
        "ids": examples.ids, "seed": seed, "batch_size": examples.batch_size, "precision": examples.precision,
        "on_progress": lambda _: None, **further,
    }  # fmt: skip
    keywords = {name: value for name, value in offered.items() if name in attack.takes} | dict(run.keywords)
    key = (examples.seed, run.name, *([] if attack.whole_units else [norm]), eps, int(examples.ids[0]))
    with nullcontext() if attack.keyed else random_numbers_of(device, *key), _told(run, norm):
        return _going_on(run, examples, keywords)


def _going_on(run: NamedAttack, examples: Examples, keywords: dict[str, Any]) -> AttackResult:
    """The attack's result, from where a stopped process has left it where that is kept."""
    net, unit = examples.model, examples.under_way

    def call() -> AttackResult:
        result = run.attack.function(net, examples.images, examples.labels, **keywords)
        result = result if isinstance(result, AttackResult) else AttackResult(result)
        if not isinstance(net, PreparedModel):
            return result
        gradients = net.gradients if result.gradients is None else result.gradients
        return AttackResult(result.images, gradients, net.forwards if result.queries is None else result.queries)

    if unit is None or run.attack.keyed or not isinstance(net, PreparedModel):
        return call()
    answers = unit.next_call(examples.images)
    if found := answers.result():
        return AttackResult(found["images"].to(examples.images.device), found["gradients"], found["queries"])
    net.answers = answers
    try:
        result = call()
    finally:
        net.answers = None
    if isinstance(result.images, Tensor):
        images = result.images.detach().cpu().clone()
        answers.returned(images=images, gradients=result.gradients, queries=result.queries)
    return result


@contextmanager
def _told(run: NamedAttack, norm: str) -> Iterator[None]:
    """One line for whatever goes wrong in an attack."""
    try:
        yield
    except BaseException as error:
        ours = "results" in run.attack.takes  # which fails where the model does
        if ours or goes_on(error):
            raise
        logger.info("attack %s failed", run.name, exc_info=error)
        reason, advice = reason_of(error), "a model that is not differentiable can be judged by the suite blackbox"
        if not run.attack.trusted:
            reason, advice = f"{type(error).__name__}: {reason}", "mend it, or leave it out of the suite"
        raise BenchError(f"attack {run.name} ({norm}) failed on this model: {reason}; {advice}.") from error


def _images(run: NamedAttack, result: AttackResult, radii: tuple[int, ...], clean: Tensor) -> Tensor:
    """The result's images, of numbers only; raises BenchError where they are of another kind than the clean ones.

    What a trusted attack leaves without a number was no number in the model, and is the clean image.
    """
    name, found, shape = run.name, result.images, (*radii, *clean.shape)
    if not isinstance(found, Tensor):
        raise BenchError(f"attack {name} returns a {type(found).__name__}; it must return an AttackResult, or images.")
    if found.shape != shape:
        raise BenchError(f"attack {name} returns images of shape {tuple(found.shape)}, not {shape}.")
    if found.device != clean.device:
        raise BenchError(f"attack {name} returns images on {found.device}, not on the model's {clean.device}.")
    found = found.detach()
    if run.attack.trusted:
        return torch.where(found.isfinite(), found, clean).to(clean.dtype).contiguous()
    if found.dtype != clean.dtype:
        raise BenchError(f"attack {name} returns images of {found.dtype}, not of {clean.dtype}.")
    if not bool(found.isfinite().all()):
        raise BenchError(f"attack {name} returns images with NaN or infinite pixels.")
    return found.contiguous()
