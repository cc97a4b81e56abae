"""Two ways to do one thing, measured in pairs: machines grow slower and faster while they are measured."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

Measure = Callable[[Path], float]  # seconds of one run in an empty folder


def compare(
    one: tuple[str, Measure], other: tuple[str, Measure], repeats: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Ratios (one / other) of pairs, one run right after the other and in turn the first; the seconds by name."""
    ratios: list[float] = []
    seconds: dict[str, list[float]] = {one[0]: [], other[0]: []}
    for repeat in range(repeats):
        for name, measure in (one, other) if repeat % 2 == 0 else (other, one):
            with tempfile.TemporaryDirectory() as work:
                seconds[name].append(measure(Path(work)))
        a, b = (measured[-1] for measured in seconds.values())
        ratios.append(a / b)
        print(
            f"pair {repeat + 1}: {one[0]} {a:.1f} s, {other[0]} {b:.1f} s, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    return ratios, seconds


def quartiles(ratios: list[float]) -> tuple[float, float, float]:
    """The median in the middle, and the bounds of the middle half around it."""
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, median, high = statistics.quantiles(ratios, n=4)
    return low, median, high
