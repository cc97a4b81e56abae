"""Claims about JSON documents: each record once, however its writer lays them out."""

import io
import json
import random
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from job.config.data_sections import ReadingSection
from job.conversations.pieces import Size, cut, read_piece
from job.conversations.read import derived_id, read_conversations, read_strictly
from job.conversations.record import Conversation, Reject
from job.errors import DataError
from job.storage.open import list_inputs

AUTO = ReadingSection()
SIZES = [Size(1, 1 << 30), Size(3, 1 << 30), Size(10**6, 100), Size(10**6, 1 << 30)]


def record(name: object, **more: Any) -> dict[str, Any]:
    return {"id": str(name), "turns": [{"role": "customer", "text": f"hi {name}"}], **more}


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def ids(file: Any, reading: ReadingSection = AUTO) -> list[str]:
    return [one.id for one in read_strictly([file], reading)]


A, B = record("a"), record("b")
# Not by json.dumps, which would take a third of a second of each collection of the tests.
MANY_TURNS = f'{{"id": "a", "turns": [{",".join([pretty(A["turns"][0])] * 40_000)}]}}'
PROMPTED = {"metadata": {"prompt": "v3", "queue": "returns"}}


@pytest.mark.parametrize("format", ["auto", "recap"])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (json.dumps(PROMPTED | A), ["a"]),
        (json.dumps(PROMPTED | A) + "\n" + json.dumps(PROMPTED | B) + "\n", ["a", "b"]),
        (json.dumps({"metadata": {"log": "x", "x" * (2 << 20): 1}} | A), ["a"]),
        (json.dumps({"log": A} | A) + "\n" + json.dumps(B), ["a", "b"]),
        (pretty(A), ["a"]),
        (pretty(PROMPTED | A), ["a"]),
        (pretty(A) + "\n" + pretty(B) + "\n", ["a", "b"]),
        (pretty(A) + pretty(B), ["a", "b"]),
        ("\ufeff" + pretty(A) + "\n\ufeff" + pretty(B), ["a", "b"]),
        (json.dumps(A) + "\n\ufeff" + json.dumps(B) + "\n\ufeff\n", ["a", "b"]),
        (json.dumps({"data": [A, B]}), ["a", "b"]),
        (pretty({"conversations": [A, B]}), ["a", "b"]),
        ('{"data": [\n' + ",\n".join(map(json.dumps, (A, B))) + "\n]}\n", ["a", "b"]),
        (
            pretty(
                {"count": 2, "next": None, "links": [], "records": [A, B], "end": {"data": [1]}}
            ),
            ["a", "b"],
        ),
        (
            json.dumps({"padding": "x" * (600 << 10), "records": [A, B], "more": [1, {"k": []}]}),
            ["a", "b"],
        ),
        (json.dumps({"a": {"turns": A["turns"]}, "b": {"turns": B["turns"]}}), ["a", "b"]),
        (pretty([A, B]), ["a", "b"]),
        (MANY_TURNS, ["a"]),
        (json.dumps(record("a", related=[B])), ["a"]),
        (pretty(record("a", related=[B], older=[B])), ["a"]),
        ('{"id": "a", "turns":\n[{"role": "agent", "text": "x"}]}', ["a"]),
    ],
)
def test_each_layout_gives_its_records(put, content, wanted, format):
    assert ids(put("d.json", content), ReadingSection(format=format)) == wanted


def test_records_of_other_formats_are_known_in_every_layout(put):
    chat = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
    row = {"id": "a", "transcript": "agent: hi"}
    own = {"key": "a", "chat": {"events": [{"who": "agent", "body": "hi"}]}}
    turns = {"list": "chat.events", "role": "who", "text": "body"}
    paths = ReadingSection(turns=turns, columns={"id": "key"})
    for one, reading in ((chat, AUTO), (row, AUTO), (own, paths)):
        for content in (
            pretty(one),
            pretty(one) * 2,
            json.dumps({"items": [one]}),
            pretty({"n": 1, "items": [one] * 2}),
        ):
            read = list(read_conversations([put("d.json", content)], reading))
            assert isinstance(read[0], Conversation), content
            assert len(read) <= 2


@pytest.mark.parametrize("text", [pretty, json.dumps])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"train": [A], "validation": [B]},
         "d.json: holds several lists of records (train, validation) and nothing says which to "
         "read; write each to a file of its own"),
        ({"train": [A], "padding": "x" * (2 << 20), "test": [B]},
         "d.json: holds several lists of records (train, test) and nothing says which to read; "
         "write each to a file of its own"),
        ({"id": {"0": "a", "1": "b"}, "dialogue": {"0": "agent: x", "1": "agent: y"}},
         "d.json: is a table written by columns; write it by rows, in pandas with "
         'to_json(…, orient="records", lines=True)'),
        ({"columns": ["id", "dialogue"], "index": [0], "data": [["a", "agent: x"]]},
         "d.json: is a table written by columns; write it by rows, in pandas with "
         'to_json(…, orient="records", lines=True)'),
    ],
)  # fmt: skip
def test_ambiguous_object_ends_the_file(put, value, message, text):
    with pytest.raises(DataError) as caught:
        list(read_conversations([put("d.json", text(value))], AUTO))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value",
    [
        {"files": {"a": {"size": 1}}, "counts": {"records": 3}},  # recap's own manifest
        {
            "id": 1,
            "subject": "Kettle",
            "entries": [{"by": 7, "body": "leaks"}, {"by": 9, "body": "sorry"}],
        },
        {"turns": []},
    ],
)
def test_object_without_a_conversation_is_one_bad_record(put, value):
    for content in (pretty(value), json.dumps(value)):
        (bad,) = read_conversations([put("d.json", content)], AUTO)
        assert isinstance(bad, Reject)


@pytest.mark.parametrize("end", [40, -3, -30])
def test_document_that_is_cut_short_ends_the_file(put, end):
    for content in (pretty(A), pretty({"data": [A, B]}), pretty(A) + pretty(B), pretty([A, B])):
        with pytest.raises(DataError, match=r"^d\.json: the JSON breaks after [012] whole records"):
            list(read_conversations([put("d.json", content[:end])], AUTO))


@pytest.mark.parametrize(
    "first",
    [
        'ole": "customer", "text": "cut"}]}',
        'd": "x", "turns": [{"role": "customer", "text": "Customer: cut"}]}',
        ': "x", "summary": "S.", "dialogue": "Customer: cut"}',
        "Customer: cut",
        "# exported 2026",
        "// a\n// b",
        '{"id": "x", "tur',
        "{",
    ],
)
def test_first_line_that_is_no_record_costs_one_record(put, first):
    file = put("d.jsonl", f"{first}\n{json.dumps(A)}\n{json.dumps(B)}\n")
    read = list(read_conversations([file], AUTO))
    bad = len(first.split("\n"))
    assert [type(one) for one in read] == [Reject] * bad + [Conversation] * 2


def test_header_that_begins_like_json_is_a_table_by_the_config(put):
    for header in (
        "[1],dialogue",
        "[id],dialogue",
        '["a"],dialogue',
        "{id},dialogue",
        '{"id"},dialogue',
        "[],dialogue",
    ):
        file = put("t.csv", f"{header}\nx,Agent: a\n")
        (read,) = read_strictly([file], ReadingSection(format="table"))
        assert read.turns[0].text == "a"
    (named,) = read_strictly([put("t.csv", "[ID],dialogue\nx,Agent: a\n")], AUTO)
    assert named.metadata == {"[ID]": "x"}


def test_rows_as_json_are_read_with_the_format_table(put):
    reading = ReadingSection(format="table")
    row = {"id": "a", "dialogue": "agent: hi"}
    for content in (
        json.dumps(row),
        pretty(row),
        json.dumps([row]),
        pretty([row]),
        json.dumps(row) + "\n{broken",
    ):
        read = list(read_conversations([put("d", content)], reading))
        assert read[0].id == "a"


def test_whole_float_is_an_id_and_another_is_shown(put):
    read = list(
        read_conversations(
            [
                put(
                    "d",
                    "".join(f'{{"id": {n}, "dialogue": "agent: a"}}\n' for n in ("7.0", "7.25")),
                )
            ],
            AUTO,
        )
    )
    assert (read[0].id, read[1].detail) == (
        "7",
        "id is the number 7.25, wanted text or a whole number",
    )


def test_turn_of_characters_without_width_is_nothing_to_summarize(put):
    turns = [{"role": "agent", "text": "\u200b\u200d\ufeff \u00ad"}]
    (bad,) = read_conversations([put("d", json.dumps({"turns": turns}))], AUTO)
    assert bad.reason == "nothing_to_summarize"
    joined = [{"role": "agent", "text": "\u200b👩\u200d👧"}]
    assert len(read_strictly([put("d", json.dumps({"turns": joined}))], AUTO)) == 1


class MadeWhileRead(io.RawIOBase):
    """A file that is made while it is read."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), b""

    def open(self, key: str) -> "MadeWhileRead":
        return self

    def read(self, size: int = -1) -> bytes:
        self._rest = self._rest or next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@pytest.mark.parametrize("shape", ["member", "values", "passed"])
def test_memory_does_not_grow_with_a_document(shape):
    one = pretty(record("x" * 20_000, id=None)).encode()
    head, piece, tail = {
        "member": (b'{\n"data": [' + one, b"," + one, b"]}"),
        "values": (one, one, one),
        "passed": (
            b'{"data": [' + one + b'], "more": [1',
            b"," + json.dumps("y" * 20_000).encode(),
            b"]}",
        ),
    }[shape]
    store = MadeWhileRead([head, *[piece] * 700, tail])
    tracemalloc.start()
    try:
        file: Any = SimpleNamespace(uri="x", store=store, key="x")
        count = sum(1 for _ in read_conversations([file], AUTO))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == {"member": 701, "values": 702, "passed": 1}[shape]  # of 14 MB
    assert peak_bytes < 11 << 20


# What other programs write.


def stringify(value: Any) -> str:
    """As JSON.stringify does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def lay_out(rng: random.Random, records: list[dict[str, Any]]) -> str:
    one = rng.choice([pretty, stringify, json.dumps, lambda value: json.dumps(value, indent="\t")])
    space = rng.choice(["", "\n", " \r\n", "\n\n"])
    layout = rng.choice(["lines", "values", "array", "member", "later member", "object"])
    if layout == "lines":
        return "\n".join(map(rng.choice([stringify, json.dumps]), records)) + space
    if layout == "values":
        return "\n".join(map(pretty, records)) + space
    if layout == "array":
        return one(records) + space
    if layout == "object":
        return one({each["id"]: each for each in records}) + space
    before = {"count": len(records), "links": {"self": "x"}, "tags": ["é", []]}
    if layout == "member":
        before = {}
    after = {"next": None, "errors": [], "more": [[1], {"x": "}"}]} if rng.random() < 0.5 else {}
    return one(before | {rng.choice(["data", "tickets", "é"]): records} | after) + space


def test_random_documents_give_each_record_once_whole_and_in_pieces(tmp_path: Path, put):
    rng = random.Random(17)
    for _ in range(150):
        records = []
        for number in range(rng.randrange(1, 8)):
            more = {
                "metadata": rng.choice([{}, {"prompt": "{["}, {"log": [{}]}]),
                "x": rng.choice([[], "]}", [{"k": 1}], 7]),
            }
            turns = [
                {
                    "role": rng.choice(["customer", "agent"]),
                    "text": rng.choice(['"é\n{', "🙂", "a, b"]),
                }
                for _ in range(3)
            ]
            parts = [("id", f"c{number}"), ("turns", turns), *more.items()]
            rng.shuffle(parts)
            records.append(dict(parts))
        mark = rng.choice(["", "\ufeff"])
        content = mark + lay_out(rng, records)
        read = read_strictly([put("d", content)], AUTO)
        assert [one.id for one in read] == [one["id"] for one in records], content
        assert [[turn.text for turn in one.turns] for one in read] == [
            [turn["text"] for turn in one["turns"]] for one in records
        ]
        (file,) = list_inputs([str(tmp_path / "d")])
        size = rng.choice(SIZES)
        pieces = [one for piece in cut(file, AUTO, size) for one in read_piece(file, piece, AUTO)]
        assert [one[:2] + one[3:5] for one in pieces] == [one[:2] + one[3:5] for one in read]
        assert [one.source.line for one in pieces] == [one.source.line for one in read]


def test_random_damage_is_the_same_whole_and_in_pieces(tmp_path: Path, put):
    rng = random.Random(23)
    for _ in range(150):
        content = bytearray(lay_out(rng, [record(n) for n in range(4)]).encode())
        for _ in range(rng.randrange(1, 3)):
            content[rng.randrange(len(content))] = rng.choice(b'{}[]",:\n x\xff')
        file = put("d", bytes(content))
        (listed,) = list_inputs([str(tmp_path / "d")])
        try:
            read: list[Any] | None = list(read_conversations([file], AUTO))
        except DataError:
            read = None
        try:
            pieces: list[Any] | None = [
                one
                for piece in cut(listed, AUTO, rng.choice(SIZES))
                for one in read_piece(listed, piece, AUTO)
            ]
        except DataError:
            pieces = None
        assert (read is None) == (pieces is None)
        if read is not None and pieces is not None:
            assert [places(one) for one in pieces] == [places(one) for one in read]


def places(outcome: Any) -> tuple[Any, ...]:
    if isinstance(outcome, Reject):
        return (outcome.source.line, outcome.reason if "stands at" not in outcome.detail else "")
    return (outcome.source.line, outcome.id or derived_id(outcome))
