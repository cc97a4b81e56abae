"""Chat records: `{"messages": [{"role", "content"}]}`, `content` a text, a list of text parts, or null.

One object → a draft. The user is the customer and the assistant the agent. Every other key is carried in the metadata.
"""

from collections.abc import Mapping
from typing import Any

from job.config.sections import ReadingSection
from job.conversations.draft import (
    Draft,
    RecordError,
    draft,
    id_key_of,
    metadata_of,
    names,
    references_of,
    turns_from_objects,
)


def parse(record: Mapping[str, Any], reading: ReadingSection) -> Draft:
    """The conversation of one record; RecordError if it is none."""
    if "messages" not in record:
        raise RecordError(f"has no 'messages'; found {names(record)}")
    used = {"messages", "summary", "summaries", id_key_of(record, reading)}
    turns = turns_from_objects(record["messages"], "messages", reading)
    return draft(turns, references_of(record), metadata_of(record, used))
