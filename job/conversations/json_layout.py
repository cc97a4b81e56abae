"""The layout of JSON records in a file, recognized by the file's beginning.

One record a line is the rule. Everything else is a document: an array, an object of records by
their keys, an object with the list of records as a member, or objects one after the other that take
several lines each.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from job.conversations.draft import shown
from job.conversations.json_text import DECODER
from job.errors import DataError

MAX_DEPTH_LOOKED_AT = 5
LINES_LOOKED_AT = 20
WORD = r"(?:true|false|null|NaN|Infinity)\b"
JSON_VALUE = re.compile(rf'\{{\s*(?:["}}]|\Z)|\[\s*(?:[\[{{"\]0-9-]|{WORD}|\Z)')
SPACE = re.compile(r"[ \t\r\n\ufeff]*")

ConversationKey = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Layout:
    """The layout of the records of a JSON document.

    `member` is the key of the list of records, for that kind.
    """

    kind: Literal["array", "object", "values", "member"]
    member: str = ""


@dataclass(frozen=True)
class _Beginning:
    """A value as far as the text shows it.

    `value` has the members that are whole, and the last one, which is not. `end` is where the value
    ends; None if the text ends or breaks before.
    """

    value: Any
    end: int | None


def begins_json(text: str, is_table: bool) -> bool:
    """Return True if the text begins like JSON; `is_table` if the config says tables."""
    if not JSON_VALUE.match(text):
        return text.startswith("{") and not is_table
    if not is_table:
        return True
    line, newline, _ = text.partition("\n")
    end = _beginning(text).end
    return end > len(line) or not line[end:].strip() if end is not None else not newline


def has_json_lines(text: str) -> bool:
    """Return True if a line behind the first is a JSON object.

    Then the first is a comment, or was cut.
    """
    above, *lines = text.split("\n", LINES_LOOKED_AT + 1)[: LINES_LOOKED_AT + 1]
    for line in lines:
        # Behind a bracket or a comma it is a part of a document.
        if isinstance(_whole(line), dict) and not above.rstrip().endswith(("[", ",", ":")):
            return True
        above = line
    return False


def layout_of(text: str, uri: str, conversation_key: ConversationKey) -> Layout | None:
    """Return the layout of a document that begins with this bracket; None for a record a line.

    `conversation_key` returns the key under which an object has its conversation. Raise
    DataError for an object that holds several lists of records, or columns instead of records.
    """
    line, _, rest = text.partition("\n")
    first = _whole(line)
    if isinstance(first, dict):
        return None if rest.strip() else _layout(first, uri, conversation_key)
    if text.startswith("["):
        is_line = first is not None and _whole(rest.lstrip().partition("\n")[0]) is not None
        return None if is_line else Layout("array")
    beginning = _beginning(text)
    if beginning.end is None:
        # The text breaks, or the value is longer than the text.
        is_pretty = bool(rest) and line.rstrip().endswith(("{", "[", ",", ":"))
        if rest and (has_json_lines(text) or not is_pretty):
            return None
    else:
        is_pretty = beginning.end > len(line)
        if not is_pretty:
            return None  # something follows the object on its line
        if text[beginning.end :].strip():
            return Layout("values")
    found = _layout(beginning.value, uri, conversation_key)
    return Layout("values") if found is None and is_pretty else found


def list_of_records(value: Any, conversation_key: ConversationKey) -> bool:
    """Return True for a list whose first element has a conversation."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return conversation_key(value[0]) is not None


def several_lists_error(uri: str, keys: list[str]) -> DataError:
    """Return the error for an object with several lists of records."""
    return DataError(
        f"{uri}: holds several lists of records ({', '.join(map(shown, keys))}) "
        "and nothing says which to read; write each to a file of its own"
    )


def _layout(value: Any, uri: str, conversation_key: ConversationKey) -> Layout | None:
    """Return the layout of an object by its members; None for a record."""
    if not isinstance(value, dict) or not value:
        return None
    _check_rows(value, uri, conversation_key)
    lists = [key for key, item in value.items() if list_of_records(item, conversation_key)]
    own = conversation_key(value)
    if own is not None and own not in lists:
        return None
    if not lists and not any(key in value for key in ("id", "ID", "_id")):
        lists = [key for key, item in value.items() if _is_list_of_nested(item)]
        if len(value) == 1 and isinstance(next(iter(value.values())), list):
            lists = list(value)
    if len(lists) > 1:
        raise several_lists_error(uri, lists)
    if lists:
        return Layout("member", lists[0])
    first = next(iter(value.values()))
    if isinstance(first, dict) and conversation_key(first) is not None:
        return Layout("object")
    return None


def _is_list_of_nested(value: Any) -> bool:
    """Return True for a list of objects with lists of objects, such as tickets with comments."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    lists = [item for item in value[0].values() if isinstance(item, list) and item]
    return any(isinstance(item[0], dict) for item in lists)


def _check_rows(value: dict[str, Any], uri: str, conversation_key: ConversationKey) -> None:
    """Raise DataError for a table by columns: `{"id": {"0": …}, "dialogue": {"0": …}}`."""
    own = conversation_key(value)
    column = value.get(own) if own else None
    by_column = isinstance(column, dict) and all(key.isdigit() for key in column)
    names = value.get("columns")
    split = isinstance(names, list) and conversation_key(dict.fromkeys(map(str, names))) is not None
    if by_column or (split and "data" in value):
        raise DataError(
            f"{uri}: is a table written by columns; write it by rows, in pandas with "
            'to_json(…, orient="records", lines=True)'
        )


def _whole(text: str) -> Any:
    """Return the array or object that the text is; None if it is neither."""
    text = text.strip().removeprefix("\ufeff")
    if not text.startswith(("{", "[")):
        return None
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _beginning(text: str, offset: int = 0, depth: int = 0) -> _Beginning:
    """Parse the value at this offset as far as the text reaches."""
    try:
        value, end = DECODER.raw_decode(text, offset)
        return _Beginning(value, end)
    except (ValueError, RecursionError):
        pass
    opening = text[offset : offset + 1]
    if depth == MAX_DEPTH_LOOKED_AT or opening not in ("{", "["):
        return _Beginning(None, None)
    members: dict[str, Any] = {}
    elements: list[Any] = []
    offset = _behind_space(text, offset + 1)
    while True:
        key = ""
        if opening == "{":
            if text[offset : offset + 1] != '"':
                break
            try:
                key, offset = json.decoder.scanstring(text, offset + 1)  # type: ignore[attr-defined]
            except ValueError:
                break
            offset = _behind_space(text, _behind_space(text, offset) + 1)
        item = _beginning(text, offset, depth + 1)
        members[key] = item.value
        elements.append(item.value)
        if item.end is None:
            break
        offset = _behind_space(text, _behind_space(text, item.end) + 1)
    return _Beginning(members if opening == "{" else elements, None)


def _behind_space(text: str, offset: int) -> int:
    match = SPACE.match(text, offset)
    return match.end() if match else offset
