"""recap's own format: `{"id", "turns": [{"role", "text"}], "summaries" | "summary", "metadata"}`.

One object → a draft. Every other key is carried in the metadata.
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
    if "turns" not in record:
        raise RecordError(f"has no 'turns'; found {names(record)}")
    used = {"turns", "summary", "summaries", id_key_of(record, reading)}
    turns = turns_from_objects(record["turns"], "turns", reading)
    return draft(turns, references_of(record), metadata_of(record, used))
