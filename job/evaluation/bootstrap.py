"""How sure a mean is.

Purpose: seeded percentile bootstrap over conversations, which are what was drawn at random; references and metrics of
one conversation stay together. Arrays in, intervals out. Knows nothing of what the numbers measure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOW, HIGH = 2.5, 97.5  # percent: a 95% interval
_SAMPLES_AT_ONCE = 64  # bounds memory: 64 x conversations counts


@dataclass(frozen=True)
class Interval:
    """A mean over conversations with the bounds of its 95% interval."""

    mean: float
    low: float
    high: float


def mean_intervals(values: NDArray[np.float64], samples: int, seed: int) -> list[Interval]:
    """Intervals of the columns' means; `values`: (conversations, columns), at least one conversation.

    The same seed and number of conversations draw the same resamples, so that systems are compared on equal draws.
    """
    conversations = len(values)
    rng = np.random.default_rng(seed)
    evenly = np.full(conversations, 1 / conversations)
    means = []
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        # How often each conversation is drawn, instead of which: one product gives every column's mean.
        drawn = rng.multinomial(conversations, evenly, size=min(_SAMPLES_AT_ONCE, samples - start))
        means.append(drawn @ values / conversations)  # (samples, columns)
    low, high = np.percentile(np.concatenate(means), [LOW, HIGH], axis=0)
    return [
        Interval(float(m), float(lo), float(hi))
        for m, lo, hi in zip(values.mean(axis=0), low, high, strict=True)
    ]


def paired_differences(
    left: NDArray[np.float64], right: NDArray[np.float64], samples: int, seed: int
) -> list[Interval]:
    """Intervals of the columns' mean of left minus right on the same conversations; both (conversations, columns)."""
    return mean_intervals(left - right, samples, seed)
