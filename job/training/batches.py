"""Divide the rows of optimizer steps and of evaluations into micro-batches of little padding.

A step has the rows that the config gives it, whatever their length. A micro-batch, which is one
forward pass, has as many of them as a budget of tokens allows: short rows share one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from job.prompt.encode import IGNORED

Row = dict[str, Any]  # input_ids, labels and, if packed, seq_lengths
Tensors = dict[str, torch.Tensor]

# What a forward pass costs besides its tokens, as a number of tokens: launches of kernels, and on a
# GPU the dequantization of the base. Estimates, with little effect within a factor of two.
TOKENS_OF_A_PASS = 64
TOKENS_OF_A_PASS_ON_A_GPU = 512


@dataclass(frozen=True)
class Budget:
    """The most tokens of a micro-batch, padding included, and the tokens that a pass costs.

    A single row may exceed it. Joined rows have no padding.
    """

    tokens: int
    tokens_of_a_pass: int
    joins_rows: bool = False

    def divide(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return positions of rows by micro-batch, the longest rows first, at the least cost."""
        order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
        least = [0]  # cost of the first rows, by their number
        start_of_last: list[int] = []
        for end in range(1, len(order) + 1):
            costs: list[tuple[int, int]] = []
            joined = 0
            for start in range(end - 1, -1, -1):
                longest = lengths[order[start]]
                joined += longest
                tokens = joined if self.joins_rows else (end - start) * longest
                if tokens > self.tokens and costs:
                    break
                costs.append((least[start] + self.tokens_of_a_pass + tokens, start))
            cost, start = min(costs)
            least.append(cost)
            start_of_last.append(start)

        batches: list[list[int]] = []
        end = len(order)
        while end:
            start = start_of_last[end - 1]
            batches.append(order[start:end])
            end = start
        batches.reverse()
        return batches

    def smaller(self, lengths: Sequence[int]) -> "Budget | None":
        """Return the largest half, quarter, … by which more micro-batches are made of the rows.

        Return None if each row has a micro-batch of its own already.
        """
        batches = self.divide(lengths)
        if len(batches) == len(lengths):
            return None
        tokens = max(sum(lengths[row] for row in batch) for batch in batches)
        while True:
            tokens //= 2
            found = replace(self, tokens=tokens)
            if len(found.divide(lengths)) > len(batches):
                return found


def lengths_in(rows: Sequence[Row]) -> list[int]:
    """Return the number of tokens of each row."""
    return [len(row["input_ids"]) for row in rows]


@dataclass(frozen=True)
class Ranks:
    """The number of processes, and which of them this is."""

    count: int
    index: int


class EpochSampler(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """Row numbers in random order, in batches of similar length where lengths differ."""

    def __init__(
        self, lengths: list[int], batch_size: int, seed: int, present_epoch: Callable[[], int]
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._present_epoch = present_epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        # torch mixes the seed into all of its state: neighbouring seeds give unrelated orders.
        seed = self._seed * 1_000_003 + self._present_epoch()
        generator = torch.Generator().manual_seed(seed)
        indices = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        return iter(indices)


class StepSampler(torch.utils.data.Sampler[list[int]]):  # type: ignore[misc]
    """For each optimizer step of an epoch, the row numbers of this rank: a share of the tokens.

    Together the ranks have each row once. In the last step of an epoch, a rank may have none.
    """

    def __init__(
        self, rows: Collection[int], lengths: Sequence[int], rows_per_step: int, ranks: Ranks
    ) -> None:
        self._rows = rows
        self._lengths = lengths
        self._rows_per_step = rows_per_step
        self._ranks = ranks

    def __len__(self) -> int:
        return -(-len(self._rows) // self._rows_per_step)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self._rows)
        for start in range(0, len(order), self._rows_per_step):
            step = order[start : start + self._rows_per_step]
            yield self._share(step)

    def _share(self, step: list[int]) -> list[int]:
        """Return every n-th row by length, forwards and backwards in turns."""
        by_length = sorted(step, key=lambda row: -self._lengths[row])  # stable
        share = []
        for place, row in enumerate(by_length):
            turn, index = divmod(place, self._ranks.count)
            if turn % 2:
                index = self._ranks.count - 1 - index
            if index == self._ranks.index:
                share.append(row)
        return share


class EvaluationSampler(torch.utils.data.Sampler[list[int]]):  # type: ignore[misc]
    """The row numbers of an evaluation by micro-batch, the longest first: those of this rank.

    All ranks have as many micro-batches; of the last ones, some may be empty.
    """

    def __init__(self, lengths: Sequence[int], budget: Budget, ranks: Ranks) -> None:
        batches = budget.divide(lengths)
        while len(batches) % ranks.count:
            batches.append([])
        self._batches = batches[ranks.index :: ranks.count]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


@dataclass
class StepBatch:
    """The rows of one rank in one optimizer step, and its micro-batches."""

    rows: list[Row]
    micro_batches: list[Tensors]
    tokens_of_all_ranks: int


@dataclass(frozen=True)
class Collator:
    """Makes micro-batches of rows. `collate` is TRL's: it pads rows, or joins packed ones.

    `lengths` are the tokens of rows as a micro-batch has them, and `tokens` those that are no
    padding. `idle_row` has nothing to learn.
    """

    collate: Callable[[list[Row]], Tensors]
    lengths: Callable[[Sequence[Row]], list[int]]
    tokens: Callable[[Sequence[Row]], list[int]]
    idle_row: Row

    def micro_batches(self, rows: list[Row], budget: Budget) -> list[Tensors]:
        """Return the rows of a step as micro-batches, or one that is idle if there are none."""
        batches = []
        for positions in budget.divide(self.lengths(rows)):
            batches.append(self.collate([rows[position] for position in positions]))
        return batches or [self.idle()]

    def idle(self) -> Tensors:
        """Return a micro-batch without a learned token, for a rank that has no row left."""
        return self.collate([dict(self.idle_row)])

    def batch(self, rows: list[Row]) -> Tensors:
        """Return one micro-batch of the rows, which may be none."""
        return self.collate(rows) if rows else self.idle()


def summary_collator(collate: Callable[[list[Row]], Tensors], pad_id: int) -> Collator:
    """Return what makes micro-batches of rows with token ids and labels."""
    ids = [pad_id, pad_id]
    idle_row = {"input_ids": ids, "labels": [IGNORED, IGNORED], "seq_lengths": [2]}
    return Collator(collate, lengths_in, lengths_in, idle_row)
