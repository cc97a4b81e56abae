"""Choose how much of a step is computed again, and how many rows pass at once, by memory and time.

The rules of a training, which knows its free memory, and of a plan, which simulates it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Each n-th layer recomputes; None: no layer does.
LEVELS: tuple[int | None, ...] = (None, 4, 3, 2, 1)

# The backward pass holds the gradients of a layer besides, and allocators leave gaps.
MARGIN = 1.25
# Where memory runs out on one of several ranks, the others cannot be told: the run ends.
MARGIN_OF_SEVERAL_RANKS = 2.0
RESERVE_BYTES = 1 << 30
BYTES_OF_A_TRAINED_NUMBER = 12  # its gradient and two moments

# A forward pass takes a third of the time of a pass in which the base's weights have no gradients.
SHARE_OF_A_FORWARD_PASS = 1 / 3


@dataclass(frozen=True)
class PassNeed:
    """The memory of a step: what one micro-batch keeps for its backward pass, and the rest."""

    activation_bytes: float
    other_bytes: int
    layers: int

    def bytes_at(self, level: int | None, margin: float) -> float:
        """Return the bytes if each `level`-th layer recomputes. Activations take `margin` times."""
        kept = 1.0
        if level is not None:
            # One of those that recompute at a time is there whole.
            kept = (self.layers - self._recomputing(level) + 1) / self.layers
        return self.activation_bytes * kept * margin + self.other_bytes

    def time_at(self, level: int | None) -> float:
        """Return the time of a pass, of which one without recomputation takes 1."""
        return 1 + SHARE_OF_A_FORWARD_PASS * self._recomputing(level) / self.layers

    def _recomputing(self, level: int | None) -> int:
        return 0 if level is None else -(-self.layers // level)


def other_bytes(trained_numbers: int) -> int:
    """Return the bytes that a step needs whatever its rows, beside the weights."""
    return trained_numbers * BYTES_OF_A_TRAINED_NUMBER + RESERVE_BYTES


def margin_of(ranks: int) -> float:
    """Return the factor by which activations are taken for more than they were measured."""
    return MARGIN if ranks == 1 else MARGIN_OF_SEVERAL_RANKS


def least_level(
    need: PassNeed, levels: Sequence[int | None], free: int, margin: float
) -> int | None:
    """Return the level of least recomputation that fits into `free` bytes, else the last."""
    for level in levels:
        if need.bytes_at(level, margin) <= free:
            return level
    return levels[-1]


@dataclass(frozen=True)
class Filling:
    """The bounds and costs by which the rows of a pass are chosen, besides memory.

    It has at most `most_rows`, and takes `share_of_a_pass` times as long as a row besides them.
    """

    most_rows: int
    share_of_a_pass: float


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass: the number of the longest rows in it, and its recomputation."""

    rows: int
    level: int | None


def fastest_pass(
    need_of_a_row: PassNeed,
    levels: Sequence[int | None],
    free: int,
    margin: float,
    filling: Filling,
) -> Pass:
    """Return the pass that takes the least time for each row, of those that fit into `free` bytes.

    If nothing fits, return one row at the last level.
    """
    best = Pass(1, levels[-1])
    least = None
    for level in levels:
        one = need_of_a_row.bytes_at(level, margin) - need_of_a_row.other_bytes
        rows = min(filling.most_rows, int((free - need_of_a_row.other_bytes) / max(1.0, one)))
        if rows < 1:
            continue
        time = need_of_a_row.time_at(level) + filling.share_of_a_pass / rows
        if least is None or time < least:
            best = Pass(rows, level)
            least = time
    return best
