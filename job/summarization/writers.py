"""Writers of rows to files on this machine: JSON lines in parts or in one file, CSV, Parquet.

Each writer is a context that yields a function, which writes one row. It takes the row as a line of
JSON, which it is nearly everywhere else. The files are complete when the context ends.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from job.config.sections import CsvOutputSection

Write = Callable[[bytes], object]
RECORDS_PER_PART = 50_000
BYTES_PER_PART = 256 << 20
ROWS_PER_GROUP = 4096  # of a Parquet file; they are held in memory until they are written
COLUMNS = (
    "id",
    "summary",
    "source_uri",
    "source_line",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "dropped_turns",
    "parts",
    "levels",
    "redactions",
    "leaks",
    "digest",
    "adapter",
    "metadata",
)
NUMBERS = frozenset(
    {
        "source_line",
        "input_tokens",
        "output_tokens",
        "dropped_turns",
        "parts",
        "levels",
        "redactions",
        "leaks",
        "candidates",
        "candidate",
        "drawn_tokens",
    }
)

# Of a night with candidates, after the others.
COLUMNS_OF_CANDIDATES = (
    "candidates",
    "candidate",
    "drawn_tokens",
    "reward",
    "reward_of_first",
    "lowest_reward",
    "highest_reward",
)
FRACTIONS = frozenset(COLUMNS_OF_CANDIDATES[3:])

# What a spreadsheet may run as a formula. Excel runs `- 1+1` too, although a minus may begin a list
# in a summary. Excel and LibreOffice take the full-width signs of East Asian keyboards for the
# others.
FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?", re.ASCII)
AS_DEFAULT = CsvOutputSection()

# `json.dumps` with options makes a new encoder for each row. Rows come from JSON, so they have no
# cycles to check for.
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False)


@contextmanager
def json_lines(path: Path) -> Iterator[Write]:
    """Write one file with a JSON object a line. The file exists even without rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        yield lambda row: _write_line(file, row)


@contextmanager
def json_line_parts(
    folder: Path,
    records_per_part: int = RECORDS_PER_PART,
    bytes_per_part: int = BYTES_PER_PART,
) -> Iterator[Write]:
    """Write files `part-00000.jsonl` and so on, with a JSON object a line.

    A part ends after so many records, or with the record with which it reaches so many bytes. There
    is one part even without rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = 0
    records = 0  # of the part at hand
    size = 0
    with ExitStack() as current:

        def open_part() -> BinaryIO:
            nonlocal parts, records, size
            current.close()
            path = folder / f"part-{parts:05d}.jsonl"
            parts += 1
            records = 0
            size = 0
            return current.enter_context(path.open("wb"))

        file = open_part()

        def write(row: bytes) -> None:
            nonlocal file, records, size
            if records == records_per_part or size >= bytes_per_part:
                file = open_part()
            _write_line(file, row)
            records += 1
            size += len(row) + 1

        yield write


@contextmanager
def csv_table(
    path: Path, section: CsvOutputSection = AS_DEFAULT, columns: Sequence[str] = COLUMNS
) -> Iterator[Write]:
    """Write CSV with a header, and metadata as JSON text.

    Formulas are escaped unless the section keeps them.
    """
    encoding = "utf-8-sig" if section.byte_order_mark else "utf-8"
    with path.open("w", encoding=encoding, newline="") as file:
        rows = csv.DictWriter(file, columns)
        rows.writeheader()

        def write(row: bytes) -> None:
            cells = _flat(row, columns)
            if section.formulas == "escape":
                cells = {name: _without_formula(cell) for name, cell in cells.items()}
            rows.writerow(cells)

        yield write


@contextmanager
def parquet_table(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[Write]:
    """Write Parquet, and metadata as JSON text."""
    import pyarrow
    from pyarrow import parquet

    fields = []
    for name in columns:
        kind = pyarrow.int64() if name in NUMBERS else pyarrow.string()
        if name in FRACTIONS:
            kind = pyarrow.float64()
        fields.append((name, kind))
    schema = pyarrow.schema(fields)
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as file:

        def write(row: bytes) -> None:
            waiting.append(_flat(row, columns))
            if len(waiting) == ROWS_PER_GROUP:
                flush()

        def flush() -> None:
            file.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        yield write
        if waiting:
            flush()


def one_file(
    path: Path, section: CsvOutputSection, has_candidates: bool = False
) -> AbstractContextManager[Write]:
    """Return the writer for the path's ending: .jsonl, .csv or .parquet."""
    columns = (*COLUMNS, *COLUMNS_OF_CANDIDATES) if has_candidates else COLUMNS
    match path.suffix.lower():
        case ".csv":
            return csv_table(path, section, columns)
        case ".parquet":
            return parquet_table(path, columns)
    return json_lines(path)


def json_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line of JSON, without the line break."""
    return ENCODER.encode(row).encode()


def _without_formula(cell: Any) -> Any:
    """Return the cell with an apostrophe before it if a spreadsheet would run it as a formula.

    A cell that begins with such apostrophes gets one more: whoever removes one has the text back.
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unescaped(cell: str) -> str:
    """Return a cell of CSV as it was before a formula in it was escaped."""
    is_escaped = cell.startswith("'") and FORMULA.match(cell)
    return cell[1:] if is_escaped else cell


def _write_line(file: BinaryIO, row: bytes) -> None:
    file.write(row)
    file.write(b"\n")


def _flat(line: bytes, columns: Sequence[str]) -> dict[str, Any]:
    """Return the cells of a row by column, without nested values."""
    row = json.loads(line)
    cells = {name: row[name] for name in columns if name in row}
    source = row["source"]
    return cells | {
        "source_uri": source["uri"],
        "source_line": source["line"],
        "metadata": ENCODER.encode(row["metadata"]),
    }
