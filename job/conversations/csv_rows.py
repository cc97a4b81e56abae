"""Rows of CSV and TSV files.

Python's csv module splits a row into cells. This module recognizes the dialect by the header, and
raises DataError where a row that is quoted wrongly may continue in the next lines: if they were
read on, they would pass for conversations.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from job.config.data_sections import CsvSection, ReadingSection
from job.conversations.draft import RecordError, plain
from job.conversations.formats.table import check_columns, has_conversation, in_known_case
from job.conversations.json_text import MAX_RECORD_CHARACTERS, check_utf8
from job.conversations.opening import in_utf8, text_of
from job.conversations.quotes import QuoteGuard, open_quotes
from job.conversations.rows import MARK, Row
from job.errors import DataError

DELIMITERS = (",", "\t", ";", "|")
MAX_HEADER_CHARACTERS = 1 << 20
MAX_FOREIGN_SHARE = 0.1  # of the first bytes of a text
# The csv module ends a row at either line break. One that is no line end of this file is replaced
# by a character that no decoder returns, and put back into the cells.
HIDDEN_BREAK = "\ud800"
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # the first line of some files of Excel
FIRST_RECORD = re.compile(rb'(?:[^"\r\n]|"[^"]*")*(\r*)(\n?)')
BLANK_CELLS = "".join(DELIMITERS) + " \r\n"  # what a record of nothing is made of
UNMATCHED = "the quotes of this record do not match ({})"
MEND = "later rows cannot be trusted, so mend or replace the file"


class Lines(Protocol):
    """A text that is read line by line."""

    def readline(self, limit: int, /) -> str:
        """Return the next line, or at most `limit` of its characters; empty at the end."""
        ...


@dataclass(frozen=True)
class Header:
    """The columns of a table, and the dialect of its rows; stored with each piece of a file."""

    columns: tuple[str, ...]
    delimiter: str
    line_end: str = "\n"

    @cached_property
    def folded(self) -> list[str]:
        """Return the columns without case."""
        return [column.casefold() for column in self.columns]


def line_end_of(head: bytes) -> str:
    r"""Return the character that ends the lines of a table with this beginning: `\n` or `\r`.

    Old versions of Excel for the Mac end rows with `\r` alone, and break lines in a cell with `\n`.
    """
    found = FIRST_RECORD.match(head)
    return "\r" if found and found[1] and not found[2] else "\n"


def table_text(
    stream: io.BufferedReader,
    uri: str,
    reading: ReadingSection,
) -> tuple[io.TextIOWrapper, str]:
    """Return the text of a table and the character that ends its lines.

    Raise DataError for a file that does not begin with text. A stray byte further down makes its
    own row a RecordError.
    """
    stream = in_utf8(stream, uri, reading.csv.encoding)
    head = stream.peek()
    check_text(head, uri)
    line_end = line_end_of(head)
    return text_of(stream, line_end=line_end), line_end


def check_text(head: bytes, uri: str) -> None:
    """Raise DataError for a file that begins with `head` and is not text."""
    foreign = head.count(0) + head.decode("utf-8", "replace").count("\ufffd")
    if 0 in head.partition(b"\n")[0] or foreign > MAX_FOREIGN_SHARE * len(head):
        raise DataError(
            f"{uri}: is no text file; give JSON, CSV, TSV or Parquet, plain or as .gz or .zst, in "
            "UTF-8 or UTF-16, or leave it out by data.exclude; the encoding of a table is named by "
            "data.csv.encoding"
        )


class TableRows:
    """The rows of a table as column → text, each with the number of its first line.

    The text is opened with the line end of the table. Without `header` it begins with the header,
    which is known once the first row was read. With `header` it begins with a row in the middle of
    the file, on the line `first`.
    """

    def __init__(
        self,
        text: Lines,
        uri: str,
        reading: ReadingSection,
        line_end: str = "\n",
        header: Header | None = None,
        first: int = 1,
    ) -> None:
        self._uri = uri
        self._reading = reading
        self._lines = _Lines(text, uri, reading.csv, line_end, first - 1)
        self._line_end = line_end
        self.header = header
        # Of the row before: it ends with a backslash; it has as many cells as the header.
        self._has_cut_off = False
        self._was_whole = True

    def __iter__(self) -> Iterator[Row]:
        csv.field_size_limit(MAX_RECORD_CHARACTERS)  # by default 131,072, less than a transcript
        self.header = self.header or self._read_header()
        if self.header is None:
            return
        dialect = self._reading.csv
        guard = QuoteGuard(self.header.delimiter, dialect.escape)
        # Strict, because a quote that is never closed would make one cell of the rest of the file.
        cells_by_row = csv.reader(
            self._lines,
            delimiter=self.header.delimiter,
            escapechar=dialect.escape,
            strict=True,
        )
        while True:
            begins = self._lines.begin_record()
            try:
                cells = next(cells_by_row, None)
            except csv.Error as error:
                if not guard.ends_with_its_line(self._lines.record):
                    raise self._lost(begins, UNMATCHED.format(error)) from error
                yield begins, RecordError(f"not a row of the table: {error}")
                continue
            if cells is None:
                return
            if not guard.is_whole(self._lines.record, cells):
                raise self._lost(begins, "this record ends with a quote that begins no cell")
            if cells and not self._is_header(cells):
                self._check_line_break(cells, begins)
                yield begins, self._row(self._lines.restore_breaks(cells))

    def _check_line_break(self, cells: list[str], begins: int) -> None:
        """Raise DataError if a backslash in front of a line break cut a row into this and the last.

        A row may end with a backslash (a folder of Windows), but not beside a row of another size.
        """
        assert self.header is not None
        is_whole = len(cells) == len(self.header.columns)
        if self._has_cut_off and not (self._was_whole and is_whole):
            what = "the row above ends with a backslash, and the number of cells is wrong"
            escape = "; where a backslash escapes line breaks, set data.csv: {escape: '\\'}"
            raise DataError(f"{self._uri} line {begins}: {what}; {MEND}{escape}")
        line = self._lines.record[-1].rstrip("\r\n")
        backslashes = len(line) - len(line.rstrip("\\"))
        self._has_cut_off = backslashes % 2 == 1 and self._reading.csv.escape is None
        self._was_whole = is_whole

    def _read_header(self) -> Header | None:
        """Return the first record with text in it; None if there is none."""
        delimiter = self._reading.csv.delimiter
        begins = self._lines.begin_record()
        while lines := self._lines.read_header():
            separator = EXCEL_SEPARATOR.fullmatch(lines[0].strip()) if begins == 1 else None
            if separator:
                delimiter = delimiter or separator[1]
            elif any(line.replace('""', "").strip(BLANK_CELLS) for line in lines):
                found, cells = self._split_header(lines, begins, delimiter)
                if any(cell.strip() for cell in cells):
                    return Header(tuple(self._columns(cells, begins)), found, self._line_end)
            begins = self._lines.begin_record()
        return None

    def _split_header(
        self,
        lines: list[str],
        begins: int,
        delimiter: str | None,
    ) -> tuple[str, list[str]]:
        """Return the delimiter that shows the column of conversations, or else the most columns."""
        splits: list[tuple[bool, int, str, list[str]]] = []
        problem: Exception | None = None
        escape = self._reading.csv.escape
        for candidate in [delimiter] if delimiter else DELIMITERS:
            try:
                rows = csv.reader(lines, delimiter=candidate, escapechar=escape, strict=True)
                cells = next(rows)
            except csv.Error as error:
                problem = error
                continue
            columns = in_known_case(_column_names(cells), self._reading)
            found = has_conversation(columns, self._reading)
            splits.append((found, len(cells), candidate, cells))
        if not splits:
            raise self._lost(begins, UNMATCHED.format(problem))
        _, _, best, cells = max(splits, key=lambda split: split[:2])
        return best, self._lines.restore_breaks(cells)

    def _columns(self, cells: list[str], begins: int) -> list[str]:
        columns = _column_names(cells)
        try:
            check_utf8(",".join(columns), self._reading.csv.encoding)
        except RecordError as error:
            raise DataError(
                f"{self._uri} line {begins}: {error.detail}, name its encoding in "
                "data.csv.encoding, or leave it out if it is no table"
            ) from error
        columns = in_known_case(plain(columns), self._reading)
        check_columns(columns, self._uri, self._reading)
        return columns

    def _row(self, cells: list[str]) -> Any:
        assert self.header is not None
        columns = self.header.columns
        if len(cells) != len(columns):
            found = f"has {len(cells)} cells, the header has {len(columns)} columns"
            remedy = self._escape_remedy('\\"', f"\\{self.header.delimiter}")
            return RecordError(found + remedy)
        record = self._lines.record
        if not all(map(str.isascii, record)):
            for column, cell in zip(columns, cells, strict=True):
                try:
                    check_utf8(cell, self._reading.csv.encoding)
                except RecordError as error:
                    remedy = "or name its encoding (data.csv.encoding)"
                    return RecordError(f"column '{column}': {error.detail}, {remedy}")
        row = dict(zip(columns, cells, strict=True))
        # Of what `plain` replaces, only NUL can be left in decoded text.
        return plain(row) if any("\0" in line for line in record) else row

    def _is_header(self, cells: list[str]) -> bool:
        """Return True for the header of a file that was joined to this one."""
        assert self.header is not None
        folded = self.header.folded
        if cells[0].strip().casefold() != folded[0]:
            return False
        return [name.casefold() for name in _column_names(cells)] == folded

    def _lost(self, begins: int, what: str) -> DataError:
        remedy = MEND + self._escape_remedy('\\"')
        return DataError(f"{self._uri} line {begins}: {what}; {remedy}")

    def _escape_remedy(self, *signs: str) -> str:
        """Return what to set where the record at hand has one of these signs of an escape."""
        if self._reading.csv.escape is not None:
            return ""
        if not any(sign in line for line in self._lines.record for sign in signs):
            return ""
        escaped = "quotes" if len(signs) == 1 else "quotes or separators"
        return f"; where a backslash escapes {escaped}, set data.csv: {{escape: '\\'}}"


class _Lines:
    """The lines of a table for the csv module; remembers those of the current record."""

    def __init__(
        self,
        text: Lines,
        uri: str,
        dialect: CsvSection,
        line_end: str,
        line: int,
    ) -> None:
        self._text = text
        self._uri = uri
        self._line_end = line_end
        self._line = line
        self._other_break = "\r" if line_end == "\n" else "\n"
        self._escape = dialect.escape
        self._escaped: re.Pattern[str] | None = None
        if self._escape:
            self._escaped = re.compile(f"{re.escape(self._escape)}(.?)", re.DOTALL)
        special = {'"', *DELIMITERS, dialect.delimiter, self._escape, "\n", "\r", HIDDEN_BREAK}
        self._special = special if self._escape else set()
        self._has_hidden = False
        self.record: list[str] = []

    def begin_record(self) -> int:
        """Forget the lines of the last record; return the number of the next line."""
        self.record.clear()
        self._has_hidden = False
        return self._line + 1

    def read_header(self) -> list[str]:
        """Return the lines of the header, which ends at the first line outside quotes.

        At the end of the text there are none.
        """
        characters = is_open = 0
        while line := self._read(MAX_HEADER_CHARACTERS - characters + 1):
            characters += len(line)
            is_open ^= open_quotes(line, self._escape)
            if characters > MAX_HEADER_CHARACTERS:
                raise DataError(
                    f"{self._uri}: the header is longer than {MAX_HEADER_CHARACTERS} characters, "
                    "or has a quote that is never closed; mend or replace the file"
                )
            if not is_open:
                break
        return list(self.record)

    def restore_breaks(self, cells: list[str]) -> list[str]:
        """Return the cells of the record with the line breaks that were hidden."""
        if not self._has_hidden:
            return cells
        return [cell.replace(HIDDEN_BREAK, self._other_break) for cell in cells]

    def __iter__(self) -> Iterator[str]:
        while line := self._read(MAX_RECORD_CHARACTERS):
            if len(line) == MAX_RECORD_CHARACTERS and not line.endswith(self._line_end):
                what = f"is longer than {MAX_RECORD_CHARACTERS} characters"
                raise DataError(f"{self._uri} line {self._line}: {what}; {MEND}")
            yield line

    def _read(self, limit: int) -> str:
        line = self._text.readline(limit)
        if not line:
            return ""
        self._line += 1
        if line.startswith(MARK) and not self.record:  # of a file that was joined to this one
            line = line.lstrip(MARK) or self._line_end
        if self._other_break in line:
            line = self._hide(line)
        if self._escaped and self._escape in line:  # type: ignore[operator]
            line = self._escaped.sub(self._only_special, line)
        self.record.append(line)
        return line

    def _hide(self, line: str) -> str:
        content = line.rstrip("\r\n") if self._line_end == "\n" else line.removesuffix("\r")
        if self._other_break not in content:
            return line
        self._has_hidden = True
        return content.replace(self._other_break, HIDDEN_BREAK) + line[len(content) :]

    def _only_special(self, match: re.Match[str]) -> str:
        """Double an escape that makes nothing special, because the csv module would drop it."""
        return match[0] if match[1] in self._special else f"{self._escape}{match[0]}"


def _column_names(cells: Sequence[str]) -> list[str]:
    """Return the names of the columns; several without a name are called by their number."""
    names = [cell.strip() for cell in cells]
    if names.count("") > 1:
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    return names
