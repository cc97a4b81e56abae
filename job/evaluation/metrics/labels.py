"""People's labels of summaries: faithful to the conversation or not.

JSON lines of `id`, `summary` and `label`. The id is that of a conversation of the evaluation's
input; the summary may be by any system, and a conversation may have several.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.conversations.draft import RecordError
from job.conversations.read import read_json_lines
from job.conversations.record import Conversation, Source
from job.errors import DataError
from job.storage.open import InputFile
from job.telemetry import warn

WANTED = "wanted an object with id, summary and label (true, false, or a number from 0 to 1)"
FAITHFUL = 0.5  # labels of at least this much mean faithful


@dataclass(frozen=True)
class Labelled:
    """A summary that a person judged, and its conversation."""

    summary: str
    conversation: Conversation
    is_faithful: bool


def read_labels(
    files: Iterable[InputFile], uri: str, conversations: Sequence[Conversation]
) -> list[Labelled]:
    """Read the labels of these conversations' summaries. Warns of labels of other ones.

    Raise DataError for a line that is no label, or if no label has a conversation.
    """
    known = {conversation.id: conversation for conversation in conversations}
    found: list[Labelled] = []
    others = 0
    for file in files:
        for source, record in read_json_lines(file):
            line = _line(record, source)
            conversation = known.get(str(line["id"]))
            if conversation is None:
                others += 1
                continue
            found.append(Labelled(line["summary"], conversation, line["label"] >= FAITHFUL))
    if not found:
        raise DataError(
            f"evaluation.faithfulness_labels: {uri} has {others} labels, and none is of one of the "
            f"{len(conversations)} conversations of the input, by id; give labels of their "
            "summaries, or none"
        )
    if others:
        warn("labels of other conversations are not used", labels=others, of=others + len(found))
    return found


def _line(record: Any, source: Source) -> Mapping[str, Any]:
    if isinstance(record, RecordError):
        raise DataError(f"{source}: {record.detail}; {WANTED} a line")
    if not isinstance(record, dict):
        raise DataError(f"{source}: got {type(record).__name__}; {WANTED}")
    missing = [key for key in ("id", "summary", "label") if key not in record]
    if missing:
        raise DataError(f"{source}: has no {' and no '.join(missing)}; {WANTED}")
    label = record["label"]
    is_label = isinstance(label, bool | int | float) and 0 <= label <= 1
    if not is_label or not isinstance(record["summary"], str):
        raise DataError(
            f"{source}: label is {_shown(label)}, and summary is "
            f"{type(record['summary']).__name__}; {WANTED}"
        )
    return record


def _shown(label: Any) -> str:
    return str(label) if isinstance(label, bool | int | float) else type(label).__name__
