"""Estimate the time and the cost of a training's steps: operations, and a range of speeds.

No speed was measured on a GPU by recap. The range is between what a small base in 4 bits may lose
to short products and to unpacking, and the best that was published of LoRA on one GPU.
"""

from dataclasses import dataclass

from job.gpus.cards import Card
from job.memory.shape import BaseShape

# Of a GPU's peak. The most is 402 of 989 TFLOP/s: an 8B base in bfloat16 with LoRA on one H100, by
# NVIDIA's NeMo in 2026.
LEAST_SHARE = 0.1
MOST_SHARE = 0.41
ASSUMPTION = (
    f"assumed: {LEAST_SHARE:.0%} to {MOST_SHARE:.0%} of the published peak (not measured); "
    "without the start, evaluations, sample summaries and the final scores"
)

HOURS_OF_A_DAY = 24


@dataclass(frozen=True)
class Work:
    """The tokens of a training in all its epochs, and those of them that are learned.

    `mean_row` is the mean length of a row in tokens.
    """

    tokens: int
    learned: int
    mean_row: float


def operations(shape: BaseShape, work: Work, recomputing_share: float) -> float:
    """Return the floating-point operations of a training.

    A product costs two by parameter and token, and as many again for the gradient of its input:
    weights of the base have none. `recomputing_share` is that of the layers which compute their
    forward pass twice.
    """
    forward = 2 * shape.layer_parameters * work.tokens
    # Scores and their sums over values, of which each token sees the half on average.
    attention = 2 * shape.layers * shape.width * work.mean_row * work.tokens
    head = 2 * 2 * shape.width * shape.vocabulary * work.learned
    return forward * (2 + recomputing_share) + attention * (3 + recomputing_share) + head


def hours_on(card: Card, flops: float, processes: int) -> tuple[float, float] | None:
    """Return the least and the most hours on `processes` GPUs; None if its peak is not known."""
    if card.peak_tflops is None:
        return None
    at_peak = flops / (card.peak_tflops * 1e12 * processes) / 3600
    return at_peak / MOST_SHARE, at_peak / LEAST_SHARE


def duration_text(hours: tuple[float, float], price: float | None, processes: int) -> str:
    """Return a range of time, and of cost by a price of a GPU's hour, for people."""
    least, most = hours
    text = f"{_shown(least)} to {_shown(most)}"
    if price is not None:
        cost = price * processes
        text += f", {least * cost:,.2f} to {most * cost:,.2f} at {price:g} an hour and GPU"
    return text


def _shown(hours: float) -> str:
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    if hours < 2 * HOURS_OF_A_DAY:
        return f"{hours:.1f} h"
    return f"{hours / HOURS_OF_A_DAY:.1f} days"
