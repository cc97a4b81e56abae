"""Train twice, and once with a stop in between, and compare the bytes of the adapters."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.gpu.measurements import merged
from benchmarks.gpu.trainers import Trained, train_once
from benchmarks.gpu.turns import Turn


def compare_runs(specification: Mapping[str, Any], turn: Turn) -> None:
    """Report if a training again, and one resumed from its middle, end with the same adapter."""
    turn.report({})  # others may compute until it is this one's turn
    steps = specification["steps"]
    half = {"training": {"max_steps": steps, "save_every_steps": steps // 2}}
    config = merged(specification.get("config", {}), half)
    specification = {**specification, "config": config}

    work = Path(mkdtemp(prefix="recap-bench-"))
    first = train_once(specification, work / "first")
    again = train_once(specification, work / "again")
    checkpoint = work / "first" / "checkpoints" / f"checkpoint-{steps // 2}"
    resumed = train_once(specification, work / "resumed", checkpoint)
    turn.report(
        {
            "is_repeatable": largest_difference(first, again) == 0,
            "is_resumable": largest_difference(first, resumed) == 0,
            "difference_of_repeat": largest_difference(first, again),
            "difference_of_resumed": largest_difference(first, resumed),
            "step_seconds": again.seconds / steps,
        }
    )


def largest_difference(one: Trained, other: Trained) -> float:
    """Return the largest difference of a weight, as a share of the largest weight."""
    largest = max(float(weight.abs().max()) for weight in one.weights.values())
    differences = [
        float((weight - other.weights[name]).abs().max()) for name, weight in one.weights.items()
    ]
    return max(differences) / largest
