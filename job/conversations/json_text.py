"""JSON text → Python values that can be written out again.

Of keys that repeat in an object the last one counts.
"""

import json
import math
import re
from typing import Any

from job.conversations.draft import MAX_DEPTH, RecordError, plain

MAX_RECORD_CHARACTERS = 64 << 20
UNDECODED = re.compile("[\udc80-\udcff]")  # how `surrogateescape` marks bytes that are not UTF-8
ESCAPED_UNSTORABLE = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# NaN and Infinity are no JSON, but pandas writes them for missing values. 1e999 is JSON, and
# infinite.
DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


def check_utf8(text: str, encoding: str = "utf-8") -> None:
    """Raise RecordError if the text had a byte invalid in its encoding (see `text_of`)."""
    found = None if text.isascii() else UNDECODED.search(text)
    if found:
        raise RecordError(
            f"byte 0x{ord(found[0]) - 0xDC00:02x} at character {found.start() + 1} is not "
            f"{encoding.upper()}; save the file as UTF-8"
        )


def parse_json(text: str) -> Any:
    """Return the value of a text that is one JSON value. Raise RecordError if it is not."""
    check_utf8(text)
    try:
        value = DECODER.decode(text)
    except RecursionError as error:
        raise RecordError(f"nested more than {MAX_DEPTH} deep") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error.msg} at column {error.colno}") from error
    except ValueError as error:  # a number of thousands of digits
        raise RecordError(f"not JSON that can be read: {error}") from error
    return storable(value, text)


def storable(value: Any, text: str) -> Any:
    """Return the value as `plain` makes it.

    `text` is its JSON, which shows for nearly every record that nothing is to be done.
    """
    if ESCAPED_UNSTORABLE.search(text) or text.count("[") + text.count("{") > MAX_DEPTH:
        return plain(value)
    return value
