"""Groups of training seeds on the same images: differences of means, and of fronts, by a two-level bootstrap.

Images are drawn with replacement (Efron and Tibshirani 1993), the same for all models. Three seeds have only ten
different resamples, whose percentiles cover far too little, so the seeds' level is drawn from Student's t about the
groups' means, with Welch's degrees of freedom (1947). 20,000 draws, always the same; a p-value is given with four of
its Monte-Carlo standard errors added, so that what is significant stays so with any other draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.leaderboard.statistics.intervals import FEW, interval_of

Array = NDArray[np.float64]
DRAWS = 20_000
_AT_ONCE = 500
_MATCHED = 11
"""So many values of x, evenly over what both fronts reach, are two fronts compared at."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect and what it might have been: (20,000,) draws; no p-value of no effect is below `least`."""

    value: float
    draws: Array
    least: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return interval_of(self.draws)

    def p_value(self, margin: float = 0.0) -> float:
        """Two-sided, of an effect that is `margin`."""
        p = min(1.0, 2.0 * min(_share(self.draws <= margin), _share(self.draws >= margin)))
        return p if margin else max(p, self.least)

    def equivalence(self, margin: float) -> float:
        """P-value of an effect that is at least `margin` away from 0: two one-sided tests (Schuirmann 1987)."""
        return max(_share(self.draws >= margin), _share(self.draws <= -margin))


def _share(hits: NDArray[np.bool_]) -> float:
    share = (1.0 + float(hits.sum())) / (1.0 + len(hits))
    return min(1.0, share + 4.0 * float(np.sqrt(share * (1.0 - share) / len(hits))))


def sum_of_groups(groups: Sequence[Array], offsets: Sequence[float] = ()) -> Estimate:
    """The sum of the groups' means, so a difference where those of one side are negative.

    No p-value of no difference is below the exact one of as many signs as there are images that differ.

    Args:
        groups: (seeds, images) each, the images the same; a lone seed is taken to vary as the other groups do, or,
            where all are alone, not at all. Shares that are the same on every image, all right, say, have an interval
            by two images more, one on each end (Bonett and Price 2012).
        offsets: what was taken from each group's values, so that with it shares are known for shares.
    """
    seeds = np.array([len(group) for group in groups])
    several = [group.mean(1).var(ddof=1) for group in groups if len(group) > 1]
    shared = float(np.mean(several)) if several else 0.0
    variances = np.array([group.mean(1).var(ddof=1) if len(group) > 1 else shared for group in groups]) / seeds
    total = np.sum([group.mean(0) for group in groups], axis=0)
    offset, seen, ends = sum(offsets), total, (-np.inf, np.inf)
    shares = [(group + own).round(9) for group, own in zip(groups, offsets or [0.0] * len(groups), strict=True)]
    if len(total) > 1 and np.ptp(total) == 0 and np.isin(np.concatenate(shares), (-1.0, 0.0, 1.0)).all():
        ends = ((0.0 if len(groups) == 1 and shares[0].min() >= 0 else -1.0) - offset, 1.0 - offset)
        seen = np.append(total, ends)
    draws = _image_means(seen[:, None])[:, 0].clip(*ends)
    spread = float(variances.sum())
    if spread > 0:
        alone = seeds.min() == 1  # then one variance of all groups is estimated
        freedom = float((seeds - 1).sum()) if alone else spread**2 / float((variances**2 / (seeds - 1)).sum())
        draws = draws + np.sqrt(spread) * np.random.default_rng(1).standard_t(freedom, DRAWS)
    least = 2.0 ** (1 - np.count_nonzero(total)) if len(total) > 1 else 0.0
    return Estimate(float(total.mean()), draws, least)


def sum_of_values(values: Sequence[tuple[Array, float]]) -> Estimate:
    """As `sum_of_groups` where no values of single images are there.

    Args:
        values: of each group (seeds,) values and the standard error that the images alone give their mean.
    """
    error = float(np.sqrt(sum(own**2 for _, own in values)))
    around = sum_of_groups([group[:, None] for group, _ in values])
    return Estimate(around.value, around.draws + error * np.random.default_rng(2).standard_normal(DRAWS))


def front_difference(
    first: Sequence[Sequence[Array]], second: Sequence[Sequence[Array]]
) -> tuple[Estimate, tuple[float, float]]:
    """How far the first front lies above the second, on average over the x that both reach, and those x's ends.

    Between neighbouring strengths a front is a straight line. A lone strength is compared with the other front at its
    own x.

    Args:
        first, second: at each strength x and y, (seeds, images) each; x's images the same throughout, and y's, which
            are taken to be x's where they are as many.

    Raises:
        ValueError: neither front has two strengths, or no x is reached by both.
    """
    if max(len(first), len(second)) < 2:
        raise ValueError("one of two fronts needs at least two strengths")
    points = [*first, *second]
    means = np.array([values.mean() for point in points for values in point])  # x, y, x, y, ...
    xs = means[::2]
    low = max(xs[: len(first)].min(), xs[len(first) :].min())
    high = min(xs[: len(first)].max(), xs[len(first) :].max())
    if low > high or (low == high and min(len(first), len(second)) > 1):
        raise ValueError("no x is reached by both fronts")
    of_x, of_y = (np.stack([point[place].mean(0) for point in points], axis=1) for place in (0, 1))
    if np.ptp(of_y, axis=0).max() == 0 and np.isin(of_y, (0.0, 1.0)).all():  # as in `sum_of_groups`
        first_alone = np.arange(len(points)) < len(first)
        of_x = np.concatenate([of_x, np.repeat(of_x.mean(0)[None], 2, axis=0)])
        of_y = np.concatenate([of_y, [first_alone, ~first_alone]])
    own = 0 if len(of_x) == len(of_y) else 3  # the same images are drawn together
    drawn = np.stack([_image_means(of_x), _image_means(of_y, own)], axis=2).reshape(DRAWS, -1)
    grid, split = np.linspace(low, high, _MATCHED), 2 * len(first)
    seeds = [np.stack([values.mean(1) for values in point], axis=1) for point in points]
    drawn = drawn + _seed_noise(seeds, _freedom(seeds, means, split, grid))
    value = _gap(means[None], split, grid)[0]
    return Estimate(float(value), _gap(drawn, split, grid)), (float(low), float(high))


def _gap(drawn: Array, split: int, grid: Array) -> Array:
    """(draws,) mean gap of two fronts over the grid, or at the x of the lone strength that one of them is."""
    fronts = [(part[:, ::2], part[:, 1::2]) for part in (drawn[:, :split], drawn[:, split:])]
    matched = next((xs for xs, _ in fronts if xs.shape[1] == 1), grid[None])
    first, second = (_on_line(xs, ys, matched) for xs, ys in fronts)
    gap: Array = (first - second).mean(1)
    return gap


def _on_line(xs: Array, ys: Array, grid: Array) -> Array:
    """(draws, grid) y on the lines between neighbouring points, beyond the ends that of the end itself.

    Args:
        xs, ys: (draws, points).
        grid: (draws or 1, grid) x.
    """
    if xs.shape[1] == 1:
        return ys
    order = np.argsort(xs, axis=1)
    xs, ys = (np.take_along_axis(values, order, axis=1) for values in (xs, ys))
    below = np.stack([(xs <= x[:, None]).sum(1) - 1 for x in grid.T], axis=1).clip(0, xs.shape[1] - 2)
    x0, x1, y0, y1 = (np.take_along_axis(values, below + step, axis=1) for values in (xs, ys) for step in (0, 1))
    width = x1 - x0
    share = np.divide(grid - x0, width, out=np.full_like(width, 0.5), where=width > 0).clip(0.0, 1.0)
    return y0 + share * (y1 - y0)


def _freedom(groups: Sequence[Array], means: Array, split: int, grid: Array) -> float:
    """Welch's degrees of freedom of the gap: each group's variance is that of the gap by its own seeds alone."""
    counts = np.array([len(group) for group in groups])
    if counts.min() == 1:  # then one variance of all groups is estimated
        return float((counts - 1).sum())
    variances = np.zeros(len(groups))
    for number, group in enumerate(groups):
        moved = np.repeat(means[None], len(group), axis=0)
        moved[:, 2 * number : 2 * number + 2] = group
        variances[number] = _gap(moved, split, grid).var(ddof=1) / len(group)
    total = float((variances**2 / (counts - 1)).sum())
    return float(variances.sum()) ** 2 / total if total > 0 else float((counts - 1).sum())


def _seed_noise(groups: Sequence[Array], freedom: float) -> Array:
    """(draws, all columns) of Student's t about the means of (seeds, columns) groups, columns together.

    A lone seed is taken to vary as the other groups do in the mean.
    """
    random = np.random.default_rng(1)
    own = {
        number: (group - group.mean(0)) / np.sqrt(len(group) - 1)
        for number, group in enumerate(groups)
        if len(group) > 1
    }
    shared = np.concatenate(list(own.values())) / np.sqrt(len(own)) if own else np.zeros((1, groups[0].shape[1]))
    noise = []
    for number, group in enumerate(groups):
        deviations = own.get(number, shared) / np.sqrt(len(group))
        noise.append(random.standard_normal((DRAWS, len(deviations))) @ deviations)
    scale = np.sqrt(freedom / random.chisquare(freedom, (DRAWS, 1))) if freedom else 1.0
    return np.asarray(np.concatenate(noise, axis=1) * scale, np.float64)


def _image_means(columns: Array, seed: int = 0) -> Array:
    """(draws, columns) means over images drawn with replacement from (images, columns); of few images Student's t."""
    count, random = len(columns), np.random.default_rng(seed)
    if count == 1:
        return np.repeat(columns, DRAWS, axis=0)
    if count < FEW:
        deviations = (columns - columns.mean(0)) / np.sqrt(count * (count - 1))
        scale = np.sqrt((count - 1) / random.chisquare(count - 1, (DRAWS, 1)))
        return np.asarray(columns.mean(0) + scale * (random.standard_normal((DRAWS, count)) @ deviations), np.float64)
    means = np.empty((DRAWS, columns.shape[1]))
    offsets = count * np.arange(_AT_ONCE)[:, None]
    for begin in range(0, DRAWS, _AT_ONCE):
        places = random.integers(count, size=(_AT_ONCE, count), dtype=np.int32) + offsets
        times = np.bincount(places.ravel(), minlength=_AT_ONCE * count).reshape(_AT_ONCE, count)
        means[begin : begin + _AT_ONCE] = times @ columns / count
    return means
