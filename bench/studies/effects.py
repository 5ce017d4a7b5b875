"""What a claim's statistic comes to: effect, 95 % interval, p-value and the seeds that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.leaderboard.labels import full_label
from bench.leaderboard.statistics.groups import Estimate, front_difference, sum_of_groups, sum_of_values
from bench.leaderboard.statistics.intervals import student_p_value, t_interval
from bench.leaderboard.statistics.paired import mcnemar
from bench.studies.computations import Computations, rank_gain
from bench.studies.names import MetricName, expand
from bench.studies.step_costs import BATCH_SIZE, step_costs
from bench.studies.study import (
    Bound,
    Claim,
    Correlation,
    Difference,
    Front,
    Method,
    Ordering,
    Pair,
    Stability,
    StepCosts,
    Tilt,
)  # fmt: skip
from bench.studies.values import Effect, MissingInputError, Term, Values, called, groups_of, seeds_text
from bench.training import make_recipe
from bench.training.boundary_tilt import TiltStudy

Array = npt.NDArray[np.float64]
_LEAST_MODELS = 5
"""Fewer models than this decide no correlation: three ranks agree by chance one time in six."""
_ALL_ORDERS = 9
"""Of up to so many models every order is tried: the normal approximation's p-values are up to nine times too small."""
_ROUNDS = 60
"""So often a step is timed."""


@dataclass(frozen=True, slots=True)
class Material:
    """What claims are judged from.

    Attributes:
        values: of the study's own runs, one a model and suite, suites under the claims' names.
        suites: the claims' names of the suites -> the suites.
        tilt: the tilting experiment, where it was run.
        computed: what is computed from the models themselves.
        trials: recipes -> settings tried on validation images.
    """

    values: Values
    suites: Mapping[str, str]
    tilt: TiltStudy | None
    computed: Computations
    trials: Mapping[str, int]


def effects_of(claim: Claim, material: Material) -> list[Effect]:
    """A claim's effects, all of which must be on its side; raises MissingInputError."""
    if isinstance(claim, Difference):
        than = [] if claim.than is None else [(-sign, of, group) for sign, of, group in _terms(claim.than)]
        return [_of_terms(material.values, [*_terms(claim), *than], claim)]
    if isinstance(claim, Ordering):
        steps = [[(1.0, claim.of, more), (-1.0, claim.of, less)] for less, more in pairwise(claim.models)]
        return [_of_terms(material.values, terms, claim) for terms in steps]
    if isinstance(claim, Front):
        return [_front(material, claim)]
    if isinstance(claim, Stability):
        return [_stability(material.computed, claim)]
    if isinstance(claim, Bound):
        return [_bound(material.computed, claim)]
    if isinstance(claim, StepCosts):
        return [_step_costs(material.computed, claim)]
    if isinstance(claim, Correlation):
        return [_correlation(material.values, claim)]
    if isinstance(claim, Tilt):
        return _tilt(material.tilt, claim.quantity)
    return [material.computed.scaling(claim)]


def _terms(pair: Pair) -> list[Term]:
    second: list[Term] = [] if pair.worse is None else [(-1.0, pair.against or pair.of, pair.worse)]
    return [(1.0, pair.of, pair.better), *second]


def _of_terms(values: Values, terms: list[Term], claim: Claim) -> Effect:
    groups = groups_of(values, terms)
    if groups.images < 2:
        raise MissingInputError(f"one image decides nothing: {groups.reason}")
    alone = groups.arrays is None  # what no image has a value of, as a median
    estimate = sum_of_values(groups.values) if groups.arrays is None else sum_of_groups(groups.arrays, groups.offsets)
    exact = None
    if groups.arrays and len(terms) == 2 and all(len(array) == 1 for array in groups.arrays) and not claim.margin:
        exact = _exact(sum(groups.arrays))
    test = "intervals of the runs" if alone else "bootstrap"
    return _effect(estimate, claim, groups.count, groups.reason, seeds=min(groups.seeds), exact=exact, test=test)


def _exact(gaps: Array | float) -> float | None:
    """McNemar's p-value where one pair of models differs by shares; None elsewhere."""
    if not np.isin(gaps, (-1.0, 0.0, 1.0)).all():
        return None
    return mcnemar(int(np.sum(np.greater(gaps, 0))), int(np.sum(np.less(gaps, 0))))


def _effect(
    estimate: Estimate, claim: Claim, count: str, reason: str, seeds: int, exact: float | None = None,
    test: str = "bootstrap",
) -> Effect:  # fmt: skip
    low, high = estimate.interval
    if claim.kind == "null" and -claim.margin <= high and low <= claim.margin:
        p, test = estimate.equivalence(claim.margin), f"two one-sided tests within {claim.margin:g}"
    elif claim.kind == "null":
        p, test = estimate.p_value(claim.margin if low > 0 else -claim.margin), f"{test}, beyond {claim.margin:g}"
    elif exact is not None:
        p, test = exact, "McNemar's exact test"
    else:
        p = estimate.p_value(claim.margin)
    return Effect(estimate.value, low, high, count, reason=f"{reason} ({test})", p=p, seeds=seeds)


def _front(material: Material, claim: Front) -> Effect:
    methods = (claim.better, claim.worse)
    tables = [_table(material.values, of, methods) for of in (claim.matched, claim.of)]
    fronts = [
        [[table[side, strength].to_numpy(np.float64).T for table in tables] for strength in range(len(one.strengths))]
        for side, one in enumerate(methods)
    ]  # of each strength (seeds, images) of x and of y
    try:
        estimate, (low, high) = front_difference(*fronts)
    except ValueError as error:
        raise MissingInputError(f"{claim.better.name} and {claim.worse.name}: {error}") from error
    seeds = [min(len(point[0]) for point in front) for front in fronts]
    trials = [material.trials.get(method.tuning, 0) for method in methods]
    budgets = " against ".join(f"{count} of {method.name}" for count, method in zip(trials, methods, strict=True))
    reason = f"{full_label(claim.of.key)} at equal {full_label(claim.matched.key)}, {low:.4f} to {high:.4f}; "
    effect = _effect(
        estimate, claim, f"{len(tables[1])} images in pairs, at least {seeds[0]} against {seeds[1]} seeds a strength",
        reason + f"tuning trials: {budgets}", seeds=min(seeds),
    )  # fmt: skip
    caps = [
        f"{method.name} had more tuning trials" * (own > other) if own and other else "tuning trials are not known"
        for method, own, other in zip(methods, trials, trials[::-1], strict=True)
    ]
    return replace(effect, cap=caps[0], cap_against=caps[1])


def _table(values: Values, of: MetricName, methods: Sequence[Method]) -> pd.DataFrame:
    """(images, models) of a metric, the models by side, strength and name; raises MissingInputError."""
    columns = {
        (side, strength, name): _averaged(values, of, name)
        for side, method in enumerate(methods)
        for strength, group in enumerate(method.strengths)
        for name in values.names(group)
    }
    table = pd.concat(columns, axis=1, join="inner").dropna().sort_index(axis=1)
    if len(table) < 2:
        raise MissingInputError(f"the runs of the fronts under {of.suite} have {len(table)} images in common")
    return table


def _averaged(values: Values, of: MetricName, name: str) -> pd.Series[float]:
    values.value(of, name)
    images = values.images(of, name)
    if images is None:
        raise MissingInputError(f"no evidence image by image for {full_label(of.key)} of {name} under {of.suite}")
    return images.mean(axis=1)


def _stability(computed: Computations, claim: Stability) -> Effect:
    sides = [expand(group, computed.entries) for group in (claim.better, claim.worse)]
    if not all(sides):
        raise MissingInputError("a side of the claim has no models")
    arrays = [
        np.stack([computed.similarities(name, claim.radius).double().numpy() for name in names]) for names in sides
    ]
    means = ", ".join(f"{called(names)} {array.mean():.4f}" for names, array in zip(sides, arrays, strict=True))
    seeds = [len(names) for names in sides]
    return _effect(
        sum_of_groups([arrays[0], -arrays[1]]), claim, f"{arrays[0].shape[1]} images in pairs, {seeds_text(seeds)}",
        f"mean cosine of gradients under uniform noise of {claim.radius:g}/255: {means}", seeds=min(seeds),
    )  # fmt: skip


def _bound(computed: Computations, claim: Bound) -> Effect:
    names = expand(claim.model, computed.entries)
    if not names:
        raise MissingInputError("the claim has no models")
    found = [computed.bound(name, claim.radius) for name in names]
    images, holds = found[0].shape[1], np.stack([distance <= bound for distance, bound, _ in found]).astype(float)
    count, share = f"{images} images, {len(names)} seeds", 100 * holds.mean()
    if claim.quantity == "holds":
        reason = f"cosine distance at most (|H d| / |g'|)^2 on {share:.1f} % of the images of {called(names)}"
        return _effect(sum_of_groups([holds]), claim, count, reason, seeds=len(names))
    gains = [rank_gain(own) for own in found]
    estimate = sum_of_values([(np.array([gain for gain, _ in gains]), float(np.mean([error for _, error in gains])))])
    reason = f"rank correlation of the cosine distance with the bound less that with |H d| alone, {called(names)}"
    return _effect(estimate, claim, count, reason, seeds=len(names))


def _step_costs(computed: Computations, claim: StepCosts) -> Effect:
    data = computed.data
    recipes = {name: make_recipe(name, data.name) for name in (claim.better, claim.worse)}
    costs = step_costs(recipes, data, _ROUNDS)
    own, other = (costs[name] for name in recipes)
    if claim.quantity == "memory":
        memory = f"{own.kept_bytes / 2**20:.0f} against {other.kept_bytes / 2**20:.0f} MiB kept for backward passes"
        saved = 1.0 - own.kept_bytes / other.kept_bytes
        return Effect(saved, saved, saved, f"a batch of {BATCH_SIZE}", reason=f"{memory} (counted)")
    gains = 1.0 - np.divide(own.seconds, other.seconds)
    reason = f"{1e3 * np.median(own.seconds):.0f} against {1e3 * np.median(other.seconds):.0f} ms here"
    return _student(gains, f"{_ROUNDS} steps in pairs on a batch of {BATCH_SIZE}", f"{reason} (Student's t)")


def _student(gaps: Array, count: str, reason: str) -> Effect:
    return Effect(
        float(gaps.mean()), *t_interval(gaps), count, reason=reason, p=student_p_value(gaps), seeds=len(gaps)
    )  # fmt: skip


def _correlation(values: Values, claim: Correlation) -> Effect:
    from scipy.special import ndtr
    from scipy.stats import permutation_test, rankdata, spearmanr

    points, seeds = [], []
    for group in claim.models:
        try:
            names = values.names(group, claim.first.suite, claim.second.suite)
            pair = [np.mean([values.value(of, name).value for name in names]) for of in (claim.first, claim.second)]
        except MissingInputError:
            continue
        points.append(pair)
        seeds.append(len(names))
    count = len(points)
    if count < _LEAST_MODELS:
        raise MissingInputError(f"{count} models have both metrics, and a correlation needs at least {_LEAST_MODELS}")
    first, second = zip(*points, strict=True)
    sign = 1.0 if claim.sign == "positive" else -1.0
    value = sign * float(spearmanr(first, second).statistic)
    # Fisher's z with the variance of Bonett and Wright 2000; models share data and baselines, so it is still too narrow
    error = np.sqrt((1 + value**2 / 2) / max(1, count - 3))
    whole = 1 - 6 / (count * (count**2 - 1))  # halfway from the second largest value that so many ranks can give to 1
    center = np.arctanh(np.clip(value, -whole, whole))
    low, high = min(value, np.tanh(center - 1.96 * error)), max(value, np.tanh(center + 1.96 * error))
    if count <= _ALL_ORDERS:
        ranks = rankdata(second)
        p = float(permutation_test(
            (rankdata(first),), lambda order, axis: (order * ranks).sum(axis), permutation_type="pairings",
            vectorized=True, n_resamples=np.inf,
        ).pvalue)  # fmt: skip
    else:
        p = 2 * float(ndtr(-abs(center) / error))
    return Effect(
        value, float(low), float(high), f"{count} models, {min(seeds)} seed{'s' * (min(seeds) > 1)} each",
        reason=f"Spearman {sign * value:+.2f}, counted towards the claim; models share data and baselines, the "
        "interval takes them as independent", p=p, seeds=min(seeds),
    )  # fmt: skip


def _tilt(tilt: TiltStudy | None, quantity: str) -> list[Effect]:
    if tilt is None:
        raise MissingInputError("the tilting experiment was not run")
    values = {
        strength: np.array([getattr(net, quantity) for net in tilt.nets if net.strength == strength])
        for strength in ("standard", "weak", "strong")
    }
    effects = []
    for weaker, stronger in (("standard", "weak"), ("weak", "strong")):
        gaps = values[weaker] - values[stronger]
        means = f"{quantity}: {weaker} {values[weaker].mean():.3g}, {stronger} {values[stronger].mean():.3g}"
        effects.append(_student(gaps, f"{len(gaps)} paired seeds", means))
    return effects
