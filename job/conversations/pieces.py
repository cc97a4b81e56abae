"""A file as pieces that are read alone: where each begins and ends, how many records it holds, and its records.

Purpose: a chunk of a night's input is read without what stands before it, and everybody who cuts a file cuts it alike.
Plain JSON and tables are cut at the bytes between two records (a table's quotes are read, so a
line break in a cell cuts nothing), Parquet between row groups; files that are compressed, on the
Hub or in another encoding than UTF-8 stay whole. The whole file is read once to count its records,
at constant memory. Knows nothing of chunks or of who reads the pieces.
"""

import codecs
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Literal, TextIO

from job.config.sections import ReadingSection
from job.conversations.csv_rows import Header, TableRows, table_text
from job.conversations.formats.choose import conversation_key
from job.conversations.json_document import document_places, iterate_piece
from job.conversations.json_layout import Layout
from job.conversations.json_text import MAX_RECORD_CHARACTERS
from job.conversations.opening import buffered, open_plain, plain_stream, text_of
from job.conversations.read import outcome_of, rows_of, shape_of
from job.conversations.record import Conversation, Reject, Source
from job.conversations.rows import Row, is_blank, json_lines, numbered

if TYPE_CHECKING:
    from job.storage.open import InputFile

BOM = b"\xef\xbb\xbf"
LINE_BYTES = 1 << 20  # of a line that are held while lines are counted
Kind = Literal["whole", "lines", "array", "object", "values", "table", "groups"]
VALUES = (b"{", b"[", b'"')  # how most lines begin that are not blank


@dataclass(frozen=True)
class Size:
    """Where a piece is cut: with the record that makes it so many records, or so many bytes."""

    records: int
    bytes: int


@dataclass(frozen=True)
class Piece:
    """Consecutive records of one file; `start` and `end` are bytes, of Parquet row groups, and 0 of a whole file."""

    kind: Kind
    start: int
    end: int
    line: (
        int  # where it begins: a 1-based line of text, member of a JSON document, or row of Parquet
    )
    records: int
    bytes: int
    header: Header | None = None


def cut(file: "InputFile", reading: ReadingSection, size: Size) -> Iterator[Piece]:
    """The pieces of a file, in order, none of them empty; DataError for a file that cannot be read to its end."""
    with closing(file.store.open(file.key)) as stored:
        stream, compressed = open_plain(stored, file.uri)
        shape = shape_of(stream, file.uri, reading)
        is_recoded = shape == "table" and reading.csv.encoding != "utf-8"
        if compressed or is_recoded or file.uri.startswith("hf://"):
            records = (
                _count_lines(stream)
                if shape == "lines"
                else sum(1 for _ in rows_of(stream, file.uri, reading))
            )
            pieces = iter([Piece("whole", 0, 0, 1, records, file.size)])
        elif shape == "transcript":
            pieces = iter([Piece("whole", 0, 0, 1, 1, file.size)])
        elif shape == "parquet":
            pieces = _cut_groups(file, size)
        elif shape == "lines":
            pieces = _cut_lines(stream, size)
        elif isinstance(shape, Layout):
            pieces = _cut_document(stream, (file.uri, reading), shape, size)
        else:
            pieces = _cut_table(stream, (file.uri, reading), size)
        yield from (piece for piece in pieces if piece.records)


def read_piece(
    file: "InputFile", piece: Piece, reading: ReadingSection
) -> Iterator[Conversation | Reject]:
    """The records of a piece, each as a conversation (its id empty where it brings none) or as why it is none."""
    for line, record in _rows(file, piece, reading):
        yield outcome_of(record, Source(file.uri, line), reading)


def _rows(file: "InputFile", piece: Piece, reading: ReadingSection) -> Iterator[Row]:
    if piece.kind == "groups":
        from job.conversations.parquet_rows import row_group_rows

        with _RandomAccess(file) as anywhere:
            groups = range(piece.start, piece.end)
            seekable, where = io.BufferedReader(anywhere), (file.uri, reading)
            yield from row_group_rows(seekable, where, groups, piece.line)
        return
    with closing(file.store.open(file.key, piece.start)) as stored:
        if piece.kind == "whole":
            yield from rows_of(plain_stream(stored, file.uri), file.uri, reading)
            return
        stream = buffered(_Limited(stored, piece.end - piece.start), file.uri)
        if piece.kind == "table":
            yield from _table_rows(stream, (file.uri, reading), piece)
        elif piece.kind == "lines":
            yield from json_lines(text_of(stream, piece.start), first=piece.line)
        else:
            text = text_of(stream, piece.start)
            yield from numbered(iterate_piece(text, file.uri, piece.kind), piece.line)


def _table_rows(
    stream: io.BufferedReader,
    where: tuple[str, ReadingSection],
    piece: Piece,
) -> Iterator[Row]:
    if piece.header is None:  # the first piece, which begins with the header
        text, line_end = table_text(stream, *where)
        yield from TableRows(text, where, line_end)
        return
    line_end = piece.header.line_end
    text = text_of(stream, piece.start, line_end)
    yield from TableRows(text, where, line_end, piece.header, piece.line)


def _cut_text(
    kind: Kind, start: int, ends: Iterable[tuple[int, int, int]], size: Size
) -> Iterator[Piece]:
    """The pieces of a text from the byte `start` on.

    `ends` are the places where it may be cut: the byte, the number of the line or member behind it, and how many
    records (1 or 0) end there.
    """
    end, first, records = start, 1, 0
    for end, following, count in ends:
        records += count
        if records == size.records or end - start >= size.bytes:
            yield Piece(kind, start, end, first, records, end - start)
            start, first, records = end, following, 0
    yield Piece(kind, start, end, first, records, end - start)


def _cut_lines(stream: io.BufferedReader, size: Size) -> Iterator[Piece]:
    def ends() -> Iterator[tuple[int, int, int]]:
        end = 0
        for number, (length, blank) in enumerate(_measured(stream), 1):
            end += length
            yield end, number + 1, not blank

    return _cut_text("lines", 0, ends(), size)


def _cut_document(
    stream: io.BufferedReader, where: tuple[str, ReadingSection], layout: Layout, size: Size
) -> Iterator[Piece]:
    uri, reading = where
    key_of, mark = partial(conversation_key, reading), _mark(stream)
    start, ends = document_places(text_of(stream), uri, layout, key_of, mark)
    members = ((end, number + 1, 1) for number, end in enumerate(ends, 1))
    kind: Kind = "array" if layout.kind == "member" else layout.kind
    return _cut_text(kind, start, members, size)


def _count_lines(stream: io.BufferedReader) -> int:
    return sum(not blank for _, blank in _measured(stream))


def _measured(stream: io.BufferedReader) -> Iterator[tuple[int, bool]]:
    """Bytes of each line, and whether it is blank: no record, by the rule of `json_lines`."""
    skip = _mark(stream)
    while line := stream.readline(LINE_BYTES):
        length, blank = len(line), None if line.startswith(VALUES, skip) else _Blank(line[skip:])
        while not line.endswith(b"\n") and (line := stream.readline(LINE_BYTES)):
            length += len(line)
            if blank:
                blank.add(line)
        yield length, blank is not None and blank.is_blank()
        skip = 0


def _mark(stream: io.BufferedReader) -> int:
    """The bytes of a byte order mark at the start of a file."""
    return len(BOM) if stream.peek().startswith(BOM) else 0


class _Blank:
    """Whether a line that comes in pieces, which may cut a character, is blank and no record that is too long."""

    def __init__(self, piece: bytes) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._spaces: int | None = 0
        self.add(piece)

    def add(self, piece: bytes, last: bool = False) -> None:
        if self._spaces is not None:
            text = self._decoder.decode(piece, last)
            self._spaces = self._spaces + len(text) if is_blank(text) else None

    def is_blank(self) -> bool:
        self.add(b"", last=True)
        return self._spaces is not None and self._spaces <= MAX_RECORD_CHARACTERS


def _cut_table(
    stream: io.BufferedReader, where: tuple[str, ReadingSection], size: Size
) -> Iterator[Piece]:
    mark = _mark(stream)
    plain, line_end = table_text(stream, *where)
    text = _Counting(plain, mark)
    rows = TableRows(text, where, line_end)  # type: ignore[arg-type]

    def ends() -> Iterator[tuple[int, int, int]]:
        for _ in rows:
            yield text.bytes, text.lines + 1, 1
        yield text.bytes, text.lines + 1, 0  # what is no row behind the last one

    for piece in _cut_text("table", 0, ends(), size):
        yield (
            replace(piece, header=rows.header) if piece.start else piece
        )  # the first begins with it


def _cut_groups(file: "InputFile", size: Size) -> Iterator[Piece]:
    from job.conversations.parquet_rows import row_groups

    start = records = weight = 0
    row, index = 1, -1
    with _RandomAccess(file) as anywhere:
        for index, (rows, group_bytes) in enumerate(
            row_groups(io.BufferedReader(anywhere), file.uri)
        ):
            if records and (records + rows > size.records or weight + group_bytes > size.bytes):
                yield Piece("groups", start, index, row, records, weight)
                start, row, records, weight = index, row + records, 0, 0
            records, weight = records + rows, weight + group_bytes
    yield Piece("groups", start, index + 1, row, records, weight)


class _Counting:
    """The lines of a text, with how many were read of it, and how many bytes they are in the file."""

    def __init__(self, text: TextIO, bytes: int) -> None:
        self._text, self.bytes, self.lines = text, bytes, 0

    def readline(self, limit: int) -> str:
        line = self._text.readline(limit)
        self.lines += 1
        self.bytes += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
        return line


class _Limited(io.RawIOBase):
    """The next so many bytes of a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left = stream, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._left)) or b""
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _RandomAccess(io.RawIOBase):
    """A stored file that is read at any place: each jump asks the store anew."""

    def __init__(self, file: "InputFile") -> None:
        self._file, self._position, self._at = file, 0, -1
        self._stream: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = (
            offset
            + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if self._position >= self._file.size:
            return 0
        if self._stream is None or self._at != self._position:
            self._drop()
            self._stream = self._file.store.open(self._file.key, self._position)
            self._at = self._position
        assert self._stream is not None
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._position = self._at = self._at + len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
