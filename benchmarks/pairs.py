"""Compare two ways to do one thing, in pairs of runs.

A machine grows slower and faster while it is measured. The runs of a pair see the same of that.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

Measure = Callable[[Path], float]  # seconds of one run in an empty folder


def compare(
    one: tuple[str, Measure], other: tuple[str, Measure], repeats: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Run both ways by turns; return the ratios (one / other) of the pairs, and the seconds by way.

    The runs of a pair follow each other, and each way is the first in every second pair.
    """
    ratios: list[float] = []
    seconds: dict[str, list[float]] = {one[0]: [], other[0]: []}
    for repeat in range(repeats):
        in_turn = (one, other) if repeat % 2 == 0 else (other, one)
        for name, measure in in_turn:
            with tempfile.TemporaryDirectory() as work:
                seconds[name].append(measure(Path(work)))
        ratios.append(seconds[one[0]][-1] / seconds[other[0]][-1])
        shown = ", ".join(f"{name} {measured[-1]:.1f} s" for name, measured in seconds.items())
        print(f"pair {repeat + 1}: {shown}, ratio {ratios[-1]:.3f}", flush=True)
    return ratios, seconds


def quartiles(ratios: list[float]) -> tuple[float, float, float]:
    """Return the lower bound of the middle half, the median, and the upper bound."""
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, median, high = statistics.quantiles(ratios, n=4)
    return low, median, high
