"""Claims about pieces: read alone, they have the records of the whole file, each once."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from job.config.data_sections import ReadingSection
from job.conversations.pieces import Piece, Size, cut, read_piece
from job.conversations.read import derived_id, read_conversations
from job.conversations.record import Conversation
from job.errors import DataError
from job.storage.open import list_inputs

READING = ReadingSection()
SIZES = [
    Size(1, 1 << 30),
    Size(2, 1 << 30),
    Size(7, 1 << 30),
    Size(10**6, 1),
    Size(10**6, 150),
    Size(10**6, 1 << 30),
]


def record(number: int, text: str = "late") -> dict[str, Any]:
    return {"id": f"c{number}", "turns": [{"role": "customer", "text": text}]}


def lines() -> bytes:
    good = [json.dumps(record(number, "word " * number), ensure_ascii=False) for number in range(9)]
    blanks = ["", "   ", "\u00a0\u2003", "\x1c", "\r"]
    bad = [
        "{broken",
        "\ufeff{}",
        "[1]",
        '"x"',
        "null",
        '  {"turns": []}',
        json.dumps({"turns": record(0)["turns"]}),
    ]
    mixed = [line for trio in zip(good[:5], blanks, bad[:5], strict=True) for line in trio]
    text = "\n".join([*mixed, *good[5:], *bad[5:], "北京 🙂"])
    return b"\xef\xbb\xbf" + text.encode() + b'\n\xff\xfe{"bad bytes"}\r\n\n  \n{"no": "end"}'


def table(delimiter: str = ",") -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, delimiter=delimiter)
    if delimiter == ",":
        rows.writerow([])
    rows.writerow(["id", "dialogue", "note"])
    for number in range(8):
        rows.writerow(
            [f"c{number}", 'Customer: "late",\nAgent: s\u00f6rry' * (number % 3 + 1), "北京"]
        )
        rows.writerow([f"only {number}"])
        rows.writerow([])
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def document(opening: str) -> bytes:
    """Members of any kind, in more than one window, with a mark, line ends, and other scripts."""
    values = [
        json.dumps(record(number, "北京 🙂 " * number), indent=1, ensure_ascii=False)
        for number in range(9)
    ]
    values += [
        '"x"',
        "1",
        "null",
        "[]",
        '{"turns": []}',
        json.dumps(record(20, "\ud83d")),
        '{"id": "\udcff"}',
    ]
    values += [json.dumps({"turns": record(0)["turns"]}), json.dumps(record(21, "x" * (3 << 20)))]
    if opening == "{":
        first = (
            '"a": {"original dialog id": "a", '
            '"log": [{"user utterance": "late", "system response": "s\u00f6rry"}]}'
        )
        values = [first, *(f'"ключ {number}" : {value}' for number, value in enumerate(values))]
    text = " ,\n".join(values)
    return b"\xef\xbb\xbf \n" + f"{opening} {text} {'}' if opening == '{' else ']'}\n".encode(
        "utf-8", "surrogateescape"
    )


def parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    rows = [{"id": f"c{number}", "dialogue": f"Customer: late {number}"} for number in range(23)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=3)
    return file.getvalue()


FILES: dict[str, bytes] = {
    "lines.jsonl": lines(),
    "none.jsonl": b"",
    "blank.jsonl": b"\n \n",
    "one.jsonl": json.dumps(record(1)).encode(),
    "table.csv": table(),
    "table.tsv": table("\t"),
    "header.csv": b"id,dialogue\n",
    "rows.parquet": parquet(),
    "rows.parquet.gz": gzip.compress(parquet()),
    "lines.jsonl.gz": gzip.compress(lines()),
    "array.json": document("["),
    "object.json": document("{"),
    "empty.json": b" [ ]",
    "document.json.gz": gzip.compress(document("[")),
}


def whole(files: list[Any]) -> list[Any]:
    return list(read_conversations(files, READING))


def with_ids(outcomes: list[Any]) -> list[Any]:
    return [
        found._replace(id=found.id or derived_id(found))
        if isinstance(found, Conversation)
        else found
        for found in outcomes
    ]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_pieces_hold_what_the_file_holds_each_record_once_and_in_order(
    tmp_path: Path, name: str, size: Size
):
    (tmp_path / name).write_bytes(FILES[name])
    (file,) = list_inputs([str(tmp_path / name)])
    pieces = list(cut(file, READING, size))
    read = [list(read_piece(file, piece, READING)) for piece in pieces]
    assert [len(outcomes) for outcomes in read] == [piece.records for piece in pieces]
    assert with_ids([outcome for outcomes in read for outcome in outcomes]) == whole([file])
    assert list(cut(file, READING, size)) == pieces


@pytest.mark.parametrize(
    "name", ["lines.jsonl", "array.json", "object.json", "table.csv", "rows.parquet"]
)
def test_pieces_are_as_large_as_they_were_asked_to_be(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(FILES[name])
    (file,) = list_inputs([str(tmp_path / name)])
    records = [piece.records for piece in cut(file, READING, Size(3, 1 << 30))]
    assert set(records[:-1]) == {3}
    assert len(list(cut(file, READING, Size(10**6, 1)))) == (
        8 if name == "rows.parquet" else sum(records)
    )


@pytest.mark.parametrize("name", ["lines.jsonl.gz", "document.json.gz"])
def test_what_cannot_be_entered_in_the_middle_is_one_piece(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(FILES[name])
    (file,) = list_inputs([str(tmp_path / name)])
    ((kind, records),) = [(piece.kind, piece.records) for piece in cut(file, READING, Size(1, 1))]
    assert (kind, records) == ("whole", len(whole([file])))


def test_a_line_of_many_megabytes_is_one_record(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(
        b"{" + b"x" * (5 << 20) + b"\n" + b" " * (3 << 20) + b"\n" + b"y\n"
    )
    (file,) = list_inputs([str(tmp_path / "a.jsonl")])
    pieces: list[Piece] = list(cut(file, READING, Size(1, 1 << 30)))
    assert [(piece.line, piece.records) for piece in pieces] == [(1, 1), (2, 1)]
    assert [
        outcome.source.line for piece in pieces for outcome in read_piece(file, piece, READING)
    ] == [1, 3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", table() + b'x,"no end\n\n'),
        ("a.jsonl.gz", gzip.compress(lines(), mtime=0)[:-9]),
        ("a.json", document("{")[:-2]),
        ("b.json", document("[") + b"]"),
        ("c.json", b"[] []"),
        ("a.parquet", b"PAR1 x"),
    ],
)
def test_cutting_a_file_that_breaks_off_raises_its_name(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    (file,) = list_inputs([str(tmp_path / name)])
    with pytest.raises(DataError, match=name):
        list(cut(file, READING, Size(2, 1 << 30)))


def test_only_the_records_at_wanted_lines_are_read(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(5)))
    file = list_inputs([str(path)])[0]
    (piece,) = cut(file, READING, Size(10, 1 << 30))
    assert [found.id for found in read_piece(file, piece, READING, only={2, 5})] == ["c1", "c4"]
