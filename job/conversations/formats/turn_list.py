"""Records with a list of turns: recap's own, chat messages, ShareGPT, lists that the config names.

`{"id", "turns": [{"role", "text"}], "summaries" | "summary", "metadata"}`,
`{"messages": [{"role", "content"}]}`, `{"conversations": [{"from", "value"}]}`: user and human are
the customer, assistant and gpt the agent. Each key that is not used becomes metadata.
"""

from collections.abc import Mapping
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import Draft, RecordError, draft, metadata_of, names
from job.conversations.references import references_of, summary_keys
from job.conversations.transcript import Transcript
from job.conversations.turn_objects import (
    MISSING,
    separate_last_assistant,
    turns_from_objects,
    value_at,
)


def parse(
    record: Mapping[str, Any],
    reading: ReadingSection,
    id_key: str | None,
    path: str,
) -> Draft:
    """Return the conversation of one record with its turns at `path`.

    Raise RecordError if the record is not one.
    """
    items = value_at(record, path)
    if items is MISSING:
        remedy = "; correct data.turns.list" if "list" in reading.turns else ""
        raise RecordError(f"has no '{path}'; found {names(record)}{remedy}")
    transcript, references = conversation_of(items, path, record, reading)
    list_key = path if path in record else path.partition(".")[0]
    used = {list_key, *summary_keys(record, reading), "summaries", id_key}
    metadata = metadata_of(record, used)
    return draft(transcript.turns, references, metadata, transcript.doubts)


def conversation_of(
    items: Any, where: str, record: Mapping[str, Any], reading: ReadingSection
) -> tuple[Transcript, list[str]]:
    """Return turns and references of a record with the list `items`, which it holds at `where`.

    With `reference: last_assistant`, the summary's key may hold the messages that end the chat, as
    TRL's `prompt` and `completion` do.
    """
    transcript = turns_from_objects(items, where, reading)
    keys = summary_keys(record, reading)
    if reading.reference != "last_assistant":
        return transcript, references_of(record, keys)
    turns = transcript.turns
    summaries = []
    for key in keys:
        if _holds_messages(record.get(key)):
            turns = turns + turns_from_objects(record[key], key, reading).turns
        else:
            summaries.append(key)
    transcript, last = separate_last_assistant(transcript._replace(turns=turns), reading)
    return transcript, [*last, *references_of(record, summaries)]


def _holds_messages(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
