"""Every record has one outcome, a reject names its fault, and an unreadable file ends with 65."""

import gzip
import io
import json
import random
from collections import Counter

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from job.config.data_sections import ReadingSection
from job.conversations.draft import RecordError
from job.conversations.json_document import iterate_document
from job.conversations.json_layout import Layout
from job.conversations.read import read_conversations, read_strictly
from job.conversations.record import Conversation, Reject
from job.conversations.rows import json_lines
from job.errors import DataError, ExitCode

AUTO = ReadingSection()
TURNS = [{"role": "customer", "text": "Hello"}]
GOOD = json.dumps({"id": "good", "turns": TURNS})
UNKNOWN_ROLE = (
    "role 'bot' is not one of customer, agent, system; map it (data.roles: {bot: agent}), leave "
    "its turns out (data.drop_roles: [bot]), or keep all labels (data.roles: as_written)"
)


def turns(*texts, role="customer"):
    return json.dumps({"id": "x", "turns": [{"role": role, "text": text} for text in texts]})


def outcomes(file, reading=AUTO):
    return list(read_conversations([file], reading))


@pytest.mark.parametrize(
    ("line", "identity", "reason", "detail"),
    [
        ('{"id": "x", "turns": [', None, "invalid_record",
         "not JSON: Expecting value at column 23"),
        ("Customer: hi", None, "invalid_record", "not JSON: Expecting value at column 1"),
        ("[1]", None, "invalid_record", "the record is a list, wanted an object"),
        ("17", None, "invalid_record", "the record is a number, wanted an object"),
        ('{"text": "hi"}', None, "invalid_record",
         "has none of turns, messages, log, dialogue, conversation, transcript, nor another "
         "format's keys; found text; name the text (data.columns: {conversation: …}) or the list "
         "of turns (data.turns: {list: …})"),
        ('{"id": "x", "turns": []}', "x", "nothing_to_summarize", "it has no turns"),
        (turns(" ", "\n"), "x", "nothing_to_summarize", "no turn has any text"),
        ('{"id": "x", "turns": "hi"}', "x", "invalid_record",
         "turns is text, wanted a list of turns"),
        ('{"id": "x", "turns": ["hi"]}', "x", "invalid_record",
         "turn 1 is text: line 1 of the conversation has no speaker: 'hi'; "
         "wanted lines of 'Speaker: text'"),
        ('{"turns": [{"role": "agent"}]}', None, "invalid_record",
         "turn 1 has no 'text'; found role; name its keys: data.turns: {role: …, text: …}"),
        ('{"turns": [{"text": "hi"}]}', None, "invalid_record",
         "turn 1 has no 'role'; found text; name its keys: data.turns: {role: …, text: …}"),
        (turns("hi", 5), "x", "invalid_record", "turn 2: text is a number, wanted text"),
        (turns(None), "x", "invalid_record", "turn 1: text is null, wanted text"),
        (turns("hi", role="bot"), "x", "invalid_record",
         UNKNOWN_ROLE),
        (turns("hi", role=1.5), "x", "invalid_record", "role is a number, wanted text"),
        (turns("hi", role=" "), "x", "invalid_record", "role has 0 characters, wanted 1 to 100"),
        ('{"id": true, "turns": []}', None, "invalid_record",
         "id is true or false, wanted text or a whole number"),
        ('{"id": [1], "turns": []}', None, "invalid_record",
         "id is a list, wanted text or a whole number"),
        ('{"id": "x", "turns": [{"role": "agent", "text": "a"}], "summary": 5}', "x",
         "invalid_record", "summary holds a number, wanted text"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]}',
         None, "invalid_record",
         "turn 1: content holds a part of type 'image_url', wanted text parts"),
        ('{"log": [{"turn id": 1}]}', None, "invalid_record",
         "log item 1 has neither 'user utterance' nor 'system response'; found turn id"),
        ('{"log": [{"user utterance": 5}]}', None, "invalid_record",
         "log item 1: user utterance is a number, wanted text"),
        ('{"log": [], "original dialog info": "{"}', None, "invalid_record",
         "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ('{"dialogue": "Hello there"}', None, "invalid_record",
         "line 1 of the conversation has no speaker: 'Hello there'; "
         "wanted lines of 'Speaker: text'"),
        ('{"dialogue": 5}', None, "invalid_record",
         "column 'dialogue' is a number, wanted text or a list of turns"),
        ('{"dialogue": null}', None, "nothing_to_summarize", "it has no turns"),
        ("[" * 5000 + "]" * 5000, None, "invalid_record", "nested more than 100 deep"),
        ('{"id": "x", "turns": [], "more": ' + "[" * 200 + "]" * 200 + "}", None, "invalid_record",
         "nested more than 100 deep"),
        ('{"id": ' + "9" * 5000 + "}", None, "invalid_record", None),
    ],
)  # fmt: skip
def test_bad_line_is_named_and_its_neighbours_are_read(put, line, identity, reason, detail):
    first, bad, last = outcomes(
        put("day.jsonl", f'{turns("hi")[:-1]}, "id": 1}}\n{line}\n\n{GOOD}\n')
    )
    assert isinstance(first, Conversation)
    assert (last.id, last.source.line) == ("good", 4)
    assert isinstance(bad, Reject)
    assert (bad.id, bad.reason, bad.source.line) == (identity, reason, 2)
    assert detail is None or bad.detail == detail


def test_bad_record_reads_as_source_and_remedy(put):
    (bad,) = outcomes(put("day.jsonl", turns("hi", role="bot")))
    assert str(bad) == f"day.jsonl line 1: {UNKNOWN_ROLE}"


def test_byte_that_is_not_utf8_spoils_its_line_only(put):
    data = (
        turns("café").encode()
        + b"\n"
        + b'{"turns": [{"role": "agent", "text": "caf\xe9"}]}\n'
        + GOOD.encode()
    )
    bad = outcomes(put("day.jsonl", data))[1]
    assert bad.detail == "byte 0xe9 at character 42 is not UTF-8; save the file as UTF-8"
    assert [type(one) for one in outcomes(put("day.jsonl", data))] == [
        Conversation,
        Reject,
        Conversation,
    ]


def test_byte_that_is_not_utf8_spoils_its_row_and_its_dialog_only(put):
    rows_read = outcomes(put("t.csv", b"dialogue,id\nAgent: caf\xe9,1\nAgent: cafe,2\n"))
    assert rows_read[0].detail == (
        "column 'dialogue': byte 0xe9 at character 11 is not UTF-8; save the file as UTF-8, "
        "or name its encoding (data.csv.encoding)"
    )
    log = b'{"log": [{"user utterance": "caf%s"}]}'
    dialogs = outcomes(put("d.json", b'{"a": ' + log % b"\xe9" + b', "b": ' + log % b"" + b"}"))
    assert (
        [type(one) for one in dialogs] == [type(one) for one in rows_read] == [Reject, Conversation]
    )
    assert dialogs[0].detail.startswith("byte 0xe9 at character 33 is not UTF-8")


def test_byte_that_is_not_utf8_in_parquet_spoils_its_row_only(put):
    cells = pa.array([b"Agent: a", b"Agent: \xe9", b"Agent: c"], pa.binary()).view(pa.string())
    sink = io.BytesIO()
    parquet.write_table(pa.table({"dialogue": cells}), sink)
    read = outcomes(put("p.parquet", sink.getvalue()))
    assert [type(one) for one in read] == [Conversation, Reject, Conversation]
    assert read[1].detail == "byte 0xe9 at position 8 of a text is not UTF-8"


def test_half_an_emoji_or_nul_becomes_a_replacement_character(put):
    line = (
        '{"turns": [{"role": "agent", "text": "a\\ud83d b\\u0000 \\ud83d\\ude00"}], '
        '"m\\udc00": ["\\udfff"]}'
    )
    (conversation,) = outcomes(put("day.jsonl", line))
    assert conversation.turns[0].text == "a\ufffd b\ufffd 😀"
    assert conversation.metadata == {"m\ufffd": ["\ufffd"]}
    json.dumps(dict(conversation.metadata), ensure_ascii=False).encode()
    (row,) = outcomes(put("t.csv", "dialogue\nAgent: a\0b\n"))
    assert row.turns[0].text == "a\ufffdb"


def test_nan_is_null(put):
    (conversation,) = outcomes(
        put("day.jsonl", GOOD[:-1] + ', "summary": NaN, "score": [-Infinity]}')
    )
    assert (conversation.references, conversation.metadata) == ((), {"score": [None]})


def test_repeated_id_is_bad_the_second_time_in_any_file(put):
    files = [put("a.jsonl", f"{GOOD}\n{GOOD}\n"), put("b.jsonl", GOOD)]
    read = list(read_conversations(files, AUTO))
    assert [type(one) for one in read] == [Conversation, Reject, Reject]
    assert [str(one) for one in read[1:]] == [
        "a.jsonl line 2: id 'good' is already used at a.jsonl line 1",
        "b.jsonl line 1: id 'good' is already used at a.jsonl line 1",
    ]
    assert read[1].id == "good"


def test_repeated_key_in_an_object_of_dialogs_is_not_lost(put):
    log = '{"log": [{"user utterance": "%s"}]}'
    read = outcomes(put("d.json", f'{{"a": {log % 1}, "a": {log % 2}, "b": 5}}'))
    assert [one.source.line for one in read] == [1, 2, 3]
    assert [type(one) for one in read] == [Conversation, Reject, Reject]


def test_row_with_another_number_of_cells_is_bad(put):
    read = outcomes(put("t.csv", "id,dialogue\n\n1,Agent: a, b\n2\n3,Agent: c\n"))
    assert [str(one) for one in read[:2]] == [
        "t.csv line 3: has 3 cells, the header has 2 columns",
        "t.csv line 4: has 1 cells, the header has 2 columns",
    ]
    assert read[2].id == "3"


def test_quote_inside_a_row_is_bad_and_an_open_one_ends_the_run(put):
    read = outcomes(put("t.csv", 'id,dialogue\n1,"Agent: a" b\n2,Agent: c\n'))
    assert str(read[0]) == "t.csv line 2: not a row of the table: ',' expected after '\"'"
    assert read[1].id == "2"
    with pytest.raises(
        DataError, match=r"^t\.csv line 3: the quotes of this record do not match .*mend or replace"
    ):
        outcomes(put("t.csv", 'id,dialogue\n1,Agent: a\n2,"Agent: b\n3,Agent: c\n4,Agent: d\n'))


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("t.csv", "id,text\n1,a\n", {},
         "t.csv: no column dialogue or conversation or transcript (columns id, text); "
         "name the one that holds the conversation (data.columns: {conversation: …}), "
         "or leave the file out by data.exclude "
         "(data.format: transcript reads a file of any name as one)"),
        ("t.csv", "id,text\n1,a\n", {"conversation": "texts"},
         "t.csv: no column 'texts' (columns id, text); correct data.columns.conversation"),
        ("t.csv", "id,dialogue\n", {"summary": "gist"},
         "t.csv: no column 'gist' (columns id, dialogue); correct data.columns.summary"),
        ("t.csv", "id,dialogue,id\n", {},
         "t.csv: column 'id' appears twice (columns id, dialogue, id); rename one of them"),
        ("t.csv", b"caf\xe9,dialogue\n", {},
         "t.csv line 1: byte 0xe9 at character 4 is not UTF-8; save the file as UTF-8, "
         "name its encoding in data.csv.encoding, or leave it out if it is no table"),
        ("t.csv", b"\x7fELF\x02\x01\x00\n\"", {},
         "t.csv: is no text file; give JSON, CSV, TSV or Parquet, plain or as .gz or .zst, in "
         "UTF-8 or UTF-16, or leave it out by data.exclude; the encoding of a table is named by "
         "data.csv.encoding"),
        ("t.csv", b"\x89PNG\r\n" + bytes(range(128, 256)) * 9 + b'"\n', {},
         "t.csv: is no text file; give JSON, CSV, TSV or Parquet, plain or as .gz or .zst, in "
         "UTF-8 or UTF-16, or leave it out by data.exclude; the encoding of a table is named by "
         "data.csv.encoding"),
        ("d.json", '{"a": {"log": []}, "b": {"log": [', {},
         "d.json: the JSON breaks after 1 whole records: Expecting value; "
         "what follows cannot be read, so mend or replace the file"),
        ("d.json", '[{"turns": []} {"turns": []}]', {},
         "d.json: the JSON breaks after 1 whole records: found '{', wanted ',' or ']'; "
         "what follows cannot be read, so mend or replace the file"),
        ("d.json", '{"a": {"log": []}, 5: {}}', {},
         "d.json: the JSON breaks after 1 whole records: a key is a number, wanted text; "
         "what follows cannot be read, so mend or replace the file"),
        ("d.json", "[1] x", {},
         "d.json: the JSON breaks after 1 whole records: something follows its end; "
         "what follows cannot be read, so mend or replace the file"),
    ],
)  # fmt: skip
def test_file_whose_records_cannot_be_delimited_ends_the_run(put, name, content, columns, message):
    with pytest.raises(DataError) as caught:
        outcomes(put(name, content), ReadingSection(columns=columns))
    assert str(caught.value) == message
    assert caught.value.exit_code == ExitCode.DATA == 65


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.compress])
def test_compressed_stream_that_is_cut_short_ends_the_run(put, squeeze):
    rng = random.Random(1)
    data = squeeze("".join(turns(str(rng.random())) + "\n" for _ in range(2000)).encode())
    for kept in (len(data) // 2, len(data) - 3):
        with pytest.raises(
            DataError, match=r"^x: the compressed stream is damaged or cut short .*replace the file"
        ):
            outcomes(put("x", data[:kept]))


def test_damaged_parquet_ends_the_run(put):
    sink = io.BytesIO()
    parquet.write_table(pa.table({"dialogue": ["Agent: a"]}), sink)
    with pytest.raises(DataError, match=r"^p: the Parquet file is damaged .*replace it"):
        outcomes(put("p", sink.getvalue()[:-20]))


def test_line_longer_than_the_limit_is_one_bad_record():
    text = io.StringIO("x" * 350 + "\n[1]\n\n" + "x" * 350)
    (first, too_long), (second, value), (fourth, last) = json_lines(text, 100)
    assert (first, second, fourth, value) == (1, 2, 4, [1])
    assert isinstance(too_long, RecordError)
    assert too_long.detail == last.detail == "the line is longer than 100 characters"


@pytest.mark.parametrize("end", ["", "\n"])
def test_line_as_long_as_the_limit_is_a_record_and_the_next_one_its_own(end):
    line = '"' + "x" * (98 - len(end)) + '"' + end
    assert len(line) == 100
    assert [type(value) for _, value in json_lines(io.StringIO(line), 100)] == [str]
    (_, too_long), (second, value) = json_lines(io.StringIO(f'"{line.strip()}"\n[1]\n'), 100)
    assert (type(too_long), second, value) == (RecordError, 2, [1])


def test_strict_reading_names_the_first_twenty_bad_records_and_counts_all(put):
    bad = "".join(turns("hi", role="bot") + "\n" for _ in range(25))
    with pytest.raises(DataError) as caught:
        read_strictly([put("a.jsonl", f"{GOOD}\n{bad}")], AUTO)
    lines = str(caught.value).split("\n")
    assert lines[0] == "25 of 26 records are no conversations; mend or remove them:"
    assert lines[1] == f"  a.jsonl line 2: {UNKNOWN_ROLE}"
    assert (len(lines), lines[-1]) == (22, "  and 5 more")


def test_strict_reading_names_the_first_bad_records_of_each_kind(put):
    bad = "".join(turns("hi", role="bot") + "\n" for _ in range(25))
    with pytest.raises(DataError) as caught:
        read_strictly([put("a.jsonl", f"{GOOD}\n{{\n{bad}")], AUTO)
    lines = str(caught.value).split("\n")
    assert lines[0] == "26 of 27 records are no conversations; mend or remove them:"
    assert lines[1] == f"  a.jsonl line 3: {UNKNOWN_ROLE}"
    assert lines[11] == "  and 15 more like this"
    assert lines[12].startswith("  a.jsonl line 2: not JSON")
    assert len(lines) == 13


def test_strict_reading_names_few_records_of_a_wrong_input(put):
    with pytest.raises(DataError) as caught:
        read_strictly(
            [put("a.jsonl", "".join(turns("hi", role="bot") + "\n" for _ in range(9)))], AUTO
        )
    lines = str(caught.value).split("\n")
    assert lines[0] == "9 of 9 records are no conversations; mend or remove them:"
    assert (len(lines), lines[-1]) == (5, "  and 6 more")


@pytest.mark.parametrize(
    "content", ["", "\n \n", "[]", "id,dialogue\n", gzip.compress(b"", mtime=0)]
)
def test_empty_file_is_an_error_to_learn_from_and_no_records_to_summarize(put, content):
    files = [put("good.jsonl", GOOD), put("none", content)]
    assert [one.id for one in read_conversations(files, AUTO)] == ["good"]
    with pytest.raises(
        DataError,
        match=r"^none: holds no records; name files that do, or remove it from the input$",
    ):
        read_strictly(files, AUTO)


def test_random_damage_never_ends_in_anything_but_outcomes_or_a_data_error(put):
    rng = random.Random(11)
    records = [{"id": str(n), "turns": [{"role": "agent", "text": "é" * n}]} for n in range(8)]
    log = {str(n): {"log": [{"user utterance": "a", "system response": "b"}]} for n in range(8)}
    as_lines = "\n".join(
        json.dumps(one, ensure_ascii=n % 2 > 0) for n, one in enumerate(records)
    ).encode()
    as_csv = b"id,dialogue\n" + b"".join(b'%d,"Agent: a\nCustomer: b, c"\n' % n for n in range(8))
    seen = Counter()
    for content in (as_lines, json.dumps(records).encode(), json.dumps(log).encode(), as_csv):
        for data in (content, gzip.compress(content), zstandard.compress(content)):
            for _ in range(60):
                damaged = bytearray(data)
                for _ in range(rng.randrange(1, 4)):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                try:
                    seen.update(type(one).__name__ for one in outcomes(put("x", bytes(damaged))))
                except DataError:
                    seen["DataError"] += 1
    assert set(seen) == {"Conversation", "Reject", "DataError"}


@pytest.mark.parametrize("fill", [1, 7, 1000])
def test_document_is_read_the_same_through_a_window_of_any_size(fill):
    members = {f"d{n}": [{"a": "x" * n}, n * 1111, None, 0.5] for n in range(60)}
    for indent in (None, 3):
        text = io.StringIO(json.dumps(members, indent=indent))
        read = iterate_document(text, "d", Layout("object"), lambda _: None, fill)
        assert list(read) == list(members.items())
    numbers = io.StringIO("[12345678, 2345, 3]")
    read = iterate_document(numbers, "d", Layout("array"), lambda _: None, fill)
    assert [value for _, value in read] == [12345678, 2345, 3]
