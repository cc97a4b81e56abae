"""What becomes of a record: a summary, or a reject that says why. The rows that both are written as.

Knows nothing of files or of how summaries are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from job.conversations.record import BadRecord, Source
from job.inference.engine import FinishReason


@dataclass(frozen=True)
class Summary:
    """One summarized conversation; tokens are of the prompt and of the summary, without its end."""

    id: str
    summary: str
    source: Source
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    dropped_turns: int
    metadata: Mapping[str, Any]


Outcome = Summary | BadRecord


@dataclass(frozen=True)
class Counts:
    """What became of a run's records: how many summaries, and how many rejects by reason; tokens of the summaries."""

    summaries: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def rejected(self) -> int:
        """Rejects of any reason."""
        return sum(self.rejects.values())

    @property
    def records(self) -> int:
        """Records that have an outcome."""
        return self.summaries + self.rejected

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        reasons = [*self.rejects, *(reason for reason in other.rejects if reason not in self.rejects)]
        rejects = {reason: self.rejects.get(reason, 0) + other.rejects.get(reason, 0) for reason in reasons}
        return Counts(
            self.summaries + other.summaries,
            {reason: count for reason, count in rejects.items() if count},
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def to_json(self) -> dict[str, Any]:
        """The counts as the manifest holds them."""
        return {
            "records": self.records,
            "summaries": self.summaries,
            "rejects": dict(self.rejects),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> Self:
        """The opposite of `to_json`."""
        return cls(**{name: value for name, value in counts.items() if name != "records"})


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
        "metadata": dict(summary.metadata),
    }


def reject_row(reject: BadRecord) -> dict[str, Any]:
    """The line of a reject; its id is null where none could be read."""
    return {"id": reject.id, "source": _place(reject.source), "reason": reject.reason, "detail": reject.detail}


def _place(source: Source) -> dict[str, Any]:
    return {"uri": source.uri, "line": source.line}
