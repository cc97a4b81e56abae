"""Older test sets: their conversations, which the judged adapter and the champion summarize."""

from collections.abc import Sequence
from dataclasses import dataclass

from job.config.data_sections import ReadingSection
from job.config.gate_sections import RegressionSection
from job.config.sections import StorageSection, as_list
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.errors import RecapError, RetryError
from job.evaluation.evaluate import choose_conversations
from job.storage.open import list_inputs
from job.storage.selection import Selection
from job.telemetry import warn


@dataclass(frozen=True)
class OlderInput:
    """The conversations of an older test set that are scored, not cleaned yet.

    Without any, `why` says why the set could not be read, without names of places.
    """

    name: str
    conversations: list[Conversation]
    why: str = ""


def read_older_set(
    section: RegressionSection,
    data: ReadingSection,
    storage: StorageSection,
    max_conversations: int | None,
) -> list[Conversation]:
    """Read the conversations of an older test set, and choose those to score."""
    files = list_inputs(as_list(section.input), storage, Selection.of(data))
    return choose_conversations(read_strictly(files, data), max_conversations)


def read_older_sets(
    sections: Sequence[RegressionSection],
    data: ReadingSection,
    storage: StorageSection,
    max_conversations: int | None,
) -> list[OlderInput]:
    """Read all older test sets. One that cannot be read has a reason instead of conversations.

    Its adapter is trained by then, and does not pass. Raise RetryError of the store.
    """
    found = []
    for section in sections:
        try:
            conversations = read_older_set(section, data, storage, max_conversations)
            found.append(OlderInput(section.name, conversations))
        except RetryError:
            raise
        except RecapError as error:
            warn(f"the older set {section.name} could not be read", why=str(error))
            why = f"it could not be read ({type(error).__name__})"
            found.append(OlderInput(section.name, [], why))
    return found
