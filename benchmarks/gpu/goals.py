"""Compare what was measured on a GPU with what recap must reach there."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """A least ratio of a variant's median to that of another variant, perhaps of another table."""

    sentence: str
    one: tuple[str, str, str]  # measurement, variant, key
    other: tuple[str, str, str]
    least: float


SPEED = "conversations_per_second"
MATRIX_RATE = ("ceilings", "ceilings", "bf16_tflops")
GOALS = [
    Goal(
        "training / classic recipe",
        ("training", "recap, fast", SPEED),
        ("training", "classic recipe", SPEED),
        2.5,
    ),
    Goal(
        "training / trl sft",
        ("training", "recap, fast", SPEED),
        ("training", "trl sft", SPEED),
        1.15,
    ),
    Goal(
        "summaries / notebook's loop",
        ("summaries", "recap, 16 bits", "summaries_per_second"),
        ("summaries", "notebook's loop, nf4", "summaries_per_second"),
        20,
    ),
    Goal(
        "packed rows, nf4 / matrix rate",
        ("long-rows", "packed", "tflops"),
        MATRIX_RATE,
        0.4,
    ),
    Goal(
        "packed rows, bf16 / matrix rate",
        ("long-rows", "packed, bf16 base", "tflops"),
        MATRIX_RATE,
        0.5,
    ),
]


def verdicts(lines: Sequence[Line]) -> list[str]:
    """Return a sentence for each goal, also for those that were not measured."""
    found = []
    for goal in GOALS:
        one, other = _median(lines, goal.one), _median(lines, goal.other)
        wanted = f"wanted: at least {goal.least}"
        if one is None or other is None:
            found.append(f"{goal.sentence}: not measured ({wanted})")
            continue
        verdict = "" if one / other >= goal.least else ": MISSED"
        found.append(f"{goal.sentence}: {one / other:.2f} ({wanted}){verdict}")
    return found


def _median(lines: Sequence[Line], place: tuple[str, str, str]) -> float | None:
    """Return the median of the rounds; of the warm-up where there is nothing else."""
    measurement, variant, key = place
    its = [
        line
        for line in lines
        if line.get("measurement") == measurement and line["variant"] == variant and key in line
    ]
    measured = [line[key] for line in its if line["round"] > 0]
    values = measured or [line[key] for line in its]
    return statistics.median(values) if values else None
