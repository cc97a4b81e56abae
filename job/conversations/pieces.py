"""Files cut into pieces: each piece is read alone, without the text before it.

A night distributes pieces over its workers and does no piece twice. JSON documents and tables are
cut as well as JSON lines, although that costs about 100 lines here, because exports come so: one
array or one CSV file of gigabytes from Zendesk, Intercom or Redshift. Whole, such a file would have
one worker, and an interruption would lose all its work.

Text is cut at the bytes between two records (a line break in a quoted cell cuts nothing), Parquet
between row groups. Files that are compressed, on the Hub or in another encoding than UTF-8 stay
whole. The whole file is read once to count its records, at constant memory.
"""

import codecs
import io
from collections.abc import Container, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TextIO

from job.config.data_sections import ReadingSection
from job.conversations.csv_rows import Header, TableRows, table_text
from job.conversations.formats.choose import conversation_key
from job.conversations.json_document import Cuts, cuts_of, iterate_piece
from job.conversations.json_layout import Layout
from job.conversations.json_text import MAX_RECORD_CHARACTERS
from job.conversations.opening import buffer, open_plain, plain_stream, text_of
from job.conversations.read import Shape, outcome_of, rows_of, shape_of
from job.conversations.record import Conversation, Reject, Source
from job.conversations.rows import Row, is_blank, json_lines, number_members

if TYPE_CHECKING:
    from job.storage.open import InputFile

BOM = b"\xef\xbb\xbf"
LINE_BYTES = 1 << 20  # of a line that are held while lines are counted
NOT_BLANK = (b"{", b"[", b'"')  # how most lines begin that are not blank

Kind = Literal["whole", "lines", "array", "object", "values", "table", "groups"]


@dataclass(frozen=True)
class Size:
    """The largest piece: it ends with the record that reaches either limit."""

    records: int
    bytes: int


@dataclass(frozen=True)
class Piece:
    """Consecutive records of one file, as a night stores them in its plan.

    `start` and `end` are bytes, row groups of Parquet, and 0 for a whole file. `line` is where the
    piece begins: a 1-based line of text, member of a JSON document, or row of Parquet. `header` is
    the table's, except in the first piece, which begins with it.
    """

    kind: Kind
    start: int
    end: int
    line: int
    records: int
    bytes: int
    header: Header | None = None


class _Cut(NamedTuple):
    """A byte where a text may be cut.

    `line` is the number of the line or member that follows, `records` the number of records (1
    or 0) since the cut before.
    """

    byte: int
    line: int
    records: int


def cut(file: "InputFile", reading: ReadingSection, size: Size) -> Iterator[Piece]:
    """Yield the pieces of a file, in order; a piece has at least one record.

    Raise DataError for a file that cannot be read to its end.
    """
    with closing(file.store.open(file.key)) as stored:
        stream, is_compressed = open_plain(stored, file.uri)
        shape = shape_of(stream, file.uri, reading)
        # The offsets of decompressed or recoded text are not offsets of the stored file.
        is_recoded = shape == "table" and reading.csv.encoding != "utf-8"
        if is_compressed or is_recoded or file.uri.startswith("hf://"):
            records = _count_records(stream, file.uri, shape, reading)
            pieces = iter([Piece("whole", 0, 0, 1, records, file.size)])
        elif isinstance(shape, Layout):
            pieces = _cut_document(stream, file.uri, reading, shape, size)
        elif shape == "transcript":
            pieces = iter([Piece("whole", 0, 0, 1, 1, file.size)])
        elif shape == "parquet":
            pieces = _cut_groups(file, size)
        elif shape == "lines":
            pieces = _pieces("lines", 0, _line_cuts(stream), size)
        else:
            pieces = _cut_table(stream, file.uri, reading, size)
        for piece in pieces:
            # The last piece of a text may be empty.
            if piece.records:
                yield piece


def read_piece(
    file: "InputFile",
    piece: Piece,
    reading: ReadingSection,
    only: Container[int] | None = None,
) -> Iterator[Conversation | Reject]:
    """Yield the records of a piece, or those at the lines of `only`.

    The id of a record that brings none is empty.
    """
    for line, record in _rows(file, piece, reading):
        if only is None or line in only:
            yield outcome_of(record, Source(file.uri, line), reading)


def _rows(file: "InputFile", piece: Piece, reading: ReadingSection) -> Iterator[Row]:
    if piece.kind == "groups":
        from job.conversations.parquet_rows import row_group_rows

        groups = range(piece.start, piece.end)
        # Parquet has its index at the end of the file: only seeking finds a group.
        with _RandomAccess(file) as anywhere:
            seekable = io.BufferedReader(anywhere)
            yield from row_group_rows(seekable, file.uri, reading, groups, piece.line)
        return
    with closing(file.store.open(file.key, piece.start)) as stored:
        if piece.kind == "whole":
            # Sniffed again, as when it was cut: a whole file stores no layout in its piece.
            yield from rows_of(plain_stream(stored, file.uri), file.uri, reading)
            return
        stream = buffer(_Limited(stored, piece.end - piece.start), file.uri)
        if piece.kind == "table":
            yield from _table_rows(stream, file.uri, reading, piece)
        elif piece.kind == "lines":
            yield from json_lines(text_of(stream, piece.start), first=piece.line)
        else:
            text = text_of(stream, piece.start)
            yield from number_members(iterate_piece(text, file.uri, piece.kind), piece.line)


def _table_rows(
    stream: io.BufferedReader,
    uri: str,
    reading: ReadingSection,
    piece: Piece,
) -> Iterator[Row]:
    if piece.header is None:
        # The first piece begins with the header, and perhaps with a byte order mark.
        text, line_end = table_text(stream, uri, reading)
        yield from TableRows(text, uri, reading, line_end)
        return
    line_end = piece.header.line_end
    text = text_of(stream, piece.start, line_end)
    yield from TableRows(text, uri, reading, line_end, piece.header, piece.line)


def _count_records(
    stream: io.BufferedReader,
    uri: str,
    shape: Shape,
    reading: ReadingSection,
) -> int:
    if shape == "lines":
        return sum(one.records for one in _line_cuts(stream))  # without parsing any
    return sum(1 for _ in rows_of(stream, uri, reading))


def _pieces(kind: Kind, start: int, cuts: Iterable[_Cut], size: Size) -> Iterator[Piece]:
    """Yield the pieces of a text from the byte `start` on; the last may be empty."""
    end = start
    line = 1
    records = 0
    for found in cuts:
        end = found.byte
        records += found.records
        # A record is never cut, so the last one may exceed the limit of bytes.
        if records == size.records or end - start >= size.bytes:
            yield Piece(kind, start, end, line, records, end - start)
            start = end
            line = found.line
            records = 0
    yield Piece(kind, start, end, line, records, end - start)


def _line_cuts(stream: io.BufferedReader) -> Iterator[_Cut]:
    """Yield a cut behind each line. A blank one is no record, by the rule of `json_lines`."""
    end = 0
    number = 0
    skip = _mark_bytes(stream)
    while line := stream.readline(LINE_BYTES):
        # Most lines are known by their first byte not to be blank.
        blank = None if line.startswith(NOT_BLANK, skip) else _Blank(line[skip:])
        end += len(line)
        # The rest of a line that is longer than LINE_BYTES: not held, so that memory is constant.
        while not line.endswith(b"\n") and (line := stream.readline(LINE_BYTES)):
            end += len(line)
            if blank:
                blank.add(line)
        number += 1
        is_record = blank is None or not blank.is_blank()
        # Blank lines count for line numbers, which rejects quote.
        yield _Cut(end, number + 1, int(is_record))
        skip = 0  # only the first line has a byte order mark


def _cut_document(
    stream: io.BufferedReader,
    uri: str,
    reading: ReadingSection,
    layout: Layout,
    size: Size,
) -> Iterator[Piece]:
    key_of = partial(conversation_key, reading)
    mark = _mark_bytes(stream)
    cuts = cuts_of(text_of(stream), uri, layout, key_of, mark)
    # A piece from inside an object's list of records looks like one from inside an array.
    kind: Kind = "array" if layout.kind == "member" else layout.kind
    return _pieces(kind, cuts.start, _member_cuts(cuts), size)


def _member_cuts(cuts: Cuts) -> Iterator[_Cut]:
    for number, end in enumerate(cuts.ends, 1):
        yield _Cut(end, number + 1, 1)


def _cut_table(
    stream: io.BufferedReader,
    uri: str,
    reading: ReadingSection,
    size: Size,
) -> Iterator[Piece]:
    mark = _mark_bytes(stream)
    plain, line_end = table_text(stream, uri, reading)
    text = _Counting(plain, mark)
    rows = TableRows(text, uri, reading, line_end)
    for piece in _pieces("table", 0, _row_cuts(rows, text), size):
        # Known once `rows` has begun. The first piece reads it from the file.
        yield replace(piece, header=rows.header) if piece.start else piece


def _row_cuts(rows: TableRows, text: "_Counting") -> Iterator[_Cut]:
    """Yield a cut after each row, at the offset that `rows` has reached."""
    for _ in rows:
        # Exact, because `rows` reads no line ahead of the row that it yields.
        yield _Cut(text.bytes, text.lines + 1, 1)
    yield _Cut(text.bytes, text.lines + 1, 0)  # blank lines behind the last row


def _cut_groups(file: "InputFile", size: Size) -> Iterator[Piece]:
    """Yield pieces of whole row groups; only a single group may exceed the size."""
    from job.conversations.parquet_rows import row_groups

    start = index = 0
    line = 1
    records = bytes = 0
    with _RandomAccess(file) as anywhere:
        for group in row_groups(io.BufferedReader(anywhere), file.uri):
            # Cut before the group that would exceed the size, unless the piece is still empty.
            is_full = records + group.rows > size.records or bytes + group.bytes > size.bytes
            if records and is_full:
                yield Piece("groups", start, index, line, records, bytes)
                start = index
                line += records
                records = bytes = 0
            records += group.rows
            bytes += group.bytes
            index += 1
    yield Piece("groups", start, index, line, records, bytes)


def _mark_bytes(stream: io.BufferedReader) -> int:
    """Return the size of the byte order mark at the start of a file, 0 without one."""
    return len(BOM) if stream.peek().startswith(BOM) else 0


class _Blank:
    """A line that is read in parts, which may cut a character, and may be no record.

    A line of too many spaces is a record, as `json_lines` rejects it.
    """

    def __init__(self, part: bytes) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._spaces: int | None = 0  # None once anything else was found
        self.add(part)

    def add(self, part: bytes, is_last: bool = False) -> None:
        if self._spaces is None:
            return
        text = self._decoder.decode(part, is_last)
        self._spaces = self._spaces + len(text) if is_blank(text) else None

    def is_blank(self) -> bool:
        self.add(b"", is_last=True)
        return self._spaces is not None and self._spaces <= MAX_RECORD_CHARACTERS


class _Counting:
    """A text that counts the lines read of it, and their bytes in the file."""

    def __init__(self, text: TextIO, bytes: int) -> None:
        self._text = text
        self.bytes = bytes
        self.lines = 0

    def readline(self, limit: int) -> str:
        line = self._text.readline(limit)
        self.lines += 1
        # Foreign bytes are lone surrogates here, and become one byte again.
        self.bytes += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
        return line


class _Limited(io.RawIOBase):
    """The next bytes of a stream, as many as `size`."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._left)) or b""
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _RandomAccess(io.RawIOBase):
    """A stored file that can be read anywhere. Each jump is a new request to the store."""

    def __init__(self, file: "InputFile") -> None:
        self._file = file
        self._position = 0  # where the next read begins
        self._stream: BinaryIO | None = None
        self._stream_position = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}
        # Opens nothing: pyarrow seeks several times before it reads.
        self._position = bases[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if self._position >= self._file.size:
            return 0
        if self._stream is None or self._stream_position != self._position:
            self._close_stream()
            self._stream = self._file.store.open(self._file.key, self._position)
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        self._stream_position = self._position
        return len(data)

    def close(self) -> None:
        self._close_stream()
        super().close()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
