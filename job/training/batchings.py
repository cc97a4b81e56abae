"""Count what the ways to batch a training's rows would cost: steps, passes, and padding.

The samplers and the budget are those of the trainer, so that the numbers are those of the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from job.config.method_sections import Method, sequences_of_a_row
from job.config.training_sections import TrainingSection
from job.training.batches import (
    TOKENS_OF_A_PASS,
    TOKENS_OF_A_PASS_ON_A_GPU,
    Budget,
    EpochSampler,
    Ranks,
    StepSampler,
)
from job.training.rows import Rows, lengths_of

BY_LENGTH = "by length"
AS_THEY_COME = "as they come"
PACKED = "packed"


@dataclass(frozen=True)
class Batching:
    """The costs of the first epoch with one way to batch the rows."""

    way: str
    rows: int  # after packing
    steps: int
    passes: int  # forward passes, of all ranks
    tokens: int
    padded_tokens: int  # with padding

    @property
    def efficiency(self) -> float:
        """The share of the computed tokens that are no padding."""
        return self.tokens / self.padded_tokens

    def facts(self) -> dict[str, Any]:
        """Return the costs as JSON types."""
        return {
            "rows": self.rows,
            "steps_per_epoch": self.steps,
            "passes_per_epoch": self.passes,
            "tokens": self.tokens,
            "padded_tokens": self.padded_tokens,
            "efficiency": round(self.efficiency, 4),
        }


def chosen_way(section: TrainingSection) -> str:
    """Return the way to batch that a config chooses."""
    if section.packing:
        return PACKED
    return BY_LENGTH if section.group_by_length else AS_THEY_COME


def batchings_of(
    rows: Rows, section: TrainingSection, ranks: int, method: Method, shares_prompts: bool
) -> list[Batching]:
    """Return the costs of each way: rows by length, as they come, and packed if they can be."""
    lengths = rows.lengths(shares_prompts)  # in the order of the data
    tokens = sum(lengths) if shares_prompts else rows.counted.tokens  # without padding
    ways = {BY_LENGTH: lengths, AS_THEY_COME: lengths}
    if method == "sft":
        ways[PACKED] = packed_lengths(lengths, section.max_tokens)
    sequences = sequences_of_a_row(method, shares_prompts)
    return [
        replace(_batching(way, of_way, section, ranks, sequences), tokens=tokens)
        for way, of_way in ways.items()
    ]


def batchings_lines(batchings: Sequence[Batching], chosen: str) -> list[str]:
    """Return the costs of each way as a table for people, with a mark at the chosen one."""
    lines = [f"{'of an epoch':14}{'padding':>8}{'steps':>9}{'forward passes':>16}"]
    for each in batchings:
        is_chosen = "  (this config)" if each.way == chosen else ""
        lines.append(
            f"{each.way:14}{1 - each.efficiency:>8.1%}{each.steps:>9,}{each.passes:>16,}{is_chosen}"
        )
    return lines


def packed_lengths(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """Return the tokens of each row after TRL has packed rows of these lengths.

    TRL packs them: its rows are counted, not estimated.
    """
    import numpy as np
    import pyarrow as pa
    from datasets import (
        Dataset,
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from datasets.table import InMemoryTable
    from trl import pack_dataset

    ends = np.cumsum([0, *lengths], dtype=np.int32)
    # TRL's memory grows with max_tokens: no row is longer than all tokens together.
    max_tokens = min(max_tokens, max(1, sum(lengths)))
    # One byte a token: what the tokens are makes no difference.
    rows = pa.ListArray.from_arrays(ends, np.zeros(int(ends[-1]), dtype=np.int8))
    dataset = Dataset(InMemoryTable(pa.table({"input_ids": rows})))
    shows_progress = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        packed = pack_dataset(dataset, max_tokens, map_kwargs={"keep_in_memory": True})
    finally:
        if shows_progress:
            enable_progress_bars()
    return lengths_of(packed)


def _batching(
    way: str, lengths: Sequence[int], section: TrainingSection, ranks: int, sequences: int
) -> Batching:
    """Return what the trainer would compute in its first epoch of rows of so many sequences."""
    rows_of_a_rank = section.rows_of_a_step
    budget = Budget(
        section.rows_at_once * max(lengths) // sequences,
        TOKENS_OF_A_PASS_ON_A_GPU if torch.cuda.is_available() else TOKENS_OF_A_PASS,
        joins_rows=way == PACKED,
    )
    grouped = list(lengths) if way == BY_LENGTH else [1] * len(lengths)
    order = list(EpochSampler(grouped, rows_of_a_rank, section.seed, lambda: 0))
    steps = passes = padded = 0
    for rank in range(ranks):
        sampler = StepSampler(order, lengths, rows_of_a_rank * ranks, Ranks(ranks, rank))
        steps = len(sampler)
        for rows in sampler:
            own = [lengths[row] for row in rows]
            for batch in budget.divide(own):
                passes += 1
                padded += _tokens_of([own[row] for row in batch], budget)
    return Batching(way, len(lengths), steps, passes, sum(lengths), padded)


def _tokens_of(lengths: Sequence[int], budget: Budget) -> int:
    """Return the tokens of a micro-batch, padding included."""
    return sum(lengths) if budget.joins_rows else len(lengths) * max(lengths)
