"""Tables: a row with the whole conversation in one column.

The conversation is text of `Speaker: text` lines, or a list of turns (in CSV as text). Each column
that is not used becomes metadata.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from job.config.data_sections import ReadingSection
from job.config.sections import as_list
from job.conversations.draft import (
    Draft,
    RecordError,
    draft,
    kind,
    metadata_of,
    names,
    shown,
)
from job.conversations.formats.turn_list import conversation_of
from job.conversations.listed import list_in
from job.conversations.references import references_of
from job.conversations.transcript import Transcript, read_transcript
from job.conversations.turn_objects import transcript_of_message
from job.errors import DataError

MAX_COLUMNS = 10_000
SHOWN_COLUMNS = 20
JSON_KEY = re.compile(r'"\s*:')  # also in the rest of a line of JSON that was cut
CELL_ENDS = ',;|\t"\r'
LIST_COLUMNS = ("turns", "messages", "conversations")
CONVERSATION_COLUMNS = ("dialogue", "conversation", "transcript")


def conversation_column(columns: Collection[str], reading: ReadingSection) -> str | None:
    """Return the column that holds the conversation; None if there is none."""
    wanted = reading.column("conversation")
    names = [wanted] if wanted else CONVERSATION_COLUMNS
    return next((name for name in names if name in columns), None)


def in_known_case(columns: Sequence[str], reading: ReadingSection) -> list[str]:
    """Return the columns with those that recap reads in its own spelling: `Summary` as `summary`.

    A column is renamed only if no other one matches, with case or without.
    """
    there = set(columns)
    named = [name for names in reading.columns.values() for name in as_list(names)]
    wanted = [name for name in named if name not in there]
    wanted += [use for use in ("id", "summary") if use not in reading.columns and use not in there]
    if not has_conversation(columns, reading):
        wanted += [*CONVERSATION_COLUMNS, *LIST_COLUMNS]
    alike: dict[str, list[str]] = {}
    for column in columns:
        alike.setdefault(column.casefold(), []).append(column)
    renamed = {}
    for name in wanted:
        if len(alike.get(name.casefold(), ())) == 1:
            renamed[alike[name.casefold()][0]] = name
    return [renamed.get(column, column) for column in columns]


def names_conversation(line: str, reading: ReadingSection) -> bool:
    """Return True if the line is the header of a table with a column of conversations."""
    if JSON_KEY.search(line):
        return False
    columns = [name.strip() for name in re.split(f"[{CELL_ENDS}]", line)]
    if reading.csv.delimiter:
        columns += [name.strip() for name in line.split(reading.csv.delimiter)]
    return has_conversation(in_known_case(columns, reading), reading)


def check_names(columns: Sequence[str], uri: str) -> None:
    """Raise DataError if there are more than MAX_COLUMNS columns, or two of one name."""
    if len(columns) > MAX_COLUMNS:
        found = f"has {len(columns)} columns, and at most {MAX_COLUMNS} are read"
        raise DataError(f"{uri}: {found}; leave out those that nobody needs")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        named = f"column '{shown(twice[0])}' appears twice ({shown_columns(columns)})"
        raise DataError(f"{uri}: {named}; rename one of them")


def check_columns(columns: Sequence[str], uri: str, reading: ReadingSection) -> None:
    """Raise DataError unless every configured column and one with conversations are there.

    None may be there twice.
    """
    check_names(columns, uri)
    found = shown_columns(columns)
    for use, named in reading.columns.items():
        for name in as_list(named):
            if name not in columns:
                raise DataError(f"{uri}: no column '{name}' ({found}); correct data.columns.{use}")
    if not has_conversation(columns, reading):
        raise DataError(
            f"{uri}: no column {' or '.join(CONVERSATION_COLUMNS)} ({found}); "
            "name the one that holds the conversation (data.columns: {conversation: …}), or leave "
            "the file out by data.exclude (data.format: transcript reads a file of any name as one)"
        )


def has_conversation(columns: Collection[str], reading: ReadingSection) -> bool:
    """Return True if a column holds conversations: text, or lists of turns as pandas saves them."""
    if conversation_column(columns, reading) is not None:
        return True
    lists = [reading.turns["list"]] if "list" in reading.turns else LIST_COLUMNS
    return reading.format == "auto" and any(name in columns for name in lists)


def shown_columns(columns: Sequence[str]) -> str:
    """Return the columns for a message: the first of them, none long."""
    first = ", ".join(shown(column) for column in columns[:SHOWN_COLUMNS])
    return f"columns {first}" + (", …" if len(columns) > SHOWN_COLUMNS else "")


def parse(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return the conversation of one row. Raise RecordError if it is not one."""
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
    if isinstance(cell, str) and reading.reference == "last_assistant":
        transcript = transcript_of_message(cell, reading)
    elif isinstance(cell, str):
        transcript = read_transcript(cell, reading)
    elif cell is None:
        transcript = Transcript([])
    else:
        raise RecordError(f"column '{column}' is {kind(cell)}, wanted text or a list of turns")
    return transcript, references_of(record, reading.summary_columns)
