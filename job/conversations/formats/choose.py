"""The formats of records, and the choice among them by a record's keys.

`formats/__init__.py` says how to add one.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import Draft, RecordError, names
from job.conversations.formats import dialogstudio, meetings, table, tickets, turn_list
from job.conversations.turn_objects import MISSING, value_at

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A way to write a conversation as an object with keys.

    `name` is its value of data.format. `key` is the key of the conversation: a record that has it
    is of this format, unless `is_written` decides that. A table may have a column of the same name
    (the number of its `turns`, say) and is a table then; with `before_tables`, only if the column
    holds no list. `parse` returns the conversation of a record whose id is under the given key, or
    raises RecordError.
    """

    name: str
    key: str
    parse: Callable[[Record, ReadingSection, str | None], Draft]
    before_tables: bool = False
    is_written: Callable[[Record], bool] | None = None

    def fits(self, record: Record) -> bool:
        """Return True if the record is of this format, be it a table or not."""
        return self.key in record if self.is_written is None else self.is_written(record)


FORMATS = (
    Format("recap", "turns", partial(turn_list.parse, path="turns"), before_tables=True),
    Format("messages", "messages", partial(turn_list.parse, path="messages"), before_tables=True),
    Format("dialogstudio", "log", dialogstudio.parse, before_tables=True),
    Format("sharegpt", "conversations", partial(turn_list.parse, path="conversations")),
    Format("qmsum", "meeting_transcripts", meetings.parse_qmsum),
    Format("intercom", "conversation_parts", tickets.parse_intercom),
    Format("mediasum", "utt", meetings.parse_mediasum, is_written=meetings.is_mediasum),
    Format("zendesk", "comments", tickets.parse_zendesk, is_written=tickets.is_zendesk),
)
TABLE = Format("table", "", table.parse)
BY_NAME = {one.name: one for one in (*FORMATS, TABLE)}
BEFORE_TABLES = tuple(one for one in FORMATS if one.before_tables)
AFTER_TABLES = tuple(one for one in FORMATS if not one.before_tables)


def parse(record: Record, reading: ReadingSection, id_key: str | None) -> Draft:
    """Return the conversation that a record is. Raise RecordError if it is not one."""
    if "list" in reading.turns:
        return turn_list.parse(record, reading, id_key, reading.turns["list"])
    found = _format_of(record, reading)
    if found is not None:
        return found.parse(record, reading, id_key)
    keys = [one.key for one in BEFORE_TABLES]
    wanted = ", ".join((*keys, *table.CONVERSATION_COLUMNS))
    raise RecordError(
        f"has none of {wanted}, nor another format's keys; found {names(record)}; name the text "
        "(data.columns: {conversation: …}) or the list of turns (data.turns: {list: …})"
    )


def conversation_key(reading: ReadingSection, record: Record) -> str | None:
    """Return the key under which the record has its conversation; None if it has none."""
    if "list" in reading.turns:
        path = reading.turns["list"]
        if value_at(record, path) is MISSING:
            return None
        return path if path in record else path.partition(".")[0]
    found = _format_of(record, reading)
    if found is None:
        return None
    if found is TABLE:
        return table.conversation_column(record, reading)
    return found.key if isinstance(record.get(found.key), list | Mapping) else None


def holds_records(columns: Collection[str], reading: ReadingSection) -> bool:
    """Return True if the columns are the keys of records (`messages` of a chat data set, say)."""
    if reading.format != "auto":
        return reading.format != "table"
    if "list" in reading.turns:
        return True
    if "conversation" in reading.columns:
        return False
    record = dict.fromkeys(columns)
    return any(one.fits(record) for one in FORMATS)


def _format_of(record: Record, reading: ReadingSection) -> Format | None:
    """Return the format of a record by the config or else its keys; None if it has none known."""
    if reading.format != "auto":
        return BY_NAME.get(reading.format)
    is_table = table.conversation_column(record, reading) is not None
    if is_table and "conversation" in reading.columns:
        return TABLE
    for one in BEFORE_TABLES:
        if one.fits(record) and not (is_table and not isinstance(record[one.key], list)):
            return one
    if is_table:
        return TABLE
    for one in AFTER_TABLES:
        if one.fits(record):
            return one
    return None
