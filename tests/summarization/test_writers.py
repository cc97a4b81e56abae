"""Claims about the files that rows become."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

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

NASTY = 'He said: "no", then\nleft;\r\n \u2028 =1+1 北京 🙂 \t'


def row(id: int, text: str = "fine", **metadata: Any) -> bytes:
    return json_line(summary_row(Summary(str(id), text, Source("s3://b/day.jsonl", id), "stop", 10, 2, 0, metadata)))


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
