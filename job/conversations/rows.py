"""JSON lines and the members of JSON documents, each with its number.

Lines and members are numbered from 1. A RecordError replaces a record that cannot be read.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from job.conversations.draft import RecordError
from job.conversations.json_text import MAX_RECORD_CHARACTERS, parse_json

Row = tuple[int, Any]  # the number of a record in its file, and its value
MARK = "\ufeff"  # the byte order mark, which begins each of several files that were joined


def number_members(members: Iterable[tuple[str | None, Any]], first: int = 1) -> Iterator[Row]:
    """Yield the members of a document by position, with their keys as ids of dialogs."""
    for position, (key, value) in enumerate(members, first):
        if key is not None and isinstance(value, dict):
            value = {**value, "new dialog id": key}
        yield position, value


def json_lines(
    text: TextIO,
    max_characters: int = MAX_RECORD_CHARACTERS,
    first: int = 1,
) -> Iterator[Row]:
    """Yield the values of JSON lines; a RecordError for one that is invalid or too long.

    Blank lines are skipped. `first` is the number of the first line. The line end counts as one of
    its characters.
    """
    for number, line in _lines(text, max_characters, first):
        if isinstance(line, RecordError):
            yield number, line
        elif line.strip():
            try:
                yield number, parse_json(line.rstrip())
            except RecordError as error:
                if not line.startswith(MARK):
                    yield number, error
                elif not is_blank(line):
                    yield number, _parse_or_error(line.lstrip(MARK).rstrip())


def is_blank(text: str) -> bool:
    """Return True for a line that is no record."""
    return not text.strip() or not text.lstrip(MARK).strip()


def _parse_or_error(line: str) -> Any:
    try:
        return parse_json(line)
    except RecordError as error:
        return error


def _lines(
    text: TextIO,
    max_characters: int,
    first: int,
) -> Iterator[tuple[int, str | RecordError]]:
    number = first - 1
    while line := text.readline(max_characters + 1):
        number += 1
        if len(line) <= max_characters:
            yield number, line
            continue
        while not line.endswith("\n") and (line := text.readline(max_characters)):
            pass
        yield number, RecordError(f"the line is longer than {max_characters} characters")
