"""Turns from a list of objects, one for each turn, with any names of keys.

A list as a file holds it, or a text that holds one → turns. `separate_last_assistant` then takes
the reference from chats that end with it.
"""

from collections.abc import Mapping
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import (
    ALIASES,
    RecordError,
    kind,
    names,
    role_of,
    shown,
)
from job.conversations.listed import list_in
from job.conversations.record import Turn
from job.conversations.transcript import Transcript, read_transcript, without_preface

ROLE_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("text", "content", "value")
TEXT_PARTS = ("text", "input_text", "output_text")  # of content that is a list
KEYS_REMEDY = "name its keys: data.turns: {role: …, text: …}"
MISSING = object()


def turns_from_objects(items: Any, where: str, reading: ReadingSection) -> Transcript:
    """Return the turns of a list of objects; their other keys are not kept.

    A list of texts is read as lines of `Speaker: text`, of which some may be in doubt. Raise
    RecordError for anything else.
    """
    if isinstance(items, str):
        listed = list_in(items, where)
        items = items if listed is None else listed
    if not isinstance(items, list):
        raise RecordError(f"{where} is {kind(items)}, wanted a list of turns")
    named = bool(reading.turns)
    turns = []
    doubts: tuple[str, ...] = ()
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            if not isinstance(item, str):
                wanted = "wanted an object with role and text"
                raise RecordError(f"turn {number} is {kind(item)}, {wanted}")
            part = _turns_of_text(item, number, reading)
            turns += part.turns
            doubts += part.doubts
            continue
        text_key = "text" if "text" in item else "content"
        if "role" in item and text_key in item and not named:  # most files, so without a search
            label = item["role"]
            text = item[text_key]
        else:
            label, text, text_key = _label_and_text(item, number, reading)
        role = role_of(label, reading)
        if role is None:
            continue
        if not isinstance(text, str):
            text = _text(text, f"turn {number}", parts=text_key == "content")
        turns.append(Turn(role, text))
    return Transcript(turns, doubts)


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """Return the value under a key, or at a path of keys joined by dots, or MISSING."""
    if path in record:
        return record[path]
    value: Any = record
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return MISSING
        value = value[key]
    return value


def separate_last_assistant(
    transcript: Transcript,
    reading: ReadingSection,
) -> tuple[Transcript, list[str]]:
    """Return the conversation of a chat that ends with its summary, and the summary.

    There is no summary if the last message is not the assistant's. What is left is read as
    `conversation_of_prompt` does.
    """
    spoken = [turn for turn in transcript.turns if turn.text.strip()]
    spoken = [turn for turn in spoken if canonical_role(turn) != "system"]
    references = []
    if spoken and canonical_role(spoken[-1]) == "agent":
        references = [spoken.pop().text]
    return conversation_of_prompt(transcript._replace(turns=spoken), reading), references


def conversation_of_prompt(transcript: Transcript, reading: ReadingSection) -> Transcript:
    """Return the conversation that the messages of a prompt are.

    System messages instruct the summarizer and are dropped. A single user message is the whole
    transcript, perhaps after an instruction: its lines are the turns.
    """
    spoken = [turn for turn in transcript.turns if turn.text.strip()]
    spoken = [turn for turn in spoken if canonical_role(turn) != "system"]
    if len(spoken) == 1 and canonical_role(spoken[0]) == "customer":
        return transcript_of_message(spoken[0].text, reading)
    return transcript._replace(turns=spoken)


def canonical_role(turn: Turn) -> str:
    """Return the role of a turn's label, also with `roles: as_written`."""
    name = turn.role.casefold()
    return "system" if name == "developer" else ALIASES.get(name, turn.role)


def transcript_of_message(
    message: str, reading: ReadingSection, where: str = "the user's message"
) -> Transcript:
    """Return the transcript that a user's message or a prompt is, behind an instruction perhaps."""
    try:
        return read_transcript(without_preface(message, reading), reading)
    except RecordError as error:
        key = ""
        if reading.reference == "last_assistant":
            key = " (data.reference: last_assistant)"
        raise RecordError(f"{where} is read as the transcript{key}: {error.detail}") from error


def _turns_of_text(item: str, number: int, reading: ReadingSection) -> Transcript:
    try:
        return read_transcript(item, reading, is_whole=False)
    except RecordError as error:
        raise RecordError(f"turn {number} is text: {error.detail}") from error


def _label_and_text(
    item: Mapping[str, Any], number: int, reading: ReadingSection
) -> tuple[Any, Any, str]:
    """Return the speaker's label, the text, and the text's key of a turn."""
    found = []
    for use, known in (("role", ROLE_KEYS), ("text", TEXT_KEYS)):
        path = reading.turns.get(use)  # type: ignore[call-overload]
        key = path or next((key for key in known if key in item), use)
        value = value_at(item, key)
        if value is MISSING:
            remedy = f"correct data.turns.{use}" if path else KEYS_REMEDY
            raise RecordError(f"turn {number} has no '{key}'; found {names(item)}; {remedy}")
        found.append((value, key))
    (label, _), (text, key) = found
    return label, text, "content" if reading.turns.get("text") else key


def _text(value: Any, where: str, parts: bool) -> str:
    if parts and value is None:  # an assistant that only called a tool says nothing
        return ""
    if parts and isinstance(value, list):
        return "\n".join(_part(part, where) for part in value)
    raise RecordError(f"{where}: text is {kind(value)}, wanted text")


def _part(part: Any, where: str) -> str:
    is_text = isinstance(part, Mapping) and part.get("type", "text") in TEXT_PARTS
    text = part.get("text") if is_text else part
    if isinstance(text, str):
        return text
    has_type = isinstance(part, Mapping) and "type" in part
    name = f"a part of type '{shown(part['type'])}'" if has_type else kind(part)
    raise RecordError(f"{where}: content holds {name}, wanted text parts")
