"""Batching: which prompts go through the model together, by their lengths.

The longest go first, so that a batch that does not fit into memory fails at once and not after an
hour. Rows of one batch have similar lengths, since padding is computed for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BatchLimits:
    """Limits of a batch: tokens with padding and answers, and rows. A longer row goes alone."""

    tokens: int
    rows: int
    new_tokens: int  # reserved in each row for its answer


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Return the indices of `lengths` by descending length; equal ones keep their order."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def count_fitting(lengths: Sequence[int], limits: BatchLimits) -> int:
    """Return how many of the first rows make the next batch, at least 1.

    `lengths` descends and is not empty.
    """
    fitting = limits.tokens // padded_tokens(lengths[:1], limits)
    return max(1, min(fitting, limits.rows, len(lengths)))


def padded_tokens(lengths: Sequence[int], limits: BatchLimits) -> int:
    """Return the tokens of a padded batch: each row is as long as the first, plus its answer.

    `lengths` descends and is not empty.
    """
    return len(lengths) * (lengths[0] + limits.new_tokens)


def limits_for_half(lengths: Sequence[int], limits: BatchLimits) -> BatchLimits:
    """Return limits under which a batch has half of these rows. Used when they were too many."""
    return replace(limits, tokens=padded_tokens(lengths, limits) // 2)
