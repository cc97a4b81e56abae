"""JSON as recap reads it: one value of one line, or one value after the other out of a big array or object.

Text → Python values that can be written out again. Knows nothing of conversations.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, TextIO

from job.conversations.draft import MAX_DEPTH, RecordError, kind, plain
from job.errors import DataError

FILL_CHARACTERS = 1 << 20
MAX_RECORD_CHARACTERS = 64 << 20
UNDECODED = re.compile("[\udc80-\udcff]")  # how `surrogateescape` marks bytes that are not UTF-8
ESCAPED_UNSTORABLE = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
SPACE = re.compile(r"[ \t\r\n]*")
CLOSING = {"[": "]", "{": "}"}


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# NaN and Infinity are no JSON, but pandas writes them where it means nothing is there; 1e999 is JSON, and infinite.
DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


def check_utf8(text: str) -> None:
    """RecordError if the text held a byte that is not UTF-8 (decoded with `surrogateescape`)."""
    found = None if text.isascii() else UNDECODED.search(text)
    if found:
        raise RecordError(
            f"byte 0x{ord(found[0]) - 0xDC00:02x} at character {found.start() + 1} is not UTF-8; save the file as UTF-8"
        )


def parse_json(text: str) -> Any:
    """The value of a text that is one JSON value; RecordError if it is none."""
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
    """The value without what cannot be stored; looks into it only where its JSON text gives a reason to."""
    suspicious = ESCAPED_UNSTORABLE.search(text) or text.count("[") + text.count("{") > MAX_DEPTH
    return plain(value) if suspicious else value


def iterate_document(
    text: TextIO, uri: str, fill_characters: int = FILL_CHARACTERS, inside: str = ""
) -> Iterator[tuple[str | None, Any]]:
    """Each member of a JSON object as (key, value), or each element of an array as (None, value), one at a time.

    With `inside`, the bracket that opened it, the text is some of its members: it begins behind the bracket or another
    member. A member that is no conversation is still a value; a RecordError in place of the value if it cannot be
    stored. DataError where the JSON breaks: what follows cannot be told apart.
    """
    document = _Document(text, uri, fill_characters)
    opening = inside or document.take("[{")
    if inside and document.at(","):
        document.take(",")
    yield from document.members(opening, "" if inside else CLOSING[opening])


def document_places(text: TextIO, uri: str, bytes: int = 0) -> tuple[str, int, Iterator[int]]:
    """The opening bracket of a JSON array or object, the byte behind it, and the byte behind each member.

    `bytes` is where the text begins in the file.
    """
    document = _Document(text, uri, FILL_CHARACTERS, bytes)
    opening = document.take("[{")
    start = document.offset()
    return opening, start, (document.offset() for _ in document.members(opening, CLOSING[opening]))


class _Document:
    """A window on the text that grows until it holds a whole value."""

    def __init__(self, text: TextIO, uri: str, fill_characters: int, bytes: int = 0) -> None:
        self._text, self._uri, self._fill_characters = text, uri, fill_characters
        self._window, self._position, self._complete = "", 0, False
        self._bytes, self._measured = bytes, 0  # of the file, up to this place of the window
        self._done = 0

    def members(self, opening: str, end: str) -> Iterator[tuple[str | None, Any]]:
        """What stands behind the opening bracket, up to `end`: the closing one, or where the text ends if empty."""
        while not self.at(end):
            if self._done:
                self.take("," + end)
            key: str | RecordError | None = None
            if opening == "{":
                key = self.key()
                self.take(":")
            value = self.value()
            yield (None, key) if isinstance(key, RecordError) else (key, value)
            self._done += 1
        if end:
            self.take(end)
        if not self.at(""):
            raise self.broken("something follows its end")

    def offset(self) -> int:
        """How many bytes of the file stand before what comes next."""
        passed = self._window[self._measured : self._position]
        self._bytes += len(passed) if passed.isascii() else len(passed.encode("utf-8", "surrogateescape"))
        self._measured = self._position
        return self._bytes

    def at(self, character: str) -> bool:
        """Whether `character` comes next and is all there is to say; the empty one is the end."""
        self._skip_space()
        return self._window[self._position : self._position + 1] == character

    def take(self, wanted: str) -> str:
        """The next character, which must be one of `wanted`."""
        self._skip_space()
        found = self._window[self._position : self._position + 1]
        if not found or found not in wanted:
            got = f"'{found}'" if found else "the end of the file"
            raise self.broken(f"found {got}, wanted {' or '.join(repr(one) for one in wanted)}")
        self._position += 1
        return found

    def key(self) -> str | RecordError:
        """The next whole value, which must be text."""
        key = self.value()
        if isinstance(key, str | RecordError):
            return key
        raise self.broken(f"a key is {kind(key)}, wanted text")

    def value(self) -> Any:
        """The next whole value, or a RecordError if it is one that cannot be stored."""
        self._skip_space()
        while True:
            try:
                value, end = DECODER.raw_decode(self._window, self._position)
                if end < len(self._window) or self._complete:  # else a number or the like may go on
                    break
            except (ValueError, RecursionError) as error:
                if self._complete or isinstance(error, RecursionError):
                    raise self.broken(getattr(error, "msg", str(error))) from error
            self._fill()
        raw, self._position = self._window[self._position : end], end
        try:
            check_utf8(raw)
            return storable(value, raw)
        except RecordError as error:
            return error

    def broken(self, what: str) -> DataError:
        return DataError(
            f"{self._uri}: the JSON breaks after {self._done} whole records: {what}; "
            "what follows cannot be read, so mend or replace the file"
        )

    def _skip_space(self) -> None:
        while True:
            match = SPACE.match(self._window, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._window) or self._complete:
                return
            self._fill()

    def _fill(self) -> None:
        kept = self._window[self._position :]
        if len(kept) > MAX_RECORD_CHARACTERS:
            raise self.broken(f"a record is longer than {MAX_RECORD_CHARACTERS} characters")
        # Doubling, so that a long value is not scanned many times over.
        more = self._text.read(max(self._fill_characters, len(kept)))
        self.offset()
        self._window, self._position, self._measured, self._complete = kept + more, 0, 0, not more
