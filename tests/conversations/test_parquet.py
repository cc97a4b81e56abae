"""Claims about Parquet: values that Python has no type for, text that is called binary, memory."""

import datetime
import io
import random
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from job.config.data_sections import ReadingSection
from job.conversations import parquet_rows
from job.conversations.pieces import Size, cut, read_piece
from job.conversations.read import read_conversations, read_strictly
from job.conversations.record import Conversation, Reject
from job.errors import DataError
from job.storage.open import list_inputs

AUTO = ReadingSection()
SAID = "customer: Hello\nagent: Hi"


def written(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(table) if isinstance(table, dict) else table, sink, **options)
    return sink.getvalue()


def with_column(values: pa.Array) -> bytes:
    return written(
        {
            "id": [f"c{n}" for n in range(len(values))],
            "dialogue": [SAID] * len(values),
            "closed": values,
        }
    )


def moments(unit: str, zone: str | None, *values: int) -> pa.Array:
    return pa.array(values, pa.int64()).view(pa.timestamp(unit, zone))


@pytest.mark.parametrize(
    ("values", "carried"),
    [
        (moments("us", "Europe/Berlin", 253402300799_000000, 0),
         ["9999-12-31T23:59:59+00:00", "1970-01-01T01:00:00+01:00"]),
        (moments("us", "America/New_York", -62135596800_000000), ["0001-01-01T00:00:00+00:00"]),
        (moments("us", None, 253402300800_000000, 253402300800_500000),
         ["10000-01-01T00:00:00", "10000-01-01T00:00:00.5"]),
        (moments("s", None, -99999999999), ["-1199-02-15T14:13:21"]),
        (moments("ms", "Mars/Olympus", 1, 1000),
         ["1970-01-01T00:00:00.001+00:00", "1970-01-01T00:00:01+00:00"]),
        (moments("ns", "UTC", 1), ["1970-01-01T00:00:00.000000001+00:00"]),
        (moments("ms", None, 2**62), [f"{2**62} ms"]),
        (pa.array([3_000_000, -3_000_000, 0], pa.int32()).view(pa.date32()),
         ["10183-09-21", "-6244-04-12", "1970-01-01"]),
        (pa.array([2**60], pa.int64()).view(pa.duration("s")), [f"{2**60} s"]),
        (pa.array([[datetime.datetime(2026, 1, 1)]]).cast(pa.list_(pa.timestamp("us", "No/Zone"))),
         [["2026-01-01T00:00:00+00:00"]]),
        (pa.StructArray.from_arrays([moments("us", "No/Zone", 0), pa.array([1])], ["at", "n"]),
         [{"at": "1970-01-01T00:00:00+00:00", "n": 1}]),
        (moments("us", "No/Zone", 0, 0).dictionary_encode(), ["1970-01-01T00:00:00+00:00"] * 2),
    ],
)  # fmt: skip
def test_moment_that_python_cannot_hold_is_carried_as_text(put, values, carried):
    read = read_strictly([put("p", with_column(values))], AUTO)
    assert [one.metadata["closed"] for one in read] == carried
    assert all(len(one.turns) == 2 for one in read)


BINARY = [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]


@pytest.mark.parametrize("type", BINARY)
def test_text_in_binary_columns_is_text(put, type):
    def column(*values: str) -> pa.Array:
        return pa.array([value.encode() for value in values]).cast(type)

    table = {
        "id": column("conv-1"),
        "dialogue": column("customer: déçu"),
        "summary": column("S."),
        "n": column("é"),
    }
    (read,) = read_strictly([put("p", written(table))], AUTO)
    assert (read.id, read.turns[0].text, read.references, read.metadata) == (
        "conv-1",
        "déçu",
        ("S.",),
        {"n": "é"},
    )


def test_text_in_binary_members_of_turns_is_text(put):
    turns = pa.array([[{"role": b"customer", "text": b"Hello"}]])
    (read,) = read_strictly([put("p", written({"id": [b"a"], "turns": turns}))], AUTO)
    assert (read.id, read.turns[0]) == ("a", ("customer", "Hello"))


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"a\0b", bytes(range(16))])
def test_other_bytes_are_bad_where_text_is_wanted_and_hex_elsewhere(put, raw):
    def only(table: dict[str, Any]) -> Any:
        return next(read_conversations([put("p", written(table))], AUTO))

    said = SAID.encode()
    wanted = "id is binary, wanted text or a whole number"
    assert only({"id": [raw], "dialogue": [said]}).detail == wanted
    wanted = "column 'dialogue' is binary, wanted text or a list of turns"
    assert only({"dialogue": [raw]}).detail == wanted
    wanted = "summary holds binary, wanted text"
    assert only({"dialogue": [said], "summary": [raw]}).detail == wanted
    turn = [{"role": b"agent", "text": raw}]
    assert only({"turns": [turn]}).detail == "turn 1: text is binary, wanted text"
    assert only({"turns": [[{"role": raw, "text": b"a"}]]}).detail == "role is binary, wanted text"
    assert only({"dialogue": [said], "key": [raw], "deep": [[{"k": raw}]]}).metadata == {
        "key": raw.hex(),
        "deep": [{"k": raw.hex()}],
    }


def test_float_ids_that_are_whole_numbers_are_read_without_their_point(put):
    ids = [1.0, None, 1234.0, 1.5, 1e300]
    read = list(read_conversations([put("p", written({"id": ids, "dialogue": [SAID] * 5}))], AUTO))
    assert [one.id for one in read[:1] + read[2:3]] == ["1", "1234"]
    assert isinstance(read[1], Conversation)
    assert [one.detail for one in read[3:]] == [
        "id is the number 1.5, wanted text or a whole number",
        "id is the number 1e+300, whose last digits are lost; write ids as text or integers",
    ]


def test_maps_and_json_text_are_metadata(put):
    text = {"dialogue": [SAID] * 2, "metadata": ['{"k": 1}', None]}
    assert [one.metadata for one in read_strictly([put("p", written(text))], AUTO)] == [
        {"k": 1},
        {},
    ]
    pairs = pa.array([[("k", 1)], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    maps = read_strictly([put("p", written({"dialogue": [SAID] * 2, "metadata": pairs}))], AUTO)
    assert [one.metadata for one in maps] == [{"k": 1}, {"metadata": [["k", 1], ["k", 2]]}]


def test_columns_in_capitals_are_found(put):
    table = {"ID": ["a"], "Dialogue": [SAID], "Summary": ["S."]}
    (read,) = read_strictly([put("p", written(table))], AUTO)
    assert (read.id, read.references, read.metadata) == ("a", ("S.",), {})


def test_repeated_columns_and_fields_are_refused(put):
    turns = pa.array([[{"role": "agent", "text": "a"}]])
    columns = pa.Table.from_arrays([turns, turns], names=["turns", "turns"])
    with pytest.raises(DataError, match=r"^p: column 'turns' appears twice"):
        list(read_conversations([put("p", written(columns))], AUTO))
    fields = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["k", "k"])
    (bad,) = read_conversations([put("p", with_column(fields))], AUTO)
    assert bad.detail == "an object has two fields of one name; its fields are k, k"


def rows_of(data: bytes) -> list[Any]:
    return [row for _, row in parquet_rows.row_group_rows(io.BytesIO(data), "p", AUTO, None)]


PREFIXES = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}


@pytest.mark.parametrize("options", [{}, PREFIXES], ids=["dictionary", "prefixes"])
def test_text_stored_once_for_many_rows_takes_the_memory_of_a_batch(monkeypatch, options):
    text = "customer: " + "x" * (1 << 17)
    data = written({"dialogue": [text] * 256}, compression="zstd", **options)
    assert len(data) < 100_000  # and 32 MiB are read from them
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 1 << 20)
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        read = parquet_rows.row_group_rows(io.BytesIO(data), "p", AUTO, None)
        assert sum(len(row["dialogue"]) == len(text) for _, row in read) == 256
        assert pool.max_memory() < 8 << 20
    finally:
        pa.set_memory_pool(before)


def test_row_that_is_too_large_is_bad_and_its_neighbours_are_read(monkeypatch):
    monkeypatch.setattr(parquet_rows, "MAX_ROW_BYTES", 1 << 20)
    large = "customer: " + "x" * (1 << 20)
    for column in ([SAID, large, SAID], pa.array([SAID, large, SAID]).dictionary_encode()):
        first, bad, last = rows_of(written({"dialogue": column}))
        assert (first["dialogue"], last["dialogue"]) == (SAID, SAID)
        assert bad.detail == "the row is larger than 1048576 bytes"


def test_what_does_not_fit_into_memory_is_the_fault_of_the_file(monkeypatch, put):
    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError("malloc of size 16106127360 failed")

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", fail)
    with pytest.raises(DataError, match=r"^p: its values do not fit into memory \(malloc of size"):
        list(read_conversations([put("p", written({"dialogue": [SAID]}))], AUTO))


def random_value(rng: random.Random) -> Any:
    zone = rng.choice([None, "UTC", "Asia/Tokyo", "No/Zone"])
    far = moments("us", zone, rng.randrange(-(2**62), 2**62))
    return rng.choice(
        [
            pa.array([rng.random()]),
            pa.array([uuid.UUID(int=rng.getrandbits(128)).bytes], pa.binary(16)),
            pa.array([rng.randbytes(rng.randrange(5))]),
            pa.array(["é" * rng.randrange(4)]),
            pa.array([None], pa.string()),
            pa.array([[rng.randrange(9)] * rng.randrange(3)]),
            pa.array([[("k", rng.randrange(9))]], pa.map_(pa.string(), pa.int32())),
            pa.array([datetime.timedelta(seconds=rng.randrange(10**9))]),
            far,
            pa.StructArray.from_arrays([far, pa.array([True])], names=["at", "is"]),
        ]
    )


def test_random_tables_give_each_row_once_whole_and_in_pieces(tmp_path: Path, put):
    rng = random.Random(3)
    for _ in range(40):
        count = rng.randrange(1, 12)
        texts = [f"customer: {n} é\nagent: {rng.random()}" for n in range(count)]
        columns: dict[str, Any] = {"id": [f"c{n}" for n in range(count)], "dialogue": texts}
        if rng.random() < 0.3:
            columns = {name: [text.encode() for text in column] for name, column in columns.items()}
        for number in range(rng.randrange(4)):
            columns[f"x{number}"] = pa.concat_arrays([random_value(rng)] * count)
        compression = rng.choice(["zstd", "none"])
        data = written(columns, row_group_size=rng.randrange(1, 5), compression=compression)
        read = list(read_conversations([put("p", data)], AUTO))
        assert not any(isinstance(one, Reject) for one in read)
        assert [(one.id, len(one.turns)) for one in read] == [(f"c{n}", 2) for n in range(count)]
        assert [one.turns[0].text for one in read] == [f"{n} é" for n in range(count)]
        (file,) = list_inputs([str(tmp_path / "p")])
        pieces: list[Any] = []
        for piece in cut(file, AUTO, Size(3, 1 << 30)):
            pieces += read_piece(file, piece, AUTO)
        assert [one[:2] + one[3:5] for one in pieces] == [one[:2] + one[3:5] for one in read]
