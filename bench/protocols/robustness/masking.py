"""The gradient-masking report: signs that gradient attacks fail because of the gradients, not of robustness.

Every robustness run probes some of its examples (`probe`), sums what it saw in counters, and turns the sums of all
work units into findings with one overall verdict (`masking_findings`). The probes are deliberately plain: single PGD
with the textbook cross-entropy is what most papers report, so what fools it is what must be seen.
Source of the signs: Athalye, Carlini, Wagner 2018, section 3.1; Carlini et al. 2019, section 3; AutoAttack's flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bench.attacks.verification import AttackResults
from bench.catalog.cards import read_card
from bench.catalog.models import ModelEntry, find_model, load_model
from bench.core.threat import NORMS, Norm
from bench.leaderboard.findings import Finding
from bench.leaderboard.statistics.intervals import wilson
from bench.protocols.base import Dependency, EvaluationContext
from bench.protocols.clean_pass import has_gradient
from bench.protocols.robustness.probes import Probes

PREFIX = "masking_"
SQUARE_GAINED = f"{PREFIX}square_gained"
UNBOUNDED = 0.5
"""An L-inf radius at which every image can be made plain grey, so that no classifier can be robust."""
FEWEST = 50
"""Probed images from which on a verdict is given."""
PROBE_STEPS = 7
FAR_STEPS = 5
"""Steps there at first; what they leave gets as many as elsewhere."""
PROBE_GRADIENTS = 120
"""What probing an image costs, about, on a robust net: three PGDs of 20 steps and one of 5, 24 gradients on paths, and
for a quarter of the images Square's 200 queries at a third of a gradient each."""
_SOURCE = "standard"


def probe(
    context: EvaluationContext, images: Tensor, predictions: Tensor, all_results: Sequence[AttackResults],
    reference: Mapping[Norm, float], *, every: int, into: Sequence[AttackResults],
    radii: Mapping[Norm, Sequence[float]] | None = None, on_step: Callable[[], None] = lambda: None,
) -> dict[str, int]:  # fmt: skip
    """Probe the examples whose id is a multiple of `every`, as counters that add up over work units.

    A run of few examples probes more of them, so that a verdict can be given. What the probe breaks and the run did not
    goes into the results of `into`, so that no number is above what its own probe has shown. Adversarial images of
    another net stay out of them: results would depend on which net that is.

    An image that each of the run's attacks has broken at all radii in all norms is settled: no number can be too high
    by it, and it is not attacked again.

    Args:
        images: (n, C, H, W) of the unit.
        predictions: (n,) of the clean images.
        all_results: what the run's own attacks have broken.
        reference: norm -> radius; the first norm in the order of NORMS is probed.
        into: the results of those attacks that are to tell robustness, not those of one weak attack on purpose.
        radii: norm -> radii that rows are made of; None where none is.
        on_step: called after each of the probe's attacks, at most PROBE_STEPS times.
    """
    norm = probed_norm(reference)
    if context.examples >= FEWEST:
        every = min(every, context.examples // FEWEST)
    labels = context.labels()
    probed = context.example_ids % every == 0
    chosen = ((predictions == labels) & probed).nonzero().squeeze(1)
    counts = {"probed": int(probed.sum()), "examples": len(chosen)}
    if not len(chosen):
        return _prefixed(counts)
    here = chosen.to(context.device)
    probes = Probes(
        context, images[here], labels[chosen].to(context.device), context.example_ids[chosen].to(context.device),
        norm=norm, places=chosen, all_results=into,
    )  # fmt: skip
    eps = reference[norm]
    own = torch.stack([results.broken(norm, eps) for results in all_results]).any(0)[chosen].to(context.device)
    if not has_gradient(context.model, probes.clean[:1]):
        blind = "random", "zero_cross_entropy", "single", "restart", "margin", "lost", "square_gained"
        return _prefixed(counts | dict.fromkeys(blind, 0) | {"zero_margin": len(chosen)})
    settled = _settled(all_results, reference, radii or {})[chosen].to(context.device)
    counts |= {"settled": int(settled.sum())}
    farthest = max(radii[norm]) if radii else torch.inf
    seen = _signs_seen(probes, eps, own, counts["probed"], left=~settled, farthest=farthest, on_step=on_step)
    return _prefixed(counts | seen)


def _settled(
    all_results: Sequence[AttackResults], reference: Mapping[Norm, float], radii: Mapping[Norm, Sequence[float]]
) -> Tensor:
    """(N,) bool: broken by every attack, at the smallest radius of every norm."""
    smallest = {norm: min(radii[norm]) for norm in radii} | {
        norm: min([eps, *radii.get(norm, ())]) for norm, eps in reference.items()
    }
    return torch.stack([results.broken(norm, eps) for results in all_results for norm, eps in smallest.items()]).all(0)


def _signs_seen(
    probes: Probes, eps: float, own: Tensor, probed: int, *, left: Tensor, farthest: float, on_step: Callable[[], None]
) -> dict[str, int]:
    """What the signs are counted from; `own` (n,) bool is what the run has broken, `left` (n,) what is attacked."""
    single, first_ends = probes.attempt(eps, "softmax_cross_entropy", left)
    on_step()
    # what one start breaks is broken: the others say what they break in addition
    again = single | probes.attempt(eps, "softmax_cross_entropy", left & ~single, restart=1)[0]
    on_step()
    by_margin, second_ends = probes.attempt(eps, "margin", left & ~single)
    margin = single | by_margin
    on_step()
    white = again | margin | own
    counts = {
        "random": probes.random_outputs(),
        **probes.clean_gradients(),
        "unsteady": probes.unsteady_answers(),
        "unseen": probes.unseen_changes(eps, first_ends, left),
        "single": int(single.sum()),
        "restart": int(again.sum()),
        "margin": int(margin.sum()),
        "white": int(white.sum()),
        "own": int(own.sum()),
        "lost": probes.lost(2 * eps, single, farthest),
    }
    on_step()
    counts["square_gained"] = int(probes.square(eps, white, second_ends).sum())
    on_step()
    if probes.all_results:
        counts["probe_gained"] = int((white & ~own).sum())
    if probes.norm == "linf":
        far = single | ~left
        far |= probes.attempt(UNBOUNDED, "softmax_cross_entropy", ~far, steps=FAR_STEPS)[0]
        far |= probes.attempt(UNBOUNDED, "softmax_cross_entropy", ~far)[0]
        on_step()
        counts |= {"unbounded_examples": len(own), "unbounded": int(far.sum())}
    source = _transfer_source(probes.context)
    if source is not None:
        transferred, _ = probes.attempt(eps, "margin", ~white, source=source)
        on_step()
        counts |= {"transfer_probed": probed, "transfer_gained": int(transferred.sum())}
    return counts


def probed_norm(reference: Mapping[Norm, float]) -> Norm:
    """The norm that the probe looks at: the first in the order of NORMS."""
    return next(norm for norm in NORMS if norm in reference)


def _prefixed(counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{PREFIX}{name}": value for name, value in counts.items()}


def transfer_dependency(dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:
    """The net whose adversarial examples the probe tries, for the run's manifest."""
    entry = _transfer_entry(dataset, model_name, registry)
    return {} if entry is None else {"transfer_source": Dependency(entry.card.weights.sha256, "findings")}


def _transfer_entry(dataset: str, model_name: str, registry: Path | None) -> ModelEntry | None:
    """The registry's standard model of this data set, unless it is the one under test or there is none."""
    name = f"{dataset}/{_SOURCE}"
    return None if name == model_name else find_model(name, registry)


def _transfer_source(context: EvaluationContext) -> nn.Module | None:
    entry = _transfer_entry(context.dataset.name, context.model_name, context.registry)
    return None if entry is None else _loaded(entry.folder, entry.card.weights.sha256, context.device)


@lru_cache(maxsize=1)
def _loaded(folder: Path, sha256: str, device: torch.device) -> nn.Module:  # noqa: ARG001  (other weights are loaded anew)
    """The model of a folder, loaded once a process."""
    with torch.random.fork_rng():  # a net draws initial weights before its own are loaded
        return load_model(ModelEntry(read_card(folder), folder), device)


@dataclass(frozen=True, slots=True)
class _Sign:
    """One sign: the share it shows, from which on it counts, and from which on it alone means masked.

    Gains are shares of all probed images, so that they are points of robust accuracy.
    """

    id: str
    counts_above: float
    proves_above: float
    share: Callable[[Mapping[str, int]], float]
    what: str
    advice: str
    needs: str = "examples"
    """A count without which it says nothing."""


_SIGNS = (
    _Sign(
        "zero_gradients", 0.01, 0.1, lambda counts: counts["zero_margin"] / counts["examples"],
        what="images whose gradient is exactly zero",
        advice="smooth the step that blocks it, or attack through BPDA or Square",
    ),
    _Sign(
        "saturated_loss", 0.05, 1.0, lambda counts: counts["zero_cross_entropy"] / counts["examples"],
        what="images whose cross-entropy saturates to a zero gradient",
        advice="cross-entropy PGD is blind there; trust attacks on the margin or the logits only",
    ),
    _Sign(
        "wrong_gradients", 0.05, 0.3, lambda counts: counts.get("wrong", 0) / counts["examples"],
        what="images whose logits hardly change along their gradient, against what it says",
        advice="the gradient is not that of the logits, or the net answers from memory; attack it without gradients",
    ),
    _Sign(
        "unseen_changes", 0.05, 0.3, lambda counts: counts["unseen"] / counts["examples"],
        what="images whose logits change by stairs or steps that no gradient shows",
        advice="smooth what makes them, or attack it without gradients: run the suites autoattack and blackbox",
        needs="unseen",
    ),
    _Sign(
        "unsteady_answers", 0.02, 0.2, lambda counts: counts.get("unsteady", 0) / counts["examples"],
        what="images classified otherwise under invisible noise, beside other images",
        advice="the net may know the very images that it is judged on; evaluate it on others",
    ),
    _Sign(
        "random_outputs", 0.0, 1.0, lambda counts: counts["random"] / counts["examples"],
        what="images that get other logits the second time", advice="run the suite autoattack_rand",
    ),
    _Sign(
        "restart_gain", 0.02, 0.2, lambda counts: (counts["restart"] - counts["single"]) / counts["probed"],
        what="images that a second start of cross-entropy PGD breaks in addition",
        advice="single-start PGD overstates this model; use more starts",
    ),
    _Sign(
        # nets without any other sign show up to 8 of 100, so that few images alone say nothing
        "margin_gain", 0.05, 0.2, lambda counts: wilson(counts["margin"] - counts["single"], counts["probed"])[0],
        what="images that PGD on the margin breaks in addition to cross-entropy PGD, at least (95 % confidence)",
        advice="cross-entropy PGD overstates this model; use margin losses",
    ),
    _Sign(
        "rises_with_radius", 0.02, 0.1, lambda counts: counts["lost"] / counts["probed"],
        what="images that PGD breaks, and not at twice the radius",
        advice="the attack gets lost; use more steps and other step sizes", needs="lost",
    ),
    _Sign(
        "black_box_gain", 0.005, 0.02, lambda counts: counts["square_gained"] / counts["probed"],
        what="images that only Square breaks", advice="gradients mislead here; run the suites blackbox and autoattack",
    ),
    _Sign(
        "probe_gain", 0.02, 0.2, lambda counts: counts["probe_gained"] / counts["probed"],
        what="images that the probe's plain attacks break and the run's own do not; they count as broken",
        advice="the run's attacks fail on this net, also on images that were not probed; run the suite autoattack",
        needs="probe_gained",
    ),
    _Sign(
        "survives_unbounded", 0.01, 0.1, lambda counts: 1 - counts["unbounded"] / counts["unbounded_examples"],
        what=f"images that PGD leaves standing at L-inf {UNBOUNDED}, where none can be robust",
        advice="the attack fails at every radius; find out why before believing any number", needs="unbounded_examples",
    ),
    _Sign(
        "transfer_gain", 0.005, 0.02, lambda counts: counts["transfer_gained"] / counts["transfer_probed"],
        what="images that only adversarial examples of the standard model break",
        advice="gradients mislead here; attack through the standard model as well", needs="transfer_probed",
    ),
)  # fmt: skip


def masking_findings(counters: Mapping[str, int]) -> list[Finding]:
    """A warning for each sign that was seen, and the overall verdict; nothing where nothing was probed."""
    counts = {name.removeprefix(PREFIX): value for name, value in counters.items() if name.startswith(PREFIX)}
    if not counts.get("examples"):
        return []
    if counts["probed"] < FEWEST:
        evidence, advice = f"not judged; only {counts['probed']} images probed", f"evaluate more; {FEWEST} are needed"
        return [Finding("gradient_masking", "note", evidence, advice)]
    shares = {sign: sign.share(counts) for sign in _SIGNS if sign.needs in counts}
    seen = {sign: share for sign, share in shares.items() if share > sign.counts_above}
    findings = [
        Finding(f"masking_{sign.id}", "warning", f"{sign.what}: {100 * share:.1f} %", sign.advice)
        for sign, share in seen.items()
    ]
    if any(share > sign.proves_above for sign, share in seen.items()):
        verdict, advice = "masked", "do not report the robust accuracy as robustness; attack the model adaptively"
    elif seen:
        verdict, advice = "suspicious", "run the suites autoattack and blackbox and report their number"
    else:
        verdict, advice = "no sign", "nothing needs to be done; an adaptive attack can still find more"
    figures = ", ".join(f"{sign.id} {100 * share:.1f} %" for sign, share in shares.items())
    severity: Literal["note", "warning"] = "warning" if seen else "note"
    spared = f", {settled} broken at every radius not attacked again" if (settled := counts.get("settled", 0)) else ""
    evidence = f"{verdict}; {counts['probed']} images probed{spared}: {figures}"
    return [*findings, Finding("gradient_masking", severity, evidence, advice)]
