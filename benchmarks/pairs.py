"""Compare ways to do one thing, in rounds of runs.

A machine grows slower and faster while it is measured. The runs of a round see the same of that.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from job.environment import describe

Measure = Callable[[Path], float]  # seconds of one run in an empty folder


def run_by_turns(ways: Mapping[str, Measure], repeats: int) -> dict[str, list[float]]:
    """Run all ways in each round, every second time in the opposite order; return their seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        names = list(ways)
        if repeat % 2 == 1:
            names.reverse()
        for name in names:
            with tempfile.TemporaryDirectory() as work:
                seconds[name].append(ways[name](Path(work)))
        shown = ", ".join(f"{name} {measured[-1]:.1f} s" for name, measured in seconds.items())
        print(f"round {repeat + 1}: {shown}", flush=True)
    return seconds


def ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return one / other of each round."""
    return [mine / theirs for mine, theirs in zip(one, other, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower bound of the middle half, the median, and the upper bound."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def machine() -> dict[str, Any]:
    """Return this machine's CPU, GPUs and versions, for a line of results."""
    found = describe()
    return {key: found[key] for key in ("cpu", "cores", "gpus", "python", "versions")}
