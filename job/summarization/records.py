"""A record on its way through a night: its origin, prompts and outcome, and the row of that.

Types of which a night makes millions are named tuples: they are made in a third of the time of a
frozen dataclass.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from job.conversations.record import Conversation, Reject, Source
from job.inference.engine import FinishReason
from job.inference.reader import Prompts

ALREADY_DONE = "already_done"  # reason in the row of a skipped record

# The fields of Counts that are plain sums.
SUMS = (
    "summaries",
    "input_tokens",
    "output_tokens",
    "skipped",
    "redactions",
    "leaks",
    "unclear_speakers",
)


# Who made an outcome of a record: the adapter, the challenger in its place, or the challenger
# beside it, whose outcome is never delivered.
Writer = Literal["adapter", "canary", "shadow"]


class Position(NamedTuple):
    """The number of a record's file in the input of the night, and its line there."""

    file: int
    line: int


class Origin(NamedTuple):
    """The record that something is made of: its chunk, its position, its id, and who writes."""

    chunk: int
    position: Position
    id_digest: bytes = b""  # 16 bytes; empty if no id could be read
    is_derived: bool = False  # the record brought no id, and recap derived one from its content
    has_doubts: bool = False  # lines of the transcript may be another speaker's
    writer: Writer = "adapter"

    @property
    def is_shadow(self) -> bool:
        """True for the second outcome of a record, which does not count as one."""
        return self.writer == "shadow"


class Record(NamedTuple):
    """A record of the input as it was read."""

    origin: Origin
    content: Conversation | Reject


class Prepared(NamedTuple):
    """A conversation once its prompts are made. Windows hold many, so few keep their turns."""

    origin: Origin
    prompts: Prompts
    metadata: Mapping[str, Any]
    digest: str  # of the id, the words, and everything that decides the summary
    # As the model reads it: in the sample of quality, and in a night with candidates.
    conversation: Conversation | None = None


class Best(NamedTuple):
    """The choice of a summary among several candidates, by their rewards.

    A reward is None where the reward model gave none.
    """

    candidates: int
    number: int  # of the chosen one, from 1
    drawn_tokens: int  # of the answers of all candidates
    reward: float | None
    reward_of_first: float | None
    lowest_reward: float | None
    highest_reward: float | None


class Summary(NamedTuple):
    """A summarized conversation. Token counts are sums over all its prompts and answers."""

    id: str
    summary: str
    source: Source
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    dropped_turns: int
    metadata: Mapping[str, Any]
    parts: int = 1  # prompts of the first level; more than one for a long conversation
    levels: int = 1  # 1 is the conversation itself, 2 the summaries of its parts, and so on
    redactions: int = 0  # values replaced before the model read the conversation
    leaks: int = 0  # values replaced in the summary
    digest: str = ""  # of the id, the words, and everything that decides the summary
    best: Best | None = None  # in a night with candidates


class Skipped(NamedTuple):
    """A conversation that an earlier output has summarized, with the same weights and settings."""

    id: str
    source: Source
    digest: str


Result = Summary | Reject | Skipped


class Outcome(NamedTuple):
    """The result of one record, with the record's origin."""

    origin: Origin
    result: Result
    figures: bytes = b""  # of quality, as JSON; empty outside its sample


@dataclass(frozen=True)
class Counts:
    """Counts of results, and sums over the summaries."""

    summaries: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)  # by reason
    input_tokens: int = 0
    output_tokens: int = 0
    skipped: int = 0
    redactions: int = 0
    leaks: int = 0
    unclear_speakers: int = 0  # conversations with lines that may be another speaker's

    @property
    def rejected(self) -> int:
        """The number of rejects, whatever their reason."""
        return sum(self.rejects.values())

    @property
    def records(self) -> int:
        """The number of records."""
        return self.summaries + self.rejected + self.skipped

    @property
    def new(self) -> int:
        """The number of records that were not skipped."""
        return self.summaries + self.rejected

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum of both."""
        return self._combine(other, 1)

    def minus(self, other: "Counts") -> "Counts":
        """Return the difference of both."""
        return self._combine(other, -1)

    def _combine(self, other: "Counts", sign: int) -> "Counts":
        rejects = dict(self.rejects)
        for reason, count in other.rejects.items():
            rejects[reason] = rejects.get(reason, 0) + sign * count
        sums = {name: getattr(self, name) + sign * getattr(other, name) for name in SUMS}
        return Counts(
            rejects={reason: count for reason, count in rejects.items() if count},
            **sums,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as manifests and markers have them."""
        return {
            "records": self.records,
            "summaries": self.summaries,
            "rejects": dict(self.rejects),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "skipped": self.skipped,
            "redactions": self.redactions,
            "leaks": self.leaks,
            "unclear_speakers": self.unclear_speakers,
        }

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> Self:
        """Parse what `to_json` returned."""
        return cls(**{name: value for name, value in counts.items() if name != "records"})


class Tally:
    """Counts that grow by one outcome at a time."""

    def __init__(self) -> None:
        self._rejects: Counter[str] = Counter()
        self._sums = dict.fromkeys(SUMS, 0)

    def add(self, outcome: Outcome) -> None:
        """Count one more outcome."""
        result = outcome.result
        sums = self._sums
        sums["unclear_speakers"] += outcome.origin.has_doubts
        if isinstance(result, Reject):
            self._rejects[result.reason] += 1
        elif isinstance(result, Skipped):
            sums["skipped"] += 1
        else:
            sums["summaries"] += 1
            sums["input_tokens"] += result.input_tokens
            sums["output_tokens"] += result.output_tokens
            sums["redactions"] += result.redactions
            sums["leaks"] += result.leaks

    def counts(self) -> Counts:
        """Return the counts so far."""
        return Counts(rejects=dict(self._rejects), **self._sums)


def row_of(result: Result, adapter: str | None) -> dict[str, Any]:
    """Return the row of a result, as the output has it; `adapter` is the digest of the weights'."""
    return summary_row(result, adapter) if isinstance(result, Summary) else reject_row(result)


def summary_row(summary: Summary, adapter: str | None = None) -> dict[str, Any]:
    """Return the row of a summary, with the digest of the adapter that wrote it."""
    best = {} if summary.best is None else _best_cells(summary.best)
    return {
        "id": summary.id,
        "summary": summary.summary,
        "source": _source_cell(summary.source),
        "finish_reason": summary.finish_reason,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "dropped_turns": summary.dropped_turns,
        "parts": summary.parts,
        "levels": summary.levels,
        "redactions": summary.redactions,
        "leaks": summary.leaks,
        "digest": summary.digest,
        "adapter": adapter,
        **best,
        "metadata": dict(summary.metadata),
    }


def reject_row(result: Reject | Skipped) -> dict[str, Any]:
    """Return the row of a record that gets no summary here; its id is null if none was read."""
    if isinstance(result, Skipped):
        return {
            "id": result.id,
            "source": _source_cell(result.source),
            "reason": ALREADY_DONE,
            "detail": "summarized before, unchanged and with the same weights and settings",
            "digest": result.digest,
        }
    return {
        "id": result.id,
        "source": _source_cell(result.source),
        "reason": result.reason,
        "detail": result.detail,
    }


def counts_of_row(row: Mapping[str, Any], is_summary: bool) -> Counts:
    """Return the counts that one written row adds up to."""
    if is_summary:
        return Counts(summaries=1, **{name: row[name] for name in SUMS if name in row})
    if row["reason"] == ALREADY_DONE:
        return Counts(skipped=1)
    return Counts(rejects={row["reason"]: 1})


def _best_cells(best: Best) -> dict[str, Any]:
    return {
        "candidates": best.candidates,
        "candidate": best.number,
        "drawn_tokens": best.drawn_tokens,
        "reward": best.reward,
        "reward_of_first": best.reward_of_first,
        "lowest_reward": best.lowest_reward,
        "highest_reward": best.highest_reward,
    }


def _source_cell(source: Source) -> dict[str, Any]:
    return {"uri": source.uri, "line": source.line}
