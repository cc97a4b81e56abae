"""JSON documents of any size, record by record.

A window on the text grows until it holds a whole value, so memory grows with the largest record and
not with the file.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from job.conversations.draft import RecordError, kind
from job.conversations.json_layout import (
    ConversationKey,
    Layout,
    list_of_records,
    several_lists_error,
)
from job.conversations.json_text import DECODER, MAX_RECORD_CHARACTERS, check_utf8, storable
from job.errors import DataError

FILL_CHARACTERS = 1 << 20
SPACE = re.compile(r"[ \t\r\n\ufeff]*")  # a byte order mark begins each of several joined files

Member = tuple[str | None, Any]  # a record, and its key in an object of records


class Cuts(NamedTuple):
    """The bytes of a file between which its records are."""

    start: int  # of the first record
    ends: Iterator[int]  # of each record


def iterate_document(
    text: TextIO,
    uri: str,
    layout: Layout,
    conversation_key: ConversationKey,
    fill_characters: int = FILL_CHARACTERS,
) -> Iterator[Member]:
    """Yield each record of a document with its key (None where it has none), one at a time.

    What is not a conversation is a value like others; a value that cannot be stored is a
    RecordError. Raise DataError for broken JSON: later records cannot be delimited.
    """
    document = _Document(text, uri, fill_characters)
    document.enter(layout, conversation_key)
    yield from document.members(layout.kind, is_whole=True)
    document.check_end(layout, conversation_key)


def iterate_piece(text: TextIO, uri: str, kind: str) -> Iterator[Member]:
    """Yield the records of a text that was cut out of a document between records of this kind."""
    document = _Document(text, uri, FILL_CHARACTERS)
    if kind != "values" and document.is_next(","):
        document.consume(",")
    yield from document.members(kind, is_whole=False)


def cuts_of(
    text: TextIO,
    uri: str,
    layout: Layout,
    conversation_key: ConversationKey,
    bytes: int = 0,
) -> Cuts:
    """Return where the document may be cut; `bytes` is where its text begins in the file."""
    document = _Document(text, uri, FILL_CHARACTERS, bytes)
    document.enter(layout, conversation_key)

    def ends() -> Iterator[int]:
        for _ in document.members(layout.kind, is_whole=True):
            yield document.offset()
        document.check_end(layout, conversation_key)

    return Cuts(document.offset(), ends())


class _Document:
    """A window on the text that grows until it holds a whole value."""

    def __init__(self, text: TextIO, uri: str, fill_characters: int, bytes: int = 0) -> None:
        self._text = text
        self._uri = uri
        self._fill_characters = fill_characters
        self._window = ""
        self._position = 0  # in the window
        self._is_complete = False  # the window reaches the end of the text
        self._measured = 0  # the offset in the window up to which `_bytes` counts
        self._bytes = bytes
        self._done = 0  # whole records
        self._key: str | RecordError = ""

    def enter(self, layout: Layout, conversation_key: ConversationKey) -> None:
        """Go to the first record: behind the bracket that opens the document or its list."""
        if layout.kind == "array":
            self.consume("[")
        elif layout.kind != "values":
            self.consume("{")
        if layout.kind == "member":
            while self._begin_member() != layout.member:
                self._pass_member(layout, conversation_key)
                self.consume(",")
            self.consume("[")

    def members(self, kind: str, is_whole: bool) -> Iterator[Member]:
        """Yield the members up to the closing bracket, or in a part up to the end of the text."""
        end = {"object": "}", "values": ""}.get(kind, "]") if is_whole else ""
        is_first = True
        while not self.is_next(end):
            if not is_first and kind != "values":
                self.consume("," + end)
            is_first = False
            key: str | RecordError | None = None
            if kind == "object":
                key = self.consume_key()
                self.consume(":")
            value = self.consume_value()
            yield (None, key) if isinstance(key, RecordError) else (key, value)
            self._done += 1
        if end:
            self.consume(end)

    def check_end(self, layout: Layout, conversation_key: ConversationKey) -> None:
        """Raise DataError unless only other members of the object follow the records."""
        if layout.kind == "member":
            while self.consume(",}") == ",":
                self._begin_member()
                self._pass_member(layout, conversation_key)
        if not self.is_next(""):
            raise self.broken("something follows its end")

    def _begin_member(self) -> str | RecordError:
        key = self._key = self.consume_key()
        self.consume(":")
        return key

    def _pass_member(self, layout: Layout, conversation_key: ConversationKey) -> None:
        """Skip a value, a list element by element. Raise DataError for a second list."""
        if not self.is_next("["):
            self.consume_value()
            return
        self.consume("[")
        records_before = self._done
        for number, (_, value) in enumerate(self.members("array", is_whole=True)):
            if number == 0 and list_of_records([value], conversation_key):
                raise several_lists_error(self._uri, [layout.member, str(self._key)])
        self._done = records_before

    def offset(self) -> int:
        """Return the bytes of the file in front of the position."""
        passed = self._window[self._measured : self._position]
        is_ascii = passed.isascii()
        self._bytes += len(passed if is_ascii else passed.encode("utf-8", "surrogateescape"))
        self._measured = self._position
        return self._bytes

    def is_next(self, character: str) -> bool:
        """Return True if `character` comes next; the empty one is the end of the text."""
        self._skip_space()
        return self._window[self._position : self._position + 1] == character

    def consume(self, wanted: str) -> str:
        """Return and pass the next character. Raise DataError unless it is one of `wanted`."""
        self._skip_space()
        found = self._window[self._position : self._position + 1]
        if not found or found not in wanted:
            got = f"'{found}'" if found else "the end of the file"
            raise self.broken(f"found {got}, wanted {' or '.join(repr(one) for one in wanted)}")
        self._position += 1
        return found

    def consume_key(self) -> str | RecordError:
        """Return and pass the next value. Raise DataError unless it is text."""
        key = self.consume_value()
        if isinstance(key, str | RecordError):
            return key
        raise self.broken(f"a key is {kind(key)}, wanted text")

    def consume_value(self) -> Any:
        """Return and pass the next value; a RecordError if it cannot be stored."""
        self._skip_space()
        while True:
            try:
                value, end = DECODER.raw_decode(self._window, self._position)
                # A value that ends with the window, such as a number, may go on.
                if end < len(self._window) or self._is_complete:
                    break
            except (ValueError, RecursionError) as error:
                if self._is_complete or isinstance(error, RecursionError):
                    raise self.broken(getattr(error, "msg", str(error))) from error
            self._fill()
        raw = self._window[self._position : end]
        self._position = end
        try:
            check_utf8(raw)
            return storable(value, raw)
        except RecordError as error:
            return error

    def broken(self, what: str) -> DataError:
        """Return the error for a document that cannot be read on."""
        return DataError(
            f"{self._uri}: the JSON breaks after {self._done} whole records: {what}; "
            "what follows cannot be read, so mend or replace the file"
        )

    def _skip_space(self) -> None:
        while True:
            match = SPACE.match(self._window, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._window) or self._is_complete:
                return
            self._fill()

    def _fill(self) -> None:
        kept = self._window[self._position :]
        if len(kept) > MAX_RECORD_CHARACTERS:
            raise self.broken(f"a record is longer than {MAX_RECORD_CHARACTERS} characters")
        # Doubling, so that a long value is not scanned many times over.
        more = self._text.read(max(self._fill_characters, len(kept)))
        self.offset()
        self._window = kept + more
        self._position = self._measured = 0
        self._is_complete = not more
