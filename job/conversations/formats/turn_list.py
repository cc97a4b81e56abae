"""Records with a list of turns: recap's own, and chat messages.

`{"id", "turns": [{"role", "text"}], "summaries" | "summary", "metadata"}`, or `{"messages": [{"role", "content"}]}`:
`content` is a text, a list of text parts, or null; the user is the customer and the assistant the agent.
One object → a draft. Every other key is carried in the metadata.
"""

from collections.abc import Mapping
from typing import Any, Literal

from job.config.sections import ReadingSection
from job.conversations.draft import (
    Draft,
    RecordError,
    draft,
    metadata_of,
    names,
    references_of,
    turns_from_objects,
)


def parse(
    record: Mapping[str, Any], key: Literal["turns", "messages"], reading: ReadingSection, id_key: str | None
) -> Draft:
    """The conversation of one record, whose turns stand at `key`; RecordError if it is none."""
    if key not in record:
        raise RecordError(f"has no '{key}'; found {names(record)}")
    used = {key, "summary", "summaries", id_key}
    turns = turns_from_objects(record[key], key, reading)
    return draft(turns, references_of(record), metadata_of(record, used))
