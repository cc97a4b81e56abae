"""Tables: a row with the whole conversation in one column.

Header or schema → the columns that are read; row → a draft. The conversation is text of
`Speaker: text` lines, or a list of turns (in CSV as text). Every column that is not used is carried
in the metadata.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from job.config.sections import ReadingSection, as_list
from job.conversations.draft import (
    Draft,
    RecordError,
    draft,
    kind,
    metadata_of,
    names,
)
from job.conversations.formats.turn_list import conversation_of
from job.conversations.listed import list_in
from job.conversations.references import references_of
from job.conversations.transcript import Transcript, read_transcript
from job.errors import DataError

CONVERSATION_COLUMNS = ("dialogue", "conversation", "transcript")


def conversation_column(columns: Sequence[str] | Mapping[str, Any], reading: ReadingSection) -> str | None:
    """The column that holds the conversation; None if there is none."""
    wanted = reading.column("conversation")
    return next((name for name in ([wanted] if wanted else CONVERSATION_COLUMNS) if name in columns), None)


def check_columns(columns: Sequence[str], uri: str, reading: ReadingSection) -> None:
    """DataError unless every column that is wanted is there, and none twice."""
    found = ", ".join(columns)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{uri}: column '{twice[0]}' stands twice (columns {found}); rename one of them")
    for use, named in reading.columns.items():
        for name in as_list(named):
            if name not in columns:
                remedy = f"correct data.columns.{use}"
                raise DataError(f"{uri}: no column '{name}' (columns {found}); {remedy}")
    if conversation_column(columns, reading) is None:
        raise DataError(
            f"{uri}: no column {' or '.join(CONVERSATION_COLUMNS)} (columns {found}); "
            "name the one that holds the conversation: data.columns: {conversation: …}"
        )


def parse(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """The conversation of one row; RecordError if it is none."""
    column = conversation_column(record, reading)
    if column is None:
        wanted = reading.column("conversation") or "dialogue"
        raise RecordError(f"has no '{wanted}'; found {names(record)}")
    summaries = reading.summary_columns
    missing = [name for name in summaries if name not in record]
    if missing and "summary" in reading.columns:
        named = f"has no '{missing[0]}', which data.columns names as the summary"
        raise RecordError(f"{named}; found {names(record)}")
    used = {column, *summaries, "summaries", id_key}
    transcript, references = _turns_and_references(record, column, reading)
    metadata = metadata_of(record, used)
    return draft(transcript.turns, references, metadata, transcript.doubts)


def _turns_and_references(
    record: Mapping[str, Any], column: str, reading: ReadingSection
) -> tuple[Transcript, list[str]]:
    cell = record[column]
    listed = list_in(cell, f"column '{column}'") if isinstance(cell, str) else cell
    if isinstance(listed, list):
        return conversation_of(listed, column, record, reading)
    if isinstance(cell, str):
        transcript = read_transcript(cell, reading)
    elif cell is None:
        transcript = Transcript([])
    else:
        raise RecordError(f"column '{column}' is {kind(cell)}, wanted text or a list of turns")
    return transcript, references_of(record, reading.summary_columns)
