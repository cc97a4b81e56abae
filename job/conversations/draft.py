"""The parts of a conversation, for the parser of every format: ids, roles, metadata, plain values.

Python values as a file holds them → checked parts of a `Conversation`, or a RecordError that says
what is wrong. Turns and references have modules of their own.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from job.config.data_sections import ReadingSection
from job.conversations.record import Answer, RejectReason, Turn
from job.printable import visible

ALIASES = {
    "customer": "customer", "user": "customer", "client": "customer", "caller": "customer",
    "human": "customer",
    "agent": "agent", "assistant": "agent", "support": "agent", "representative": "agent",
    "operator": "agent", "gpt": "agent",
    "system": "system",
}  # fmt: skip
ID_KEYS = ("id", "new dialog id", "original dialog id")
# Far below Python's own limit, so that whoever writes the metadata out again is safe too.
MAX_DEPTH = 100
MAX_LABEL_CHARACTERS = 100
CACHED_NAMES = 4096
LARGEST_EXACT_FLOAT = 2**53
MAX_SHOWN_CHARACTERS = 40
PLAIN_LABEL = re.compile(r"[A-Za-z][\w-]*")  # what YAML reads as text without quotes
# Lone surrogates cannot be encoded; NUL ends a string in many tools.
UNSTORABLE = re.compile("[\ud800-\udfff\0]")
# White space, and characters that have no width.
BLANK = re.compile("[\\s\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufe0f\ufeff]*")


class RecordError(Exception):
    """Raised for a record that is not a conversation.

    It becomes a Reject where the record's source is known. A reader of a file may yield one in
    place of a record.
    """

    def __init__(self, detail: str, reason: RejectReason = "invalid_record") -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason: RejectReason = reason


class BinaryRow(dict[str, Any]):
    """A row of a table some of whose values are bytes that are not text."""


class Draft(NamedTuple):
    """A conversation without id and source; turns without text are already dropped."""

    turns: tuple[Turn, ...]
    references: tuple[str, ...]
    metadata: Mapping[str, Any]
    doubts: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()


def kind(value: Any) -> str:
    """Return a value's type in the words of JSON."""
    words = {
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        bytes: "binary",
    }
    return "null" if value is None else words.get(type(value), type(value).__name__)


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value with only JSON types and valid Unicode; bytes stay.

    Lone surrogates and NUL become U+FFFD, NaN null, dates ISO 8601, and anything else text. Raise
    RecordError if it nests more than MAX_DEPTH deep.
    """
    if depth > MAX_DEPTH:
        raise RecordError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, bytes):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def without_bytes(value: Any) -> Any:
    """Return a plain value with hex digits for bytes."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: without_bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_bytes(item) for item in value]
    return value


def id_key_of(record: Mapping[str, Any], reading: ReadingSection) -> str | None:
    """Return the key under which the record has its id; None if it has none.

    Raise RecordError if a configured key is missing.
    """
    wanted = reading.column("id")
    if wanted is not None and wanted not in record:
        raise RecordError(
            f"has no '{wanted}', which data.columns names as the id; found {names(record)}"
        )
    for key in (wanted,) if wanted else ID_KEYS:
        value = record.get(key)
        if value is not None and str(value).strip():
            return key
    return None


def id_of(record: Mapping[str, Any], key: str) -> str:
    """Return the id under `key`: text, or a whole number as text (1234.0 as `1234`)."""
    value = record[key]
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _whole(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecordError(f"id is {kind(value)}, wanted text or a whole number")
    return str(value)


def _whole(number: float) -> str:
    """Return the digits of an id that pandas or a spreadsheet made a float of."""
    if not number.is_integer():
        raise RecordError(f"id is the number {number!r}, wanted text or a whole number")
    if abs(number) > LARGEST_EXACT_FLOAT:
        lost = "whose last digits are lost; write ids as text or integers"
        raise RecordError(f"id is the number {number!r}, {lost}")
    return str(int(number))


@lru_cache(CACHED_NAMES)
def folded_name(name: str) -> str:
    """Return a name for comparison: without case, width, and composition of its accents.

    Runs of white space become one space, and there is none at the ends.
    """
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def role_of(label: Any, reading: ReadingSection) -> str | None:
    """Return the role of a speaker's label; None if `drop_roles` has it.

    `roles` of the config takes precedence over the well-known names. Raise RecordError for an
    unknown label.
    """
    if not isinstance(label, str):
        if not isinstance(label, int) or isinstance(label, bool):
            raise RecordError(f"role is {kind(label)}, wanted text")
        label = str(label)  # recorders number the speakers
    if label in ALIASES and not reading.roles and not reading.drop_roles:
        return ALIASES[label]
    # A line break in a label could pass for another turn in the prompt.
    name = " ".join(label.split())
    if not 0 < len(name) <= MAX_LABEL_CHARACTERS:
        raise RecordError(f"role has {len(name)} characters, wanted 1 to {MAX_LABEL_CHARACTERS}")
    folded = folded_name(name)
    named: dict[str, str] = {}
    if reading.roles != "as_written":
        named = {folded_name(other): role for other, role in reading.roles.items()}
    role = named.get(folded) or ALIASES.get(folded)
    dropped = {folded_name(one) for one in reading.drop_roles}
    if folded in dropped or role in dropped:
        return None
    if reading.roles == "as_written":
        return name
    if role is None:
        raise RecordError(_unknown_role(name))
    return role


def _unknown_role(name: str) -> str:
    shown = name if PLAIN_LABEL.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return (
        f"role '{name}' is not one of customer, agent, system; map it (data.roles: "
        f"{{{shown}: agent}}), leave its turns out (data.drop_roles: [{shown}]), or keep all "
        "labels (data.roles: as_written)"
    )


def draft(
    turns: Sequence[Turn],
    references: Sequence[str],
    metadata: Mapping[str, Any],
    doubts: tuple[str, ...] = (),
) -> Draft:
    """Return the parts together, without blank turns and references.

    Raise RecordError (nothing_to_summarize) if no turn has text.
    """
    is_blank = BLANK.fullmatch
    spoken = [turn for turn in turns if not is_blank(turn.text)]
    if not spoken:
        raise RecordError(
            "no turn has any text" if turns else "it has no turns", "nothing_to_summarize"
        )
    texts = [text for text in references if text.strip()]
    return Draft(tuple(spoken), tuple(texts), metadata, doubts)


def metadata_of(record: Mapping[str, Any], used: set[str | None]) -> dict[str, Any]:
    """Return the record's values under keys that are not in `used`, and those in its `metadata`.

    If `metadata` is an object, or the JSON text of one (in a table), its members stand beside the
    other keys, and replace those of the same name. Otherwise it is a value like the others, but
    left out if it is null or blank text.
    """
    own = record.get("metadata")
    rest = {key: value for key, value in record.items() if key not in used and key != "metadata"}
    if isinstance(own, str):
        own = _object_in(own)
    if isinstance(own, Mapping):
        return rest | dict(own)
    return rest if own is None or own == "" else rest | {"metadata": own}


def _object_in(text: str) -> Any:
    """Return the object that the text is as JSON, or else the text."""
    if not text.lstrip().startswith("{"):
        return text.strip() and text
    try:
        value = json.loads(text)
        return plain(value) if isinstance(value, dict) else text
    except (ValueError, RecursionError, RecordError):
        return text


def shown(name: Any) -> str:
    """Return a name from a record for a message, on one line, or how long it is.

    It is not cut, because no redaction finds half of a card number.
    """
    whole = str(name)
    text = visible(whole, one_line=True)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"a name of {len(whole)} characters"


def names(record: Mapping[str, Any]) -> str:
    """Return the record's keys for a message: the first ten, none long."""
    keys = [shown(key) for key in record]
    return (", ".join(keys[:10]) or "nothing") + (", …" if len(keys) > 10 else "")
