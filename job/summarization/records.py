"""What becomes of a record: a summary, a reject that says why, or nothing where an earlier run has done it.

And the rows that they are written as. Knows nothing of files or of how summaries are made.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from job.conversations.record import Reject, Source
from job.inference.engine import FinishReason


class Summary(NamedTuple):
    """One summarized conversation; tokens are of all its prompts and answers, without their ends.

    `parts` of it were summarized first where it was too long, over `levels` (1 is the conversation itself).
    `redactions` are the values replaced before the model read it, `leaks` those replaced in the summary. `digest` is of
    its id, its words and all that decides its summary.
    """

    id: str
    summary: str
    source: Source
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    dropped_turns: int
    metadata: Mapping[str, Any]
    parts: int = 1
    levels: int = 1
    redactions: int = 0
    leaks: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Skipped:
    """A conversation that an earlier output has summarized, unchanged and with the same weights and settings."""

    id: str
    source: Source
    digest: str


Outcome = Summary | Reject | Skipped
ALREADY_DONE = "already_done"
NUMBERS = (
    *("summaries", "input_tokens", "output_tokens", "skipped", "redactions", "leaks"),
    "unclear_speakers",
)


@dataclass(frozen=True)
class Counts:
    """What became of a run's records: how many summaries, rejects by reason, and skipped; the summaries' numbers."""

    summaries: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    skipped: int = 0
    redactions: int = 0
    leaks: int = 0
    unclear_speakers: int = 0  # conversations with lines that may be another speaker's

    @property
    def rejected(self) -> int:
        """Rejects of any reason."""
        return sum(self.rejects.values())

    @property
    def records(self) -> int:
        """Records that have an outcome."""
        return self.summaries + self.rejected + self.skipped

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        reasons = [
            *self.rejects,
            *(reason for reason in other.rejects if reason not in self.rejects),
        ]
        rejects = {
            reason: self.rejects.get(reason, 0) + other.rejects.get(reason, 0) for reason in reasons
        }
        numbers = {name: getattr(self, name) + getattr(other, name) for name in NUMBERS}
        return Counts(
            rejects={reason: count for reason, count in rejects.items() if count}, **numbers
        )

    def minus(self, other: "Counts") -> "Counts":
        """Without those of the other."""
        rejects = {reason: -count for reason, count in other.rejects.items()}
        return self.plus(
            Counts(rejects=rejects, **{name: -getattr(other, name) for name in NUMBERS})
        )

    def to_json(self) -> dict[str, Any]:
        """The counts as the manifest holds them."""
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
        """The opposite of `to_json`."""
        return cls(**{name: value for name, value in counts.items() if name != "records"})


class Tally:
    """Counts that grow by one outcome at a time."""

    def __init__(self) -> None:
        self._rejects: Counter[str] = Counter()
        self._numbers = dict.fromkeys(NUMBERS, 0)

    def add(self, outcome: Outcome) -> None:
        """Count one more outcome."""
        numbers = self._numbers
        if isinstance(outcome, Reject):
            self._rejects[outcome.reason] += 1
        elif isinstance(outcome, Skipped):
            numbers["skipped"] += 1
        else:
            numbers["summaries"] += 1
            numbers["input_tokens"] += outcome.input_tokens
            numbers["output_tokens"] += outcome.output_tokens
            numbers["redactions"] += outcome.redactions
            numbers["leaks"] += outcome.leaks

    def counts(self) -> Counts:
        """What was counted so far."""
        return Counts(rejects=dict(self._rejects), **self._numbers)


def summary_row(summary: Summary) -> dict[str, Any]:
    """The line of a summary."""
    return {
        "id": summary.id,
        "summary": summary.summary,
        "source": _place(summary.source),
        "finish_reason": summary.finish_reason,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "dropped_turns": summary.dropped_turns,
        "parts": summary.parts,
        "levels": summary.levels,
        "redactions": summary.redactions,
        "leaks": summary.leaks,
        "digest": summary.digest,
        "metadata": dict(summary.metadata),
    }


def reject_row(outcome: Reject | Skipped) -> dict[str, Any]:
    """The line of a record that gets no summary here; its id is null where none could be read."""
    if isinstance(outcome, Skipped):
        detail = "summarized before, unchanged and with the same weights and settings"
        row = {
            "id": outcome.id,
            "source": _place(outcome.source),
            "reason": ALREADY_DONE,
            "detail": detail,
        }
        return row | {"digest": outcome.digest}
    return {
        "id": outcome.id,
        "source": _place(outcome.source),
        "reason": outcome.reason,
        "detail": outcome.detail,
    }


def counts_of_row(row: Mapping[str, Any], is_summary: bool) -> Counts:
    """The counts of one written line."""
    if is_summary:
        return Counts(summaries=1, **{name: row[name] for name in NUMBERS if name in row})
    if row["reason"] == ALREADY_DONE:
        return Counts(skipped=1)
    return Counts(rejects={row["reason"]: 1})


def _place(source: Source) -> dict[str, Any]:
    return {"uri": source.uri, "line": source.line}
