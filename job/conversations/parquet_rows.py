"""Rows of Parquet files, as Python values.

pyarrow reads a batch of rows at a time. How many rows are a batch follows from the sizes of their
values, because a file of some kilobytes can hold gigabytes of text. A value that Python has no type
for becomes text: a date of the year 10000, a time of an unknown zone.
"""

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import pyarrow

from job.config.data_sections import ReadingSection
from job.conversations.draft import BinaryRow, RecordError, plain
from job.conversations.formats.choose import holds_records
from job.conversations.formats.table import check_columns, check_names, in_known_case
from job.conversations.json_text import MAX_RECORD_CHARACTERS
from job.conversations.rows import Row
from job.errors import DataError, OutputError

MAX_ROWS_PER_BATCH = 256
BATCH_BYTES = 256 << 20
MAX_ROW_BYTES = MAX_RECORD_CHARACTERS
FILE_PIECE_BYTES = 1 << 20
PAGE_HEADER_BYTES = 32
DICTIONARY_PAGE = 2  # Parquet's number of this type of page
NO_TEXT = frozenset(map(chr, {*range(32), 127} - set(b"\t\n\r")))
DATE_AND_TIME = re.compile(r"-?\d+-\d\d-\d\d \d\d:")
# What pyarrow raises for a value that Python has no type for. UnicodeDecodeError is one of them.
NO_PYTHON_VALUE = (ArithmeticError, ImportError, LookupError, NotImplementedError, ValueError)


class RowGroup(NamedTuple):
    """The size of a row group."""

    rows: int
    bytes: int


def parquet_rows(stream: BinaryIO, uri: str, reading: ReadingSection) -> Iterator[Row]:
    """Yield the rows of a Parquet file through a temporary file, as its end is read first."""
    with _spool(stream, uri) as file:
        yield from row_group_rows(file, uri, reading, None)


def row_group_rows(
    file: BinaryIO,
    uri: str,
    reading: ReadingSection,
    groups: Sequence[int] | None,
    first: int = 1,
) -> Iterator[Row]:
    """Yield the rows of some row groups (None: of all) of a seekable Parquet file.

    `first` is the number of the first row. Raise DataError for a damaged file and for one that
    does not fit into memory.
    """
    from pyarrow import parquet

    with _data_errors(uri):
        table = parquet.ParquetFile(file)
        names = _column_names(table.schema_arrow.names, uri, reading)
        row = first
        for group in range(table.num_row_groups) if groups is None else groups:
            rows_per_batch = _rows_per_batch(file, table.metadata.row_group(group))
            for batch in table.iter_batches(batch_size=rows_per_batch, row_groups=[group]):
                for record in _records(batch, names):
                    yield row, record
                    row += 1


def row_groups(file: BinaryIO, uri: str) -> Iterator[RowGroup]:
    """Yield the row groups of a Parquet file."""
    from pyarrow import parquet

    with _data_errors(uri):
        metadata = parquet.ParquetFile(file).metadata
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        yield RowGroup(group.num_rows, group.total_byte_size)


@contextmanager
def _data_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        remedy = "write smaller values, or fewer to a row group"
        raise DataError(f"{uri}: its values do not fit into memory ({error}); {remedy}") from error
    except pyarrow.ArrowNotImplementedError as error:
        what = f"has something that pyarrow does not read ({error})"
        raise DataError(f"{uri}: the Parquet file {what}; write it without") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{uri}: the Parquet file is damaged ({error}); replace it") from error


def _column_names(columns: list[str], uri: str, reading: ReadingSection) -> list[str]:
    if holds_records(columns, reading):
        check_names(columns, uri)
        return columns
    columns = in_known_case(columns, reading)
    check_columns(columns, uri, reading)
    return columns


def _rows_per_batch(file: BinaryIO, group: Any) -> int:
    """Return how many rows take BATCH_BYTES at most, if page headers are correct.

    A text in a dictionary is stored once however many rows have it, so each value counts as much
    as its dictionary.
    """
    rows = max(group.num_rows, 1)
    row_bytes = group.total_byte_size // rows
    for index in range(group.num_columns):
        column = group.column(index)
        values_per_row = -(-column.num_values // rows)
        if column.physical_type.endswith("BYTE_ARRAY"):
            row_bytes += values_per_row * _shared_bytes(file, column)
        else:
            row_bytes += values_per_row * 16
    return max(1, min(BATCH_BYTES // max(int(row_bytes), 1), MAX_ROWS_PER_BATCH))


def _shared_bytes(file: BinaryIO, column: Any) -> int:
    """Return how large a value may be that a column chunk stores once for many rows."""
    if "DELTA_BYTE_ARRAY" in column.encodings:
        return int(column.total_uncompressed_size)
    if not any("DICTIONARY" in encoding for encoding in column.encodings):
        return 0
    offsets = [column.data_page_offset, column.dictionary_page_offset]
    file.seek(min(offset for offset in offsets if offset))
    page_type, size = _page_header(file.read(PAGE_HEADER_BYTES))
    return size if page_type == DICTIONARY_PAGE else int(column.total_uncompressed_size)


def _page_header(data: bytes) -> tuple[int, int]:
    """Return type and uncompressed size of the page: the first two fields of its Thrift struct."""
    fields = []
    stream = io.BytesIO(data)
    for _ in range(2):
        if stream.read(1) != b"\x15":  # the next field, an i32
            return -1, 0
        number = shift = 0
        while True:
            byte = (stream.read(1) or b"\0")[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        fields.append(number >> 1 ^ -(number & 1))  # zigzag
    return fields[0], fields[1]


def _records(batch: pyarrow.RecordBatch, names: Sequence[str]) -> Iterator[Any]:
    if batch.nbytes <= MAX_ROW_BYTES:
        yield from _convert(batch, names)
        return
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        if sum(_row_bytes(column) for column in row.columns) > MAX_ROW_BYTES:
            yield RecordError(f"the row is larger than {MAX_ROW_BYTES} bytes")
        else:
            yield from _convert(row, names)


def _row_bytes(column: pyarrow.Array) -> int:
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()  # the dictionary may hold the values of other rows
    return int(column.nbytes)


def _convert(batch: pyarrow.RecordBatch, names: Sequence[str]) -> Iterator[Any]:
    has_binary_columns = any(_is_binary(column.type) for column in batch.columns)
    for cells in zip(*map(_cells, batch.columns), strict=True):
        row = dict(zip(names, cells, strict=True))
        try:
            for cell in cells:
                if isinstance(cell, RecordError):
                    raise cell
            record = plain(row)
        except RecordError as error:
            yield error
        else:
            has_bytes = has_binary_columns and any(map(_holds_bytes, cells))
            yield BinaryRow(record) if has_bytes else record


def _cells(column: pyarrow.Array) -> list[Any]:
    """Return the values of a column; a RecordError for one that is neither a value nor text."""
    try:
        values = column.to_pylist(maps_as_pydicts="strict" if _has_maps(column.type) else None)
    except NO_PYTHON_VALUE:  # one cell spoils the column
        values = [_cell_or_error(scalar) for scalar in column]
    return list(map(_decode, values)) if _is_binary(column.type) else values


def _has_maps(type: pyarrow.DataType) -> bool:
    return "map<" in str(type)


def _is_binary(type: pyarrow.DataType) -> bool:
    types = pyarrow.types
    if types.is_dictionary(type):
        return _is_binary(type.value_type)
    if types.is_nested(type):
        return any(_is_binary(type.field(index).type) for index in range(type.num_fields))
    is_variable = types.is_binary(type) or types.is_large_binary(type)
    return is_variable or types.is_fixed_size_binary(type) or str(type) == "binary_view"


def _decode(value: Any) -> Any:
    """Return the value, in which bytes that are text have become text.

    Impala and old versions of Spark and Hive do not record which of their columns are text.
    """
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return value
        return value if NO_TEXT.intersection(text) else text
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_decode(item) for item in value]
    return value


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes)


def _cell_or_error(scalar: pyarrow.Scalar) -> Any:
    try:
        return _cell(scalar)
    except RecordError as error:
        return error


def _cell(scalar: pyarrow.Scalar) -> Any:
    """Return the value. Values without a Python type become text."""
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        position = error.start + 1
        raise RecordError(
            f"byte 0x{byte:02x} at position {position} of a text is not UTF-8",
        ) from error
    except NO_PYTHON_VALUE as error:
        types = pyarrow.types
        kind = scalar.type
        if types.is_dictionary(kind) or isinstance(scalar, pyarrow.ExtensionScalar):
            return _cell(scalar.value)
        if types.is_map(kind):
            return [[_cell(entry[0]), _cell(entry[1])] for entry in scalar.values]
        if types.is_struct(kind):
            return _struct(scalar)
        if types.is_nested(kind):
            return [_cell(item) for item in scalar.values]
        if types.is_timestamp(kind):
            return _timestamp(scalar)
        if types.is_temporal(kind):
            return _cast_text(scalar)
        raise RecordError(f"a cell of the type {kind} cannot be read: {error}") from error


def _struct(scalar: pyarrow.StructScalar) -> dict[str, Any]:
    names = [scalar.type.field(index).name for index in range(scalar.type.num_fields)]
    if len(set(names)) < len(names):
        shown = ", ".join(names)
        raise RecordError(f"an object has two fields of one name; its fields are {shown}")
    return {name: _cell(scalar[index]) for index, name in enumerate(names)}


def _timestamp(scalar: pyarrow.Scalar) -> str:
    """Return ISO 8601, with the time in UTC where the column has a zone."""
    text = _cast_text(scalar.cast(pyarrow.timestamp(scalar.type.unit)))
    if not DATE_AND_TIME.match(text):
        return text
    text = text.replace(" ", "T")
    text = text.rstrip("0").removesuffix(".") if text.endswith("0") and "." in text else text
    return f"{text}+00:00" if scalar.type.tz else text


def _cast_text(scalar: pyarrow.Scalar) -> str:
    text = str(scalar.cast(pyarrow.string()))
    # Arrow's words for what is outside even of its own calendar, and its bare number of a duration.
    out_of_range = text.startswith("<value out of range: ")
    if out_of_range or pyarrow.types.is_duration(scalar.type):
        return f"{scalar.value} {scalar.type.unit}"
    return text


@contextmanager
def _spool(stream: BinaryIO, uri: str) -> Iterator[BinaryIO]:
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError as error:
        remedy = "set TMPDIR to a writable folder"
        raise OutputError(f"{uri}: no temporary file for it ({error}); {remedy}") from error
    with file:
        while data := stream.read(FILE_PIECE_BYTES):
            try:
                file.write(data)
            except OSError as error:
                raise OutputError(
                    f"{uri}: its temporary file in {tempfile.gettempdir()} cannot be written "
                    f"({error.strerror}); set TMPDIR to a folder with room"
                ) from error
        file.seek(0)
        yield file
