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
    """A mean over conversations with the bounds of its 95% interval."""

    mean: float
    low: float
    high: float


def mean_intervals(values: NDArray[np.float64], samples: int, seed: int) -> list[Interval]:
    """Return the interval of each column's mean; `values` has shape (conversations, columns).

    The same seed and number of conversations draw the same resamples, so that systems are compared
    on equal draws.
    """
    conversations = len(values)
    rng = np.random.default_rng(seed)
    evenly = np.full(conversations, 1 / conversations)
    means = []
    for start in range(0, samples, SAMPLES_AT_ONCE):
        # Counts how often each conversation is drawn instead of listing the draws: then one product
        # of matrices has the means of all columns.
        count = min(SAMPLES_AT_ONCE, samples - start)
        drawn = rng.multinomial(conversations, evenly, size=count)
        means.append(drawn @ values / conversations)  # (count, columns)

    bounds = [LOW_PERCENTILE, HIGH_PERCENTILE]
    lows, highs = np.percentile(np.concatenate(means), bounds, axis=0)
    columns = zip(values.mean(axis=0), lows, highs, strict=True)
    return [Interval(float(mean), float(low), float(high)) for mean, low, high in columns]


def paired_differences(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    samples: int,
    seed: int,
) -> list[Interval]:
    """Return the interval of each column's mean of left minus right.

    Both have shape (conversations, columns), and their rows are the same conversations.
    """
    return mean_intervals(left - right, samples, seed)
