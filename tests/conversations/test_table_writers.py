"""Claims about tables of random content, as each program that people use writes them."""

import csv
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.config.data_sections import CsvSection, ReadingSection
from job.conversations.pieces import Size, cut, read_piece
from job.conversations.read import derived_id, read_conversations, read_strictly
from job.conversations.record import Conversation
from job.errors import DataError
from job.storage.open import list_inputs
from tests.table_writers import (
    athena,
    excel,
    excel_with_separator,
    mac,
    module,
    pandas,
    spark,
    without_escapes,
)

AUTO = ReadingSection()
BACKSLASH = ReadingSection(csv=CsvSection(escape="\\"))
WRITERS: dict[str, tuple[Any, ReadingSection, bool]] = {
    "excel": (excel, AUTO, True),
    "excel, sep": (excel_with_separator, AUTO, True),
    "minimal": (module(), AUTO, True),
    "all": (module(quoting=csv.QUOTE_ALL, lineterminator="\n"), AUTO, True),
    "tabs": (module(delimiter="\t"), AUTO, True),
    "bars": (module(delimiter="|"), AUTO, True),
    "escapes": (module(doublequote=False, escapechar="\\"), BACKSLASH, True),
    "pandas": (pandas, AUTO, True),
    "spark": (spark, BACKSLASH, True),
    "athena": (athena, AUTO, True),
    "mac": (mac, AUTO, True),
    "spark, no config": (spark, AUTO, False),
    "no escapes": (without_escapes, AUTO, False),
}
SAID = [
    "hi",
    "é",
    "\U0001f642",
    ' "E10"',
    '5"',
    ", ",
    "; ",
    "|",
    "\t",
    "\\",
    '\\"',
    "\n",
    "\nagent: yes",
    "'",
    "\r",
    '",x',
    " ",
]


def random_rows(rng: random.Random) -> list[list[str]]:
    """Rows with a header; no cell ends with what the readers of lines strip."""
    columns = ["id", "note", "dialogue", "more"][: rng.randrange(3, 5)]
    rows = []
    for number in range(rng.randrange(1, 9)):
        said = "".join(rng.choices(SAID, k=rng.randrange(6)))
        note = "".join(rng.choices(SAID, k=rng.randrange(4))) + "."
        cells = {
            "id": f"c{number}",
            "note": note,
            "dialogue": f"customer: a{said}b",
            "more": f"m{number}",
        }
        rows.append([cells[column] for column in columns])
    return [columns, *rows]


def in_pieces(file: Any, reading: ReadingSection, size: Size) -> Iterator[Any]:
    for piece in cut(file, reading, size):
        yield from read_piece(file, piece, reading)


def lines_of(outcomes: Iterable[Any]) -> list[int] | None:
    """The lines of all records; None where the file ends with an error."""
    try:
        return [one.source.line for one in outcomes]
    except DataError:
        return None


def with_ids(outcomes: Iterable[Any]) -> list[Any]:
    settled = []
    for one in outcomes:
        is_record = isinstance(one, Conversation)
        settled.append(one._replace(id=one.id or derived_id(one)) if is_record else one)
    return settled


@pytest.mark.parametrize("writer", WRITERS)
def test_each_row_of_any_writer_is_one_conversation_or_the_file_ends(tmp_path, put, writer):
    write, reading, is_exact = WRITERS[writer]
    rng = random.Random(writer)
    seen: Counter[str] = Counter()
    for _ in range(40):
        columns, *rows = random_rows(rng)
        file = put("t", write([columns, *rows]))
        texts = {row[0]: row[columns.index("dialogue")] for row in rows}
        try:
            read = list(read_conversations([file], reading))
        except DataError:
            assert not is_exact
            seen["ends"] += 1
            continue
        seen["is read"] += 1
        (listed,) = list_inputs([str(tmp_path / "t")])
        for size in (Size(1, 1 << 30), Size(3, 1 << 30), Size(10**6, 60)):
            again = in_pieces(listed, reading, size)
            shown = [str(one).replace(str(tmp_path / "t"), "t") for one in with_ids(again)]
            assert shown == [str(one) for one in read]
        if is_exact:
            plain = [dict(zip(columns, row, strict=True)) for row in rows]
            lines = "".join(json.dumps(one) + "\n" for one in plain)
            expected = read_strictly([put("j", lines)], AUTO)
            assert [one[:2] + one[3:] for one in read] == [one[:2] + one[3:] for one in expected]
        else:
            assert len(read) == len(rows)
            assert all(one.id in texts for one in read if isinstance(one, Conversation))
    assert seen["is read"] > 2


def test_random_damage_is_the_same_whole_and_in_pieces(tmp_path: Path, put):
    rng = random.Random(29)
    writers = [write for write, _, _ in WRITERS.values()]
    for _ in range(80):
        content = bytearray(rng.choice(writers)(random_rows(rng)))
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(content))
            content[at : at + rng.randrange(2)] = bytes([rng.choice(b'"\n\r,;\t\\\xff\0 x')])
        reading = rng.choice([AUTO, BACKSLASH])
        size = rng.choice([Size(1, 1 << 30), Size(2, 1 << 30), Size(10**6, 40)])
        file = put("t", bytes(content))
        (listed,) = list_inputs([str(tmp_path / "t")])
        assert lines_of(read_conversations([file], reading)) == lines_of(
            in_pieces(listed, reading, size)
        )
