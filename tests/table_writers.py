"""Writers of CSV files as other programs write them. Each turns rows of cells into bytes."""

import csv
import io
from typing import Any


def excel(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows(rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def excel_with_separator(rows: list[list[str]]) -> bytes:
    return b"sep=;\r\n" + excel(rows).removeprefix(b"\xef\xbb\xbf")


def module(**dialect: Any) -> Any:
    def write(rows: list[list[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, **dialect).writerows(rows)
        return text.getvalue().encode()

    return write


def pandas(rows: list[list[str]]) -> bytes:
    """Quote a cell that holds a delimiter, a quote or a line feed, but not a carriage return."""
    quoted = [[_doubled(cell) if set(cell) & set('",\n') else cell for cell in row] for row in rows]
    return "".join(",".join(row) + "\n" for row in quoted).encode()


def spark(rows: list[list[str]]) -> bytes:
    return "".join(",".join(map(spark_cell, row)) + "\n" for row in rows).encode()


def athena(rows: list[list[str]]) -> bytes:
    return "".join(",".join(map(_doubled, row)) + "\n" for row in rows).encode()


def mac(rows: list[list[str]]) -> bytes:
    return b"".join(athena([row])[:-1] + b"\r" for row in rows)


def without_escapes(rows: list[list[str]]) -> bytes:
    return "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows).encode()


def spark_cell(cell: str) -> str:
    if not set(cell) & set('",\n\r\\'):
        return cell
    return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _doubled(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'
