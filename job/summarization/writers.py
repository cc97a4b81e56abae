"""Rows → files on this machine: JSON lines in parts or in one file, CSV, Parquet. Knows nothing of where they go.

A row comes as the JSON line that it is nearly everywhere else. Each writer is a context that yields a function of one
row; its files are whole when the context ends.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from job.config.sections import CsvOutputSection

Write = Callable[[bytes], object]
RECORDS_PER_PART = 50_000
BYTES_PER_PART = 256 << 20
ROWS_PER_GROUP = 4096  # of a Parquet file; held in memory until written
COLUMNS = (
    "id", "summary", "source_uri", "source_line", "finish_reason", "input_tokens", "output_tokens", "dropped_turns",
    "parts", "levels", "redactions", "leaks", "digest", "metadata",
)  # fmt: skip
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
    }
)
# A minus may begin a list in a summary; Excel runs `- 1+1` too. The signs of full width are East Asian
# keyboards' (Excel and LibreOffice take them for the others).
FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?", re.ASCII)
AS_DEFAULT = CsvOutputSection()
# json.dumps makes a new one for each row; what came from JSON holds no circle
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False)


@contextmanager
def json_lines(path: Path) -> Iterator[Write]:
    """One JSON object a line, in one file, which exists even without rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        yield lambda row: _write_line(file, row)


@contextmanager
def json_line_parts(
    folder: Path, records_per_part: int = RECORDS_PER_PART, bytes_per_part: int = BYTES_PER_PART
) -> Iterator[Write]:
    """The same in `part-00000.jsonl` and so on; a part ends after so many records, or with the record that fills it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = records = size = 0
    with ExitStack() as current:

        def open_part() -> BinaryIO:
            nonlocal parts, records, size
            current.close()
            path = folder / f"part-{parts:05d}.jsonl"
            parts, records, size = parts + 1, 0, 0
            return current.enter_context(path.open("wb"))

        file = open_part()

        def write(row: bytes) -> None:
            nonlocal file, records, size
            if records == records_per_part or size >= bytes_per_part:
                file = open_part()
            _write_line(file, row)
            records, size = records + 1, size + len(row) + 1

        yield write


@contextmanager
def csv_table(path: Path, section: CsvOutputSection = AS_DEFAULT) -> Iterator[Write]:
    """Write CSV with a header, metadata as JSON text, formulas escaped unless the section keeps them."""
    encoding = "utf-8-sig" if section.byte_order_mark else "utf-8"
    with path.open("w", encoding=encoding, newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()

        def write(row: bytes) -> None:
            cells = _flat(row)
            if section.formulas == "escape":
                cells = {name: _without_formula(cell) for name, cell in cells.items()}
            rows.writerow(cells)

        yield write


@contextmanager
def parquet_table(path: Path) -> Iterator[Write]:
    """Parquet; metadata as JSON text."""
    import pyarrow
    from pyarrow import parquet

    types = [(name, pyarrow.int64() if name in NUMBERS else pyarrow.string()) for name in COLUMNS]
    schema = pyarrow.schema(types)
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as file:

        def write(row: bytes) -> None:
            waiting.append(_flat(row))
            if len(waiting) == ROWS_PER_GROUP:
                flush()

        def flush() -> None:
            file.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        yield write
        if waiting:
            flush()


def one_file(path: Path, section: CsvOutputSection) -> AbstractContextManager[Write]:
    """Return the writer that the ending of the path names: .jsonl, .csv or .parquet."""
    match path.suffix.lower():
        case ".csv":
            return csv_table(path, section)
        case ".parquet":
            return parquet_table(path)
    return json_lines(path)


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as its JSON line, without the end."""
    return ENCODER.encode(row).encode()


def _without_formula(cell: Any) -> Any:
    """Return the cell with an apostrophe before it if a spreadsheet would run it as a formula.

    A cell with such apostrophes already gets one more: whoever removes one has the text back.
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _write_line(file: BinaryIO, row: bytes) -> None:
    file.write(row)
    file.write(b"\n")


def _flat(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    cells = {name: row[name] for name in COLUMNS if name in row}
    source = row["source"]
    return cells | {
        "source_uri": source["uri"],
        "source_line": source["line"],
        "metadata": ENCODER.encode(row["metadata"]),
    }
