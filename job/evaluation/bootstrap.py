"""Intervals of means over conversations, by a seeded studentized bootstrap and Student's t.

Conversations are what was drawn at random, so they are resampled whole: the scores of one
conversation by all metrics stay together.

Each resample's distance from the mean is measured in its own standard errors (the bootstrap-t of
Efron 1982). That holds 95 % on few conversations with skewed scores, where percentiles of the
means are too narrow. Where most values are one and the same, as differences of systems that mostly
write the same text, resamples of the few others show too little doubt: the interval includes that
of Student's t, with these others as the sample. Shares of conversations have closed forms, because
resamples of what never happened show no doubt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOW_PERCENTILE, HIGH_PERCENTILE = 2.5, 97.5  # a 95% interval
NORMAL_QUANTILE = 1.959964  # of the standard normal distribution at HIGH_PERCENTILE
SAMPLES_AT_ONCE = 64  # bounds memory: 64 x conversations counts
# A resample of nearly equal values has nearly no standard error, and would make a bound infinite:
# it counts as at least this part of the sample's own.
LEAST_ERROR = 0.25
# A constant column may differ in the last digits after its mean is subtracted.
ROUNDING = 1e-12

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over conversations with the bounds of its 95% interval.

    `conversations` is the number of those that have a value. One alone says nothing about others:
    `is_known` is false then, and both bounds are the mean.
    """

    mean: float
    low: float
    high: float
    conversations: int

    @property
    def is_known(self) -> bool:
        """Return whether the bounds say anything."""
        return self.conversations > 1


def mean_intervals(
    values: NDArray[np.float64], samples: int, seed: int, shares: Sequence[bool] | None = None
) -> list[Interval | None]:
    """Return the interval of each column's mean; `values` has shape (conversations, columns).

    NaN stands for a conversation without a value. A column of nothing else has no interval. The
    same seed and number of conversations draw the same resamples, so that systems are compared on
    equal draws. `shares` tells the columns of which a value is a share: where each is 0 or 1, the
    interval is Wilson's.
    """
    intervals = _studentized(values, samples, seed)
    for column, is_share in enumerate(shares or ()):
        own = values[~np.isnan(values[:, column]), column]
        if is_share and len(own) > 1 and np.isin(own, (0, 1)).all():
            intervals[column] = wilson(int(own.sum()), len(own))
    return intervals


def paired_differences(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    samples: int,
    seed: int,
    shares: Sequence[bool] | None = None,
) -> list[Interval | None]:
    """Return the interval of each column's mean of left minus right.

    Both have shape (conversations, columns), and their rows are the same conversations. A
    conversation for which either has no value is left out. Exchanging the two turns the sign, and
    changes nothing else. Where each value of a share is 0 or 1, the interval is Bonett and Price's.
    """
    differences = left - right
    intervals = _studentized(differences, samples, seed)
    for column, is_share in enumerate(shares or ()):
        both = ~np.isnan(differences[:, column])
        if not is_share or both.sum() < 2:
            continue
        if all(np.isin(side[both, column], (0, 1)).all() for side in (left, right)):
            intervals[column] = _difference_of_shares(differences[both, column])
    return intervals


def _studentized(values: NDArray[np.float64], samples: int, seed: int) -> list[Interval | None]:
    """Return the bootstrap-t interval of each column."""
    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    with np.errstate(invalid="ignore"):  # a column may have no value
        means = np.where(present, values, 0.0).sum(axis=0) / counts
    centred = np.where(present, values - means, 0.0)
    ratios, errors = _ratios(centred, present, samples, seed)

    intervals: list[Interval | None] = []
    for column, valid in enumerate(counts):
        if not valid:
            intervals.append(None)
            continue
        own = ratios[:, column]
        own = np.sort(own[~np.isnan(own)])
        mean = float(means[column])
        low = high = mean
        if own.size and errors[column] > ROUNDING * abs(mean):
            # Order statistics, from both ends alike: exchanging two systems mirrors the interval.
            rank = max(int((own.size + 1) * LOW_PERCENTILE / 100), 1)
            student = _student_quantile(_unlike_the_most(values[present[:, column], column]))
            low -= max(float(own[-rank]), student) * float(errors[column])
            high -= min(float(own[rank - 1]), -student) * float(errors[column])
        intervals.append(Interval(mean, low, high, int(valid)))
    return intervals


def _ratios(
    centred: NDArray[np.float64], present: NDArray[np.bool_], samples: int, seed: int
) -> tuple[NDArray[np.float64], Column]:
    """Return the resampled means in standard errors, (samples, columns), and each column's error.

    NaN stands for a resample with fewer than two values.
    """
    conversations = len(centred)
    rng = np.random.default_rng(seed)
    evenly = np.full(conversations, 1 / conversations)
    counts = present.sum(axis=0)
    squares = centred**2
    found = []
    # A column or a draw may have fewer than two values, or equal ones.
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.sqrt(squares.sum(axis=0) / counts / (counts - 1))
        for start in range(0, samples, SAMPLES_AT_ONCE):
            # Counts how often each conversation is drawn instead of listing the draws: then
            # products of matrices have the means of all columns.
            count = min(SAMPLES_AT_ONCE, samples - start)
            drawn = rng.multinomial(conversations, evenly, size=count)
            sizes = drawn @ present  # (count, columns)
            means = drawn @ centred / sizes
            variances = np.maximum(drawn @ squares / sizes - means**2, 0.0)
            own = np.maximum(np.sqrt(variances / (sizes - 1)), LEAST_ERROR * errors)
            found.append(np.where(sizes > 1, means / own, np.nan))
    return np.concatenate(found), errors


def _unlike_the_most(values: Column) -> int:
    """Return how many values are not the most frequent one."""
    _, counts = np.unique(values, return_counts=True)
    return len(values) - int(counts.max())


def _student_quantile(freedom: int) -> float:
    """Return the quantile of Student's t at HIGH_PERCENTILE, for 1 degree of freedom or more.

    From 3 on, it is Fisher and Cornish's expansion (1960), right to 1 %.
    """
    if freedom < 3:
        return {1: 12.7062, 2: 4.3027}[freedom]
    z = NORMAL_QUANTILE
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def wilson(hits: int, count: int) -> Interval:
    """Return a share with its score interval (Wilson 1927), which has a width at 0 and at 1."""
    share, square = hits / count, NORMAL_QUANTILE**2
    middle = (hits + square / 2) / (count + square)
    spread = math.sqrt(share * (1 - share) * count + square / 4)
    half = NORMAL_QUANTILE * spread / (count + square)
    low = middle - half if hits else 0.0
    high = middle + half if hits < count else 1.0
    return Interval(share, low, high, count)


def _difference_of_shares(differences: Column) -> Interval:
    """Return the interval of a paired difference of shares (Bonett and Price 2012).

    It is Wald's with one conversation more on either side, and has a width if all are equal.
    """
    count = len(differences)
    more, fewer = int((differences > 0).sum()), int((differences < 0).sum())
    left, right = (more + 1) / (count + 2), (fewer + 1) / (count + 2)
    half = NORMAL_QUANTILE * math.sqrt((left + right - (left - right) ** 2) / (count + 2))
    mean, middle = (more - fewer) / count, left - right
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    return Interval(mean, min(low, mean), max(high, mean), count)
