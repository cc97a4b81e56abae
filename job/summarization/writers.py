"""Rows → files on this machine: JSON lines in parts or in one file, CSV, Parquet. Knows nothing of where they go.

Each writer is a context that yields a function of one row; its files are whole when the context ends.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

Write = Callable[[Mapping[str, Any]], None]
RECORDS_PER_PART = 50_000
BYTES_PER_PART = 256 << 20
ROWS_PER_GROUP = 4096  # of a Parquet file; held in memory until written
COLUMNS = (
    "id", "summary", "source_uri", "source_line", "finish_reason", "input_tokens", "output_tokens", "dropped_turns",
    "parts", "levels", "redactions", "leaks", "digest", "metadata",
)  # fmt: skip
NUMBERS = frozenset(
    {"source_line", "input_tokens", "output_tokens", "dropped_turns", "parts", "levels", "redactions", "leaks"}
)


@contextmanager
def json_lines(path: Path) -> Iterator[Write]:
    """One JSON object a line, in one file, which exists even without rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda row: _write_line(file.write, row)


@contextmanager
def json_line_parts(
    folder: Path, records_per_part: int = RECORDS_PER_PART, bytes_per_part: int = BYTES_PER_PART
) -> Iterator[Write]:
    """The same in `part-00000.jsonl` and so on; a part ends after so many records, or with the record that fills it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = records = 0
    with ExitStack() as current:

        def open_part() -> Any:
            nonlocal parts, records
            current.close()
            path = folder / f"part-{parts:05d}.jsonl"
            parts, records = parts + 1, 0
            return current.enter_context(path.open("w", encoding="utf-8", newline="\n"))

        file = open_part()

        def write(row: Mapping[str, Any]) -> None:
            nonlocal file, records
            if records == records_per_part or file.tell() >= bytes_per_part:
                file = open_part()
            _write_line(file.write, row)
            records += 1

        yield write


@contextmanager
def csv_table(path: Path) -> Iterator[Write]:
    """CSV with a header; metadata as JSON text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        yield lambda row: rows.writerow(_flat(row))


@contextmanager
def parquet_table(path: Path) -> Iterator[Write]:
    """Parquet; metadata as JSON text."""
    import pyarrow
    from pyarrow import parquet

    types = [(name, pyarrow.int64() if name in NUMBERS else pyarrow.string()) for name in COLUMNS]
    schema = pyarrow.schema(types)
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as file:

        def write(row: Mapping[str, Any]) -> None:
            waiting.append(_flat(row))
            if len(waiting) == ROWS_PER_GROUP:
                flush()

        def flush() -> None:
            file.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        yield write
        if waiting:
            flush()


WRITERS: dict[str, Callable[[Path], Any]] = {".jsonl": json_lines, ".csv": csv_table, ".parquet": parquet_table}


def _write_line(write: Callable[[str], object], row: Mapping[str, Any]) -> None:
    write(json.dumps(row, ensure_ascii=False) + "\n")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {name: row[name] for name in COLUMNS if name in row}
    source = row["source"]
    return cells | {
        "source_uri": source["uri"],
        "source_line": source["line"],
        "metadata": json.dumps(row["metadata"], ensure_ascii=False),
    }
