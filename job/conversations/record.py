"""The records of the whole program: turns, conversations, and rejects.

Types that are made by the million are named tuples here and in other modules: creating one takes a
third of the time of a frozen dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from job.printable import visible

RejectReason = Literal[
    "invalid_record",  # no conversation: broken JSON, no turns, an unknown role, a wrong type
    "nothing_to_summarize",  # readable, but no text in it
    "too_long",  # does not fit the model's input, even with whole turns dropped
    "empty_summary",  # the model answered with nothing
    "generation_failed",  # the engine failed on this record
    "cut_at_limit",  # the summary reached generation.max_new_tokens, and the config rejects those
]


class Source(NamedTuple):
    """The origin of a record: a file's URI, and the 1-based line, row or member of a document."""

    uri: str
    line: int

    def __str__(self) -> str:
        return f"{self.uri} line {self.line}"


class Turn(NamedTuple):
    """One utterance.

    `role` is customer, agent or system, or the speaker's own label with `roles: as_written`.
    """

    role: str
    text: str


class Answer(NamedTuple):
    """A summary of a conversation that was judged: the wanted one, or one that is not."""

    text: str
    is_wanted: bool


class Conversation(NamedTuple):
    """One conversation: turns in order, zero or more reference summaries, and metadata.

    `doubts` quotes the lines of a transcript that may be another speaker's than the turn's that
    they are part of. `answers` are read only to train on preferences: of a pair the wanted one
    comes first, of a thumb there is one.
    """

    id: str
    turns: tuple[Turn, ...]
    source: Source
    references: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}
    doubts: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Reject:
    """A record without a summary, and the reason; `id` is None if it could not be read."""

    source: Source
    reason: RejectReason
    detail: str
    id: str | None = None

    def __str__(self) -> str:
        return visible(f"{self.source}: {self.detail}", one_line=True)
