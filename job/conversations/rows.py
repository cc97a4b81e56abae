"""The records of one file, one after the other, as the Python values that stand in it.

Decompressed stream → (place, record) pairs; in place of a record that cannot be read stands the RecordError that says
why. The place is a 1-based line of text, a row of Parquet, or a position in a JSON array or object. Knows nothing of
what a conversation is.
"""

import csv
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, TextIO

from job.config.sections import ReadingSection
from job.conversations.draft import RecordError, plain
from job.conversations.formats.choose import holds_records
from job.conversations.formats.table import check_columns
from job.conversations.json_text import MAX_RECORD_CHARACTERS, check_utf8, iterate_document, parse_json
from job.errors import DataError, OutputError

Row = tuple[int, Any]
ROWS_PER_BATCH = 256
FILE_PIECE_BYTES = 1 << 20
FIRST_MEMBER = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{\s*"((?:[^"\\]|\\.)*)"')
DIALOG_KEYS = ("original dialog id", "new dialog id", "dialog index", "original dialog info", "log", "prompt")


def is_document(start: str) -> bool:
    """Whether text that starts so is one JSON value (an array, or an object of dialogs), not one record a line."""
    first = FIRST_MEMBER.match(start)
    return start.startswith("[") or (first is not None and first[1] in DIALOG_KEYS)


def document_rows(text: TextIO, uri: str, inside: str = "", first: int = 1) -> Iterator[Row]:
    """The records of a JSON array or of an object of dialogs, whose keys are the dialogs' ids.

    With `inside`, its bracket, the text is some of its members, of which `first` is the number of the first.
    """
    for position, (key, value) in enumerate(iterate_document(text, uri, inside=inside), first):
        yield position, {**value, "new dialog id": key} if key is not None and isinstance(value, dict) else value


def json_lines(text: TextIO, max_characters: int = MAX_RECORD_CHARACTERS, first: int = 1) -> Iterator[Row]:
    """The values of JSON lines; blank lines are none, and one that is too long is skipped for a RecordError.

    `first` is the number of the first line. A line's end counts among its characters.
    """
    for number, line in _lines(text, max_characters, first):
        if isinstance(line, RecordError):
            yield number, line
        elif line.strip():
            try:
                yield number, parse_json(line.rstrip())
            except RecordError as error:
                yield number, error


@dataclass(frozen=True)
class Header:
    """How the rows of a CSV or TSV file are read: its columns, and what stands between them."""

    columns: tuple[str, ...]
    delimiter: str


class TableRows:
    """The rows of a CSV or TSV file as column → text, placed by the line that each begins on.

    With a header they are rows from the middle of the file, where the text begins, `first` the number of its line;
    without, the text begins with the header, and `header` is known once a row was read.
    """

    def __init__(
        self, text: TextIO, where: tuple[str, ReadingSection], header: Header | None = None, first: int = 1
    ) -> None:
        self._text, (self._uri, self._reading), self.header, self._first = text, where, header, first

    def __iter__(self) -> Iterator[Row]:
        csv.field_size_limit(MAX_RECORD_CHARACTERS)  # the module's own limit of 131,072 is less than a long transcript
        first = self._text.readline(MAX_RECORD_CHARACTERS)
        by_sight = "\t" if first.count("\t") > first.count(",") else ","
        delimiter = self.header.delimiter if self.header else by_sight
        lines = chain([first], iter(partial(self._text.readline, MAX_RECORD_CHARACTERS), ""))
        # Strict, because otherwise a quote that is never closed takes the rest of the file for one cell.
        cells_by_row = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            begins = cells_by_row.line_num + self._first
            try:
                cells = next(cells_by_row, None)
            except csv.Error as error:
                yield begins, self._error(error, begins, cells_by_row.line_num + self._first - begins)
                continue
            if cells is None:
                return
            if self.header is not None and cells:
                yield begins, _row(self.header.columns, cells)
            elif self.header is None and any(cell.strip() for cell in cells):
                self.header = Header(tuple(_header(cells, self._uri, self._reading)), delimiter)

    def _error(self, error: csv.Error, begins: int, lines: int) -> RecordError:
        """What stands for a row of one line; DataError where it took several, or the header's place."""
        if self.header is None or lines > 1:  # nobody can say where the next record begins
            raise DataError(
                f"{self._uri} line {begins}: the quotes of this record do not match ({error}); "
                "what follows cannot be told apart, so mend or replace the file"
            ) from error
        return RecordError(f"not a row of the table: {error}")


def parquet_rows(stream: BinaryIO, uri: str, reading: ReadingSection) -> Iterator[Row]:
    """The rows of a Parquet file, which is read at its end first and so goes through a temporary file."""
    with _spooled(stream, uri) as file:
        yield from row_group_rows(file, (uri, reading), None)


def row_group_rows(
    file: BinaryIO, where: tuple[str, ReadingSection], groups: Sequence[int] | None, first: int = 1
) -> Iterator[Row]:
    """The rows of some row groups (None: of all) of a Parquet file that can be read at any place."""
    import pyarrow
    from pyarrow import parquet

    uri, reading = where
    try:
        table = parquet.ParquetFile(file)
        if not holds_records(table.schema_arrow.names, reading):
            check_columns(table.schema_arrow.names, uri, reading)
        row = first
        for batch in table.iter_batches(batch_size=ROWS_PER_BATCH, row_groups=groups):
            for record in _records(batch):
                yield row, record
                row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{uri}: the Parquet file is damaged ({error}); replace it") from error


def row_groups(file: BinaryIO, uri: str) -> Iterator[tuple[int, int]]:
    """Rows and bytes of each row group of a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = parquet.ParquetFile(file).metadata
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{uri}: the Parquet file is damaged ({error}); replace it") from error
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        yield group.num_rows, group.total_byte_size


def _lines(text: TextIO, max_characters: int, first: int) -> Iterator[tuple[int, str | RecordError]]:
    number = first - 1
    while line := text.readline(max_characters + 1):
        number += 1
        if len(line) <= max_characters:
            yield number, line
            continue
        while not line.endswith("\n") and (line := text.readline(max_characters)):
            pass
        yield number, RecordError(f"the line is longer than {max_characters} characters")


def _header(cells: list[str], uri: str, reading: ReadingSection) -> list[str]:
    columns = [cell.strip() for cell in cells]
    try:
        check_utf8(",".join(columns))
    except RecordError as error:
        raise DataError(f"{uri} line 1: {error.detail}, or leave it out if it is no table") from error
    check_columns(columns, uri, reading)
    return columns


def _row(header: Sequence[str], cells: list[str]) -> Any:
    if len(cells) != len(header):
        return RecordError(f"has {len(cells)} cells, the header has {len(header)} columns")
    for column, cell in zip(header, cells, strict=True):
        try:
            check_utf8(cell)
        except RecordError as error:
            return RecordError(f"column '{column}': {error.detail}")
    return plain(dict(zip(header, cells, strict=True)))


@contextmanager
def _spooled(stream: BinaryIO, uri: str) -> Iterator[BinaryIO]:
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError as error:
        raise OutputError(f"{uri}: no temporary file for it ({error}); set TMPDIR to a writable folder") from error
    with file:
        while data := stream.read(FILE_PIECE_BYTES):
            try:
                file.write(data)
            except OSError as error:
                raise OutputError(
                    f"{uri}: its temporary file in {tempfile.gettempdir()} cannot be written ({error.strerror}); "
                    "set TMPDIR to a folder with room"
                ) from error
        file.seek(0)
        yield file


def _records(batch: Any) -> Iterator[Any]:
    try:
        yield from (_plain_or_error(record) for record in batch.to_pylist())
    except UnicodeDecodeError:  # one bad cell spoils the batch: find it row by row
        for index in range(batch.num_rows):
            try:
                record = batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                yield RecordError(f"byte 0x{byte:02x} at position {error.start + 1} of a text is not UTF-8")
            else:
                yield _plain_or_error(record)


def _plain_or_error(record: Any) -> Any:
    try:
        return plain(record)
    except RecordError as error:
        return error
