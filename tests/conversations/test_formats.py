"""Every format comes out as the same conversations."""

import gzip
import io
import json
import random
import tracemalloc
from types import SimpleNamespace

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from job.config.data_sections import ReadingSection
from job.conversations.read import read_conversations, read_strictly
from job.conversations.record import Conversation, Source, Turn

AUTO = ReadingSection()
HELLO = (Turn("customer", "Hello"), Turn("agent", "Hi, what is wrong?"))
TURNS = [{"role": "customer", "text": "Hello"}, {"role": "agent", "text": "Hi, what is wrong?"}]
TRANSCRIPT = "Customer: Hello\nAgent: Hi, what is wrong?"


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def dialog(*pairs, **more):
    log = [
        {"turn id": i, "user utterance": user, "system response": system}
        for i, (user, system) in enumerate(pairs)
    ]
    return {
        "original dialog id": "abc",
        "dialog index": 1,
        "original dialog info": {},
        "log": log,
        "prompt": [],
    } | more


def parquet_bytes(table):
    sink = io.BytesIO()
    parquet.write_table(pa.table(table), sink, row_group_size=2)
    return sink.getvalue()


def read_one(file, reading=AUTO):
    (conversation,) = read_strictly([file], reading)
    return conversation


def test_recap_lines_keep_turns_references_and_metadata(put):
    record = {
        "id": "a",
        "turns": TURNS,
        "summaries": ["One.", "Two."],
        "metadata": {"shop": 1},
        "queue": "web",
    }
    assert read_one(put("day.jsonl", lines(record))) == Conversation(
        "a", HELLO, Source("day.jsonl", 1), ("One.", "Two."), {"queue": "web", "shop": 1}
    )


def test_one_summary_is_one_reference_and_null_is_none(put):
    file = put(
        "day.jsonl",
        lines({"id": 7, "turns": TURNS, "summary": "S."}, {"turns": TURNS, "summary": None}),
    )
    first, second = read_strictly([file], AUTO)
    assert (first.id, first.references, second.references) == ("7", ("S.",), ())


def test_messages_are_turns_and_their_text_parts_are_joined(put):
    parts = [{"type": "text", "text": "Hi, what"}, "is wrong?"]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": parts},
    ]
    conversation = read_one(
        put("chat.jsonl", lines({"id": "m", "messages": messages, "summary": "S.", "model": "x"}))
    )
    assert conversation.turns == (
        Turn("system", "Be kind."),
        Turn("customer", "Hello"),
        Turn("agent", "Hi, what\nis wrong?"),
    )
    assert conversation.metadata == {"model": "x"}


def test_dialog_that_opens_with_the_agent_keeps_every_turn(put):
    file = put(
        "d.json",
        json.dumps(
            {"opens": dialog(("", "A1"), ("C1", "A2")), "ends": dialog(("C1", "A1"), ("C2", ""))}
        ),
    )
    opens, ends = read_strictly([file], AUTO)
    assert [turn.text for turn in opens.turns] == ["A1", "C1", "A2"]
    assert [turn.role for turn in opens.turns] == ["agent", "customer", "agent"]
    assert [turn.text for turn in ends.turns] == ["C1", "A1", "C2"]
    assert (opens.id, ends.source.line, ends.metadata) == (
        "opens",
        2,
        {"original dialog id": "abc", "dialog index": 1},
    )


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("info", "references"),
    [
        (
            {"summaries": {"abstractive_summaries": [["One.", "Two."], ["Three."]]}},
            ("One. Two.", "Three."),
        ),
        ({"summary": "One."}, ("One.",)),
        ({"summary": ["One.", "Two."]}, ("One.", "Two.")),
        ({"summaries": ["One."]}, ("One.",)),
        ({}, ()),
    ],
)
def test_dialog_references_come_from_its_info_as_object_or_as_text(put, info, references, as_text):
    one = dialog(("C", "A"), **{"original dialog info": json.dumps(info) if as_text else info})
    assert read_one(put("d.json", json.dumps({"k": one}, indent=1))).references == references
    assert read_one(put("d.jsonl", lines(one))).references == references


def test_dialog_lines_have_the_new_dialog_id_before_the_original(put):
    file = put(
        "d.jsonl",
        lines(dialog(("C", "A"), **{"new dialog id": "TweetSumm--1"}), dialog(("C", "A"))),
    )
    assert [one.id for one in read_strictly([file], AUTO)] == ["TweetSumm--1", "abc"]


def test_array_of_records_of_any_kind_is_read_by_position(put):
    records = [
        {"turns": TURNS},
        {"messages": [{"role": "user", "content": "x"}]},
        {"dialogue": TRANSCRIPT},
    ]
    conversations = read_strictly([put("all.json", json.dumps(records, indent=2))], AUTO)
    assert [one.source.line for one in conversations] == [1, 2, 3]
    assert conversations[0].turns == conversations[2].turns == HELLO


@pytest.mark.parametrize("text", ["[]", " [ ] \n", ""])
def test_empty_document_holds_no_records(put, text):
    assert list(read_conversations([put("none.json", text)], AUTO)) == []


def test_csv_and_tsv_keep_quoted_line_breaks_and_count_physical_lines(put):
    csv = (
        "\ufeffid,dialogue,summary,shop\r\n"
        'a,"Customer: Hello\r\nAgent: Hi, what is wrong?",S.,web\r\n'
        "b,,,\r\n"
    )
    with_tabs = (
        'id\tdialogue\tsummary\tshop\na\t"Customer: Hello\nAgent: Hi, what is wrong?"\tS.\tweb\n'
    )
    first, second = read_conversations([put("t.csv", csv)], AUTO)
    assert first == Conversation("a", HELLO, Source("t.csv", 2), ("S.",), {"shop": "web"})
    assert (second.source.line, second.reason) == (4, "nothing_to_summarize")
    assert read_one(put("t.tsv", with_tabs)) == Conversation(
        "a", HELLO, Source("t.tsv", 2), ("S.",), {"shop": "web"}
    )


def test_csv_cell_longer_than_the_csv_module_allows_by_default_is_read(put):
    long = "word " * 40_000
    assert read_one(put("t.csv", f'dialogue\n"Customer: {long}"\n')).turns == (
        Turn("customer", long.strip()),
    )


def test_transcript_and_summaries_may_be_json_lists_in_a_cell(put):
    rows = [["conversation", "summary"], [json.dumps(TURNS), json.dumps(["One.", "Two."])]]
    csv = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    conversation = read_one(put("t.csv", csv))
    assert (conversation.turns, conversation.references) == (HELLO, ("One.", "Two."))


def test_columns_of_the_config_name_the_columns_of_a_table(put):
    reading = ReadingSection(columns={"id": "nr", "conversation": "chat", "summary": "gist"})
    csv = put("t.csv", f'nr,chat,gist,id\n5,"{TRANSCRIPT}",S.,other\n')
    row = put("t.jsonl", lines({"nr": 5, "chat": TRANSCRIPT, "gist": "S.", "id": "other"}))
    for conversation in (read_one(csv, reading), read_one(row, reading)):
        assert (conversation.id, conversation.turns, conversation.references) == (
            "5",
            HELLO,
            ("S.",),
        )
        assert conversation.metadata == {"id": "other"}


def test_parquet_is_read_by_its_bytes_with_lists_and_rows_across_groups(put):
    table = {
        "id": [1, 2, 3],
        "dialogue": [TRANSCRIPT] * 3,
        "summary": [["One."], ["Two.", "Three."], []],
    }
    day = pa.array([0, 1, 2], pa.date32())
    conversations = read_strictly([put("p.bin", parquet_bytes(table | {"day": day}))], AUTO)
    assert [one.id for one in conversations] == ["1", "2", "3"]
    assert [one.references for one in conversations] == [("One.",), ("Two.", "Three."), ()]
    assert [one.source.line for one in conversations] == [1, 2, 3]
    assert conversations[1].metadata == {"day": "1970-01-02"}


def test_parquet_column_of_structs_is_a_list_of_turns(put):
    assert read_one(put("p.parquet", parquet_bytes({"conversation": [TURNS]}))).turns == HELLO


def test_parquet_of_a_chat_data_set_is_read_by_its_keys(put):
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi, what is wrong?"},
    ]
    file = put("p.parquet", parquet_bytes({"messages": [messages], "score": [float("nan")]}))
    assert read_one(file).turns == read_one(file, ReadingSection(format="messages")).turns == HELLO
    assert read_one(file, ReadingSection(columns={"conversation": "messages"})).metadata == {
        "score": None
    }


@pytest.mark.parametrize("name", ["plain.gz", "squeezed.txt"])
@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.compress, lambda data: data])
def test_compression_is_recognized_by_the_bytes_not_by_the_name(put, name, squeeze):
    for data in (lines({"turns": TURNS}).encode(), parquet_bytes({"dialogue": [TRANSCRIPT]})):
        assert read_one(put(name, squeeze(data))).turns == HELLO


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.compress])
def test_several_compressed_members_in_one_file_are_all_read(put, squeeze):
    data = b"".join(squeeze(lines({"id": name, "turns": TURNS}).encode()) for name in "abc")
    assert [one.id for one in read_strictly([put("x", data)], AUTO)] == ["a", "b", "c"]


def test_byte_order_mark_is_no_part_of_the_first_record(put):
    assert read_one(put("b.jsonl", "\ufeff" + lines({"turns": TURNS}))).turns == HELLO


def test_chosen_format_reads_only_that_format(put):
    both = {"turns": TURNS, "messages": [{"role": "user", "content": "Other"}]}
    file = put("both.jsonl", lines(both))
    assert read_one(file).turns == HELLO
    assert read_one(file, ReadingSection(format="messages")).turns == (Turn("customer", "Other"),)
    (bad,) = read_conversations([file], ReadingSection(format="dialogstudio"))
    assert bad.detail == "has no 'log'; found turns, messages"


def test_well_known_role_names_count_in_any_case(put):
    turns = [
        {"role": role, "text": "x"}
        for role in ("USER", "client", " Caller ", "human", "Assistant", "operator")
    ]
    roles = [turn.role for turn in read_one(put("r.jsonl", lines({"turns": turns}))).turns]
    assert roles == ["customer"] * 4 + ["agent"] * 2


def test_roles_of_the_config_come_before_the_well_known_names(put):
    reading = ReadingSection(roles={"Bot": "agent", "user": "system"})
    turns = [{"role": role, "text": "x"} for role in ("bot", "user", "client")]
    roles = [turn.role for turn in read_one(put("r.jsonl", lines({"turns": turns})), reading).turns]
    assert roles == ["agent", "system", "customer"]


@pytest.mark.parametrize("label", ["Jose\u0301", "JOS\u00c9", "\uff2a\uff4f\uff53\u00e9"])
def test_a_name_of_the_config_counts_however_it_is_encoded(put, label):
    text = f"{label}: a\nCustomer: b"
    reading = ReadingSection(roles={"Jos\u00e9": "agent"})
    (read,) = read_strictly([put("a.jsonl", json.dumps({"dialogue": text}))], reading)
    assert [turn.role for turn in read.turns] == ["agent", "customer"]


def test_as_written_keeps_any_label_on_one_line(put):
    turns = [{"role": "Amanda\nuser", "text": "x"}, {"role": "user", "text": "y"}]
    reading = ReadingSection(roles="as_written")
    assert [
        turn.role for turn in read_one(put("r.jsonl", lines({"turns": turns})), reading).turns
    ] == [
        "Amanda user",
        "user",
    ]


def test_line_without_a_speaker_goes_on_with_the_turn_above(put):
    transcript = "#Person1#: Look at\n  https://x.co/a at 12:30\r\n\nnow\nDr. Ann Lee: Yes:\n- a"
    conversation = read_one(
        put("t.jsonl", lines({"dialogue": transcript})),
        ReadingSection(roles="as_written", format="table"),
    )
    assert conversation.turns == (
        Turn("#Person1#", "Look at\n  https://x.co/a at 12:30\n\nnow"),
        Turn("Dr. Ann Lee", "Yes:\n- a"),
    )


def test_id_from_the_content_is_stable_and_repeats_stay_apart(put):
    other = {"turns": [{"role": "customer", "text": "Bye"}]}
    first = [
        one.id for one in read_strictly([put("a.jsonl", lines({"turns": TURNS}, other))], AUTO)
    ]
    again = [
        one.id
        for one in read_strictly(
            [put("b.jsonl", lines(other, {"turns": TURNS}, *[{"turns": TURNS}] * 2))], AUTO
        )
    ]
    assert again == [first[1], first[0], f"{first[0]}-2", f"{first[0]}-3"]


def test_random_conversations_come_back_the_same_from_every_format(put):
    rng = random.Random(5)
    alphabet = "aé 😊,;\t'\\{}[]|^@<>&0"
    for _ in range(60):
        turns = [
            Turn(
                rng.choice(["customer", "agent"]),
                "x" + "".join(rng.choices(alphabet, k=rng.randrange(20))) + "x",
            )
            for _ in range(rng.randrange(1, 6))
        ]
        objects = [{"role": turn.role, "text": turn.text} for turn in turns]
        transcript = "\n".join(f"{turn.role}: {turn.text}" for turn in turns)
        quoted = transcript.replace('"', '""')
        for content in (
            lines({"turns": objects}),
            json.dumps([{"turns": objects}], ensure_ascii=False),
            lines({"messages": [{"role": one["role"], "content": one["text"]} for one in objects]}),
            f'dialogue,n\n"{quoted}",1\n',
            f'n\tdialogue\n1\t"{quoted}"\n',
            parquet_bytes({"dialogue": [transcript]}),
        ):
            assert list(read_one(put("any", content)).turns) == turns


class MadeWhileRead(io.RawIOBase):
    """A file that is made while it is read, as a store that streams does."""

    def __init__(self, pieces):
        self._pieces, self._rest = iter(pieces), b""

    def open(self, key):
        return self

    def read(self, size=-1):
        self._rest = self._rest or next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@pytest.mark.parametrize("shape", ["lines", "document", "csv"])
def test_memory_does_not_grow_with_the_file(shape):
    turns = [{"role": "customer", "text": "word" * 5000}]
    record = json.dumps({"turns": turns}).encode()
    head, piece, tail = {
        "lines": (b"", record + b"\n", b""),
        "document": (b"[" + record, b"," + record, b"]"),
        "csv": (b"dialogue\n", b"Customer: " + b"word" * 5000 + b"\n", b""),
    }[shape]
    store = MadeWhileRead(part for part in [head, *[piece] * 1200, tail] if part)
    tracemalloc.start()
    try:
        count = sum(
            isinstance(outcome, Conversation)
            for outcome in read_conversations(
                [SimpleNamespace(uri="x", store=store, key="x")], AUTO
            )
        )
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count >= 1200  # 24 MB
    assert peak_bytes < 14 << 20
