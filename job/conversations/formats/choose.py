"""Which format a record has, by its keys, and the reader for it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from job.config.sections import ReadingSection
from job.conversations.draft import Draft, RecordError, names
from job.conversations.formats import dialogstudio, meetings, table, tickets, turn_list
from job.conversations.turn_objects import MISSING, value_at

Parser = Callable[[Mapping[str, Any], ReadingSection, str | None], Draft]
LISTS = {"recap": "turns", "messages": "messages", "sharegpt": "conversations"}
OTHERS: dict[str, Parser] = {
    "dialogstudio": dialogstudio.parse,
    "qmsum": meetings.parse_qmsum,
    "mediasum": meetings.parse_mediasum,
    "zendesk": tickets.parse_zendesk,
    "intercom": tickets.parse_intercom,
    "table": table.parse,
}
# The keys of formats that are no tables.
KEYS = {
    **LISTS,
    "dialogstudio": "log",
    "qmsum": "meeting_transcripts",
    "mediasum": "utt",
    "zendesk": "comments",
    "intercom": "conversation_parts",
}
# Keys that make a record one of their format, also where it has a column of a table's name.
BEFORE_TABLES = {"turns": "recap", "messages": "messages", "log": "dialogstudio"}
AFTER_TABLES = {
    "conversations": "sharegpt",
    "meeting_transcripts": "qmsum",
    "conversation_parts": "intercom",
}


def parse(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return the conversation that a record is; RecordError if it is none."""
    if "list" in reading.turns:
        return turn_list.parse(record, reading.turns["list"], reading, id_key)
    name = reading.format if reading.format != "auto" else _format_of(record, reading)
    if name in LISTS:
        return turn_list.parse(record, LISTS[name], reading, id_key)
    if name in OTHERS:
        return OTHERS[name](record, reading, id_key)
    wanted = ", ".join((*BEFORE_TABLES, *table.CONVERSATION_COLUMNS))
    raise RecordError(
        f"has none of {wanted}, nor another format's keys; found {names(record)}; name the text "
        "(data.columns: {conversation: …}) or the list of turns (data.turns: {list: …})"
    )


def conversation_key(reading: ReadingSection, record: Mapping[str, Any]) -> str | None:
    """Return the key under which the record has its conversation; None if it has none."""
    if "list" in reading.turns:
        path = reading.turns["list"]
        if value_at(record, path) is MISSING:
            return None
        return path if path in record else path.partition(".")[0]
    name = reading.format if reading.format != "auto" else _format_of(record, reading)
    if name == "table":
        return table.conversation_column(record, reading)
    key = KEYS.get(name, "")
    return key if isinstance(record.get(key), list | Mapping) else None


def holds_records(columns: Collection[str], reading: ReadingSection) -> bool:
    """Return True if the columns are the keys of records (`messages` of a chat data set, say)."""
    if reading.format != "auto":
        return reading.format != "table"
    if "list" in reading.turns:
        return True
    if "conversation" in reading.columns:
        return False
    keys = (*BEFORE_TABLES, *AFTER_TABLES)
    return any(key in columns for key in keys) or {"utt", "speaker"} <= set(columns)


def _format_of(record: Mapping[str, Any], reading: ReadingSection) -> str:
    """The format of a record by its keys; empty if it has none that is known."""
    if "conversation" in reading.columns and table.conversation_column(record, reading) is not None:
        return "table"
    is_table = table.conversation_column(record, reading) is not None
    for key, name in BEFORE_TABLES.items():
        # A table may well have a column of this name: the number of its turns, say.
        if key in record and not (is_table and not isinstance(record[key], list)):
            return name
    if is_table:
        return "table"
    for key, name in AFTER_TABLES.items():
        if key in record:
            return name
    if "utt" in record and "speaker" in record:
        return "mediasum"
    return "zendesk" if tickets.is_zendesk(record) else ""
