"""Compare what was measured on a GPU with what recap must reach there."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
Place = tuple[str, str, str]  # measurement, variant, key


@dataclass(frozen=True)
class Goal:
    """A least ratio of a variant's median to the largest of others, perhaps of another table."""

    sentence: str
    one: Place
    others: tuple[Place, ...]  # variants of what a user would take, of which the fastest counts
    least: float


SPEED = "conversations_per_second"
SUMMARIES = "summaries_per_second"
MATRIX_RATE = ("ceilings", "ceilings", "bf16_tflops")
GOALS = [
    Goal(
        "training / classic recipe",
        ("training", "recap, fast", SPEED),
        (("training", "classic recipe", SPEED),),
        2.5,
    ),
    Goal(
        "training / trl sft, the faster of its batch sizes",
        ("training", "recap, fast", SPEED),
        (("training", "trl sft", SPEED), ("training", "trl sft, 16 rows a pass", SPEED)),
        1.15,
    ),
    Goal(
        "summaries, 16 bits / notebook's loop, nf4",
        ("summaries", "recap, 16 bits", SUMMARIES),
        (("summaries", "notebook's loop, nf4", SUMMARIES),),
        20,
    ),
    # How much of that is not the quantization.
    Goal(
        "summaries, nf4 / notebook's loop, nf4",
        ("summaries", "recap, nf4", SUMMARIES),
        (("summaries", "notebook's loop, nf4", SUMMARIES),),
        20,
    ),
    Goal(
        "packed rows, nf4 / matrix rate",
        ("long-rows", "packed", "tflops"),
        (MATRIX_RATE,),
        0.4,
    ),
    Goal(
        "packed rows, bf16 / matrix rate",
        ("long-rows", "packed, bf16 base", "tflops"),
        (MATRIX_RATE,),
        0.5,
    ),
]


def verdicts(lines: Sequence[Line]) -> list[str]:
    """Return a sentence for each goal, also for those that were not measured."""
    found = []
    for goal in GOALS:
        one = _median(lines, goal.one)
        medians = [_median(lines, place) for place in goal.others]
        others = [median for median in medians if median is not None]
        wanted = f"wanted: at least {goal.least}"
        if one is None or not others:
            found.append(f"{goal.sentence}: not measured ({wanted})")
            continue
        ratio = one / max(others)
        verdict = "" if ratio >= goal.least else ": MISSED"
        found.append(f"{goal.sentence}: {ratio:.2f} ({wanted}){verdict}")
    return found


def _median(lines: Sequence[Line], place: Place) -> float | None:
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
