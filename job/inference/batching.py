"""Which prompts go through the model together: lengths in, rows of the next batch out. Knows nothing of models.

The longest go first, so that a batch that does not fit into memory shows at once and not after an hour, and so that
rows of one batch are of similar length: padding is work for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BatchLimits:
    """Tokens of a padded batch, answers included, and its rows, at the most; a longer row goes alone."""

    tokens: int
    rows: int
    new_tokens: int  # room for the answer of each row


def longest_first(lengths: Sequence[int]) -> list[int]:
    """The rows by descending length; equal ones keep their order."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def count_fitting(lengths: Sequence[int], limits: BatchLimits) -> int:
    """How many of the first rows make the next batch; `lengths` descends and is not empty. At least 1."""
    fitting = limits.tokens // padded_tokens(lengths[:1], limits)
    return max(1, min(fitting, limits.rows, len(lengths)))


def padded_tokens(lengths: Sequence[int], limits: BatchLimits) -> int:
    """Tokens of a batch of rows whose lengths descend: each is as long as the first, with its answer."""
    return len(lengths) * (lengths[0] + limits.new_tokens)


def halved(lengths: Sequence[int], limits: BatchLimits) -> BatchLimits:
    """Limits under which half as many of these rows, which were too many, make a batch."""
    return replace(limits, tokens=padded_tokens(lengths, limits) // 2)
