"""Systems: whatever has summarized the conversations of an evaluation, and their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.conversations.record import Conversation
from job.evaluation.metrics.metric import Sample
from job.evaluation.result import Evaluation, Kind

TUNED, AS_TRAINED, BASE = "tuned", "as trained", "base without adapter"
CHAMPION, GIVEN = "champion", "given file"


@dataclass(frozen=True)
class System:
    """Summaries of the same conversations by one author, in the conversations' order.

    `origin` says in words where they come from. `finish_reasons` has "stop", "length" or None for
    each summary, and is None if nobody knows any. `serving` is `Serving.to_json()` of a system that
    generated here. `read` has the conversations with placeholders, if it read them so.
    """

    name: str
    kind: Kind
    summaries: list[str]
    finish_reasons: Sequence[str | None] | None = None
    origin: str = ""
    serving: Mapping[str, Any] | None = None
    read: Sequence[Conversation] | None = None

    def sample(self, row: int, conversation: Conversation) -> Sample:
        """Return its summary of a conversation, to be measured against what it could know of it.

        The references stay as people wrote them.
        """
        reason = self.finish_reasons[row] if self.finish_reasons else None
        read = conversation if self.read is None else self.read[row]
        return Sample(self.summaries[row], read, conversation.references, reason)

    def at(self, rows: Sequence[int]) -> "System":
        """Return the system with the summaries in these rows alone."""
        reasons = self.finish_reasons
        return replace(
            self,
            summaries=[self.summaries[row] for row in rows],
            finish_reasons=None if reasons is None else [reasons[row] for row in rows],
            read=None if self.read is None else [self.read[row] for row in rows],
        )


@dataclass(frozen=True)
class Scored:
    """An evaluation, and all that it was made of.

    `conversations` are the scored ones, `systems` have a summary of each: the judged system first,
    floors and human references last. `scores` has by system and metric the score of each
    conversation (its mean over references), NaN where it has none.
    """

    evaluation: Evaluation
    conversations: list[Conversation]
    systems: list[System]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def summaries(self) -> dict[str, list[str]]:
        """Return the summaries of the systems that are no floor and no human, by name."""
        apart = ("floor", "human")
        return {s.name: s.summaries for s in self.systems if s.kind not in apart}
