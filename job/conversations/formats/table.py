"""Tables: a row with the whole conversation in one column.

Header or schema → the columns that are read; row → a draft. The conversation is text of `Speaker: text` lines, or a
list of turns (as JSON text in CSV). Every column that is not used is carried in the metadata.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from job.config.sections import ReadingSection
from job.conversations.draft import (
    Draft,
    RecordError,
    draft,
    kind,
    metadata_of,
    names,
    references_of,
    turns_from_lines,
    turns_from_objects,
)
from job.conversations.json_text import parse_json
from job.errors import DataError

CONVERSATION_COLUMNS = ("dialogue", "conversation", "transcript")
JSON_LIST = re.compile(r"\s*\[\s*[\[{\"\]]")  # a summary or a transcript may well begin with a bracketed word


def conversation_column(columns: Sequence[str] | Mapping[str, Any], reading: ReadingSection) -> str | None:
    """The column that holds the conversation; None if there is none."""
    wanted = reading.columns.get("conversation")
    return next((name for name in ([wanted] if wanted else CONVERSATION_COLUMNS) if name in columns), None)


def check_columns(columns: Sequence[str], uri: str, reading: ReadingSection) -> None:
    """DataError unless every column that is wanted is there, and none twice."""
    found = ", ".join(columns)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{uri}: column '{twice[0]}' stands twice (columns {found}); rename one of them")
    for use, name in reading.columns.items():
        if name not in columns:
            raise DataError(f"{uri}: no column '{name}' (columns {found}); correct data.columns.{use}")
    if conversation_column(columns, reading) is None:
        raise DataError(
            f"{uri}: no column {' or '.join(CONVERSATION_COLUMNS)} (columns {found}); "
            "name the one that holds the conversation: data.columns: {conversation: …}"
        )


def parse(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """The conversation of one row; RecordError if it is none."""
    column = conversation_column(record, reading)
    if column is None:
        raise RecordError(f"has no '{reading.columns.get('conversation', 'dialogue')}'; found {names(record)}")
    cell = record[column]
    if isinstance(cell, str):
        listed = parse_json(cell) if JSON_LIST.match(cell) else None
        turns = turns_from_lines(cell, reading) if listed is None else turns_from_objects(listed, column, reading)
    elif isinstance(cell, list):
        turns = turns_from_objects(cell, column, reading)
    elif cell is None:
        turns = []
    else:
        raise RecordError(f"column '{column}' is {kind(cell)}, wanted text or a list of turns")
    summary = reading.columns.get("summary", "summary")
    if summary not in record and "summary" in reading.columns:
        raise RecordError(f"has no '{summary}', which data.columns names as the summary; found {names(record)}")
    used = {column, summary, "summaries", id_key}
    return draft(turns, _references(record, summary), metadata_of(record, used))


def _references(record: Mapping[str, Any], column: str) -> list[str]:
    cell = record.get(column)
    if isinstance(cell, str) and JSON_LIST.match(cell):
        return references_of({**record, column: parse_json(cell)}, column)
    return references_of(record, column)
