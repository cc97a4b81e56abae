"""Two ways to do one thing, measured in pairs: machines grow slower and faster while they are measured."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

Measure = Callable[[Path], float]  # seconds of one run in an empty folder


def compare(ways: dict[str, Measure], repeats: int) -> tuple[list[float], dict[str, list[float]]]:
    """Ratios (first way / second) of pairs, one run right after the other and in turn the first; the seconds by way."""
    (first, _), (second, _) = ways.items()
    ratios: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name in (first, second) if repeat % 2 == 0 else (second, first):
            with tempfile.TemporaryDirectory() as work:
                seconds[name].append(ways[name](Path(work)))
        a, b = seconds[first][-1], seconds[second][-1]
        ratios.append(a / b)
        print(f"pair {repeat + 1}: {first} {a:.1f} s, {second} {b:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
    return ratios, seconds


def middle_half(ratios: list[float]) -> tuple[float, float]:
    """The quartiles around the median."""
    if len(ratios) == 1:
        return ratios[0], ratios[0]
    low, _, high = statistics.quantiles(ratios, n=4)
    return low, high
