"""Decide how often a training evaluates and saves: for the run, and for its plan.

Imports no library.
"""

import math

FREE_SECONDS = 60.0  # of evaluations, which no share of the training's time limits


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Return the optimizer steps of an epoch, of which the last may have fewer rows."""
    return max(1, math.ceil(rows / rows_per_step))


def interval(steps: int | None, epochs: float | None, per_epoch: int) -> int:
    """Return an interval in optimizer steps, given in either unit. Half an epoch if in neither."""
    return steps or max(1, round((epochs or 0.5) * per_epoch))


def multiples(interval: int, after: int, last: int) -> int:
    """Return how many multiples of `interval` are above `after` and not above `last`."""
    return max(0, last // interval - after // interval)


def seconds_for_evaluations(share: float, training: float) -> float:
    """Return how long evaluations may take in all in a training of so many seconds."""
    return max(share * training, FREE_SECONDS) if share < 1 else math.inf
