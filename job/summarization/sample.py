"""The sample of a night's rows that its report shows, collected while the output is written.

Holds the lengths of all summaries, some summaries at random, and a few rejects for each reason: 4
bytes a summary beside a fixed number of rows.
"""

import heapq
import json
from array import array
from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from job.summarization.chunk_store import OutcomeLine
from job.summarization.chunks import Chunk
from job.summarization.figure_sums import RewardSums
from job.summarization.records import ALREADY_DONE, Position

MAX_SUMMARIES = 20
MAX_REJECTS_PER_REASON = 3


@dataclass(frozen=True)
class SampledSummary:
    """A row of the output, with the chunk and the position of its record in the input."""

    row: dict[str, Any]
    chunk: Chunk
    position: Position


@dataclass(frozen=True)
class Lengths:
    """The lengths of all summaries of a night in characters: mean and percentiles."""

    mean: float
    p10: float
    median: float
    p90: float


class NightSample:
    """Collects what a report shows of a night's rows."""

    def __init__(self) -> None:
        self.lengths = array("I")  # of the summaries, in characters
        self.cut_summaries = 0  # by generation.max_new_tokens
        self.shortened_conversations = 0  # with turns that were dropped
        self.rewards = RewardSums()  # in a night with candidates
        self.rejects: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)  # by reason
        # The smallest digests are a random choice that is the same each time. A heap has its
        # smallest element first, so the digests are negative.
        self._chosen: list[tuple[int, Position, SampledSummary]] = []

    def add(self, line: OutcomeLine, chunk: Chunk) -> None:
        """Look at one row of the output."""
        row = json.loads(line.row.decode())  # of bytes, json would guess the encoding first
        if not line.is_summary:
            self._add_reject(row)
            return
        self.lengths.append(len(row["summary"]))
        self.cut_summaries += row["finish_reason"] == "length"
        self.shortened_conversations += row["dropped_turns"] > 0
        self.rewards.add(row)

        rank = -int.from_bytes(blake2b(line.row, digest_size=8).digest())
        is_full = len(self._chosen) == MAX_SUMMARIES
        if is_full and rank < self._chosen[0][0]:  # as nearly every row is
            return
        entry = (rank, line.position, SampledSummary(row, chunk, line.position))
        if is_full:
            heapq.heappushpop(self._chosen, entry)
        else:
            heapq.heappush(self._chosen, entry)

    def _add_reject(self, row: dict[str, Any]) -> None:
        if row["reason"] == ALREADY_DONE:  # skipped
            return
        examples = self.rejects[row["reason"]]
        if len(examples) < MAX_REJECTS_PER_REASON:
            examples.append(row)

    def summaries(self) -> list[SampledSummary]:
        """Return the chosen summaries in the order of the input."""
        chosen = [sampled for _, _, sampled in self._chosen]
        return sorted(chosen, key=lambda sampled: sampled.position)

    def summary_lengths(self) -> Lengths | None:
        """Return the lengths in four numbers, None without a summary."""
        if not self.lengths:
            return None
        lengths = np.frombuffer(self.lengths, dtype=np.uint32)
        p10, median, p90 = np.percentile(lengths, [10, 50, 90])
        return Lengths(*(round(float(number), 1) for number in (lengths.mean(), p10, median, p90)))
