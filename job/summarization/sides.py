"""A challenger beside the adapter: what both made of a night, collected while it is assembled.

In shadow, the two sides are of the same records. In a canary they are of different ones, which the
ids have chosen.
"""

import heapq
import json
from array import array
from collections import Counter
from hashlib import blake2b
from typing import Any, NamedTuple

from job.summarization.challenger import Choice
from job.summarization.chunk_store import OutcomeLine
from job.summarization.chunks import Chunk
from job.summarization.figure_sums import RewardSums
from job.summarization.quality import QualitySums, figures_of_outcomes
from job.summarization.records import ALREADY_DONE, Counts, Position
from job.summarization.sample import SampledSummary

MAX_PAIRS = 20  # of the summaries of one record, for people
NOT_OF_AN_ADAPTER = "invalid_record"  # reason of a reject that no adapter has seen


class Assignment:
    """Follows the lines of a chunk: is each of the adapter that the record's id gives it to."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._waiting: Position | None = None  # for the second line of a record

    def accepts(self, line: OutcomeLine) -> bool:
        """Return False if this line is not by its adapter, or one before it is missing."""
        is_chosen = self._choice.has(line.id_digest)
        if line.is_shadow:
            is_right = is_chosen and line.position == self._waiting
            self._waiting = None
        else:
            is_right = line.is_by_challenger == (is_chosen and self._choice.mode == "canary")
            is_right = is_right and self._waiting is None
            is_waited_for = is_chosen and self._choice.mode == "shadow" and not _is_skipped(line)
            self._waiting = line.position if is_waited_for else None
        return is_right

    @property
    def is_complete(self) -> bool:
        """False if the last record should have a second line, and has none."""
        return self._waiting is None


def _was_seen(line: OutcomeLine) -> bool:
    """Return True unless the record was rejected before any adapter saw it."""
    return line.is_summary or json.loads(line.row)["reason"] != NOT_OF_AN_ADAPTER


def _is_skipped(line: OutcomeLine) -> bool:
    return not line.is_summary and json.loads(line.row)["reason"] == ALREADY_DONE


class Side:
    """Counts and figures of what one adapter made."""

    def __init__(self) -> None:
        self._lengths = array("I")  # of the summaries, in characters
        self._cut = 0
        self._sums = Counter[str]()
        self._rejects = Counter[str]()
        self._quality = QualitySums()
        self._rewards = RewardSums()

    def add(self, line: OutcomeLine, has_figures: bool = True) -> None:
        """Count one outcome, with its figures of quality where it has some."""
        row = json.loads(line.row)
        if line.is_summary:
            self._lengths.append(len(row["summary"]))
            self._cut += row["finish_reason"] == "length"
            self._rewards.add(row)
            for name in ("input_tokens", "output_tokens", "redactions", "leaks"):
                self._sums[name] += row[name]
            self._sums["summaries"] += 1
        elif row["reason"] == ALREADY_DONE:
            self._sums["skipped"] += 1
        else:
            self._rejects[row["reason"]] += 1
        if has_figures:
            self._quality.add(line.figures)

    def counts(self) -> Counts:
        """Return the counts so far."""
        return Counts(rejects=dict(self._rejects), **self._sums)

    def facts(self) -> dict[str, Any]:
        """Return counts and figures as a manifest has them."""
        counts = self.counts()
        return {
            "counts": {
                "records": counts.new,
                "summaries": counts.summaries,
                "rejects": dict(counts.rejects),
                "input_tokens": counts.input_tokens,
                "output_tokens": counts.output_tokens,
            },
            "measured": self._quality.records,
            "figures": figures_of_outcomes(
                self._quality, self._lengths, self._cut, counts, self._rewards
            ),
        }


class Pair(NamedTuple):
    """The delivered summary of a record, and the row of the challenger's outcome beside it."""

    delivered: SampledSummary
    beside: dict[str, Any]


class Sides:
    """Both sides of a night with a challenger, and some records as both have summarized them."""

    def __init__(self, choice: Choice) -> None:
        self.challenger = Side()
        self.adapter = Side()  # in shadow, of the records that the challenger has, too
        self._choice = choice
        self._last: OutcomeLine | None = None  # of the adapter
        # The smallest digests are a random choice that is the same each time, as in NightSample.
        self._pairs: list[tuple[int, Position, Pair]] = []

    def add(self, line: OutcomeLine, chunk: Chunk) -> None:
        """Look at one line, in the order of the output."""
        if line.is_shadow:
            assert self._last is not None, "the adapter's line comes first"
            # Measured are the records of which both outcomes are: one of them may have no prompt.
            has_figures = bool(self._last.figures and line.figures)
            self.adapter.add(self._last, has_figures)
            self.challenger.add(line, has_figures)
            self._add_pair(self._last, line, chunk)
        elif line.is_by_challenger:
            self.challenger.add(line)
        elif self._choice.mode == "canary" and _was_seen(line):
            self.adapter.add(line)
        self._last = line

    def _add_pair(self, line: OutcomeLine, beside: OutcomeLine, chunk: Chunk) -> None:
        if not line.is_summary:
            return
        rank = -int.from_bytes(blake2b(beside.row, digest_size=8).digest())
        is_full = len(self._pairs) == MAX_PAIRS
        if is_full and rank < self._pairs[0][0]:
            return
        delivered = SampledSummary(json.loads(line.row), chunk, line.position)
        entry = (rank, line.position, Pair(delivered, json.loads(beside.row)))
        if is_full:
            heapq.heappushpop(self._pairs, entry)
        else:
            heapq.heappush(self._pairs, entry)

    def pairs(self) -> list[Pair]:
        """Return some records with both outcomes, in the order of the input."""
        found = [pair for _, _, pair in self._pairs]
        return sorted(found, key=lambda pair: pair.delivered.position)

    def facts(self) -> dict[str, Any]:
        """Return both sides as a manifest has them."""
        return {**self.challenger.facts(), "beside": self.adapter.facts()}
