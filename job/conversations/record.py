"""The record types that everything above speaks in. Knows nothing of formats, models or prompts.

Here and above, what is made by the million and never changed in part is a named tuple, in a third of the time of a
frozen dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from job.printable import visible

RejectReason = Literal[
    "invalid_record",  # not readable as a conversation: broken JSON, no turns, an unknown role, a wrong type
    "nothing_to_summarize",  # readable, but no text in it
    "too_long",  # does not fit the model's input, even with whole turns dropped
    "empty_summary",  # the model answered with nothing
    "generation_failed",  # the engine failed on this record
    "cut_at_limit",  # the summary was cut at generation.max_new_tokens, and the config wants no such summary
]


class Source(NamedTuple):
    """Where a record stands: the file's URI and its 1-based line, row, or position in a JSON object."""

    uri: str
    line: int

    def __str__(self) -> str:
        return f"{self.uri} line {self.line}"


class Turn(NamedTuple):
    """One utterance. `role` is customer, agent or system, or the speaker's own label under `roles: as_written`."""

    role: str
    text: str


class Conversation(NamedTuple):
    """One conversation: its turns in order, zero or more reference summaries, and metadata that is carried along.

    `doubts` quotes the lines of a transcript that may be another speaker's than the turn's that they are part of.
    """

    id: str
    turns: tuple[Turn, ...]
    source: Source
    references: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reject:
    """A record that is no conversation, and why; `id` where it could be read."""

    source: Source
    reason: RejectReason
    detail: str
    id: str | None = None

    def __str__(self) -> str:
        return visible(f"{self.source}: {self.detail}", one_line=True)
