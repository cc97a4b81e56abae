"""Intervals of means by a seeded percentile bootstrap.

Conversations are what was drawn at random, so they are resampled whole: the scores of one
conversation by all metrics stay together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOW_PERCENTILE, HIGH_PERCENTILE = 2.5, 97.5  # a 95% interval
SAMPLES_AT_ONCE = 64  # bounds memory: 64 x conversations counts


@dataclass(frozen=True)
class Interval:
    """A mean over conversations with the bounds of its 95% interval.

    `conversations` is the number of those that have a value.
    """

    mean: float
    low: float
    high: float
    conversations: int


def mean_intervals(values: NDArray[np.float64], samples: int, seed: int) -> list[Interval | None]:
    """Return the interval of each column's mean; `values` has shape (conversations, columns).

    NaN stands for a conversation without a value. A column of nothing else has no interval. The
    same seed and number of conversations draw the same resamples, so that systems are compared on
    equal draws.
    """
    conversations = len(values)
    rng = np.random.default_rng(seed)
    evenly = np.full(conversations, 1 / conversations)
    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    filled = np.where(present, values, 0.0)
    means = []
    for start in range(0, samples, SAMPLES_AT_ONCE):
        # Counts how often each conversation is drawn instead of listing the draws: then one product
        # of matrices has the means of all columns.
        count = min(SAMPLES_AT_ONCE, samples - start)
        drawn = rng.multinomial(conversations, evenly, size=count)
        with np.errstate(invalid="ignore"):  # a draw may have no conversation with a value
            means.append(drawn @ filled / (drawn @ present))  # (count, columns)

    resampled = np.concatenate(means)
    intervals: list[Interval | None] = []
    for column, valid in enumerate(counts):
        own = resampled[:, column]
        own = own[~np.isnan(own)]
        if not own.size:
            intervals.append(None)
            continue
        low, high = np.percentile(own, [LOW_PERCENTILE, HIGH_PERCENTILE])
        mean = filled[:, column].sum() / valid
        intervals.append(Interval(float(mean), float(low), float(high), int(valid)))
    return intervals


def paired_differences(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    samples: int,
    seed: int,
) -> list[Interval | None]:
    """Return the interval of each column's mean of left minus right.

    Both have shape (conversations, columns), and their rows are the same conversations. A
    conversation for which either has no value is left out.
    """
    return mean_intervals(left - right, samples, seed)
