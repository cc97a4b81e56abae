"""Claims about CSV and TSV: what other programs write is read right, or the file ends with 65."""

import csv
import json
from pathlib import Path

import pytest

from job.config.data_sections import CsvSection, ReadingSection, reading_identity
from job.conversations.formats.table import check_columns
from job.conversations.pieces import Size, cut, read_piece
from job.conversations.read import read_conversations, read_strictly
from job.conversations.record import Conversation, Reject
from job.errors import DataError
from job.storage.open import list_inputs
from job.summarization.writers import AS_DEFAULT, one_file
from tests.table_writers import spark_cell

AUTO = ReadingSection()
BACKSLASH = ReadingSection(csv=CsvSection(escape="\\"))
HELLO = [("customer", "Hello"), ("agent", "Hi, what is wrong?")]


def spark_day() -> tuple[str, list[str]]:
    said = [f"customer: Where is order {n}?\nagent: It arrives on Monday." for n in range(100)]
    said[10] = 'customer: The screen says "E10" again.\nagent: Sorry, we look into it.'
    said[60] = 'customer: "E10" again!\nagent: Sorry.\ncustomer: Thank you.'
    return "dialogue,channel\n" + "".join(f"{spark_cell(one)},chat\n" for one in said), said


def turns_of(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in conversation.turns]


def test_backslash_before_a_quote_ends_the_file_and_names_the_remedy(put):
    content, _ = spark_day()
    with pytest.raises(
        DataError, match=r"^day\.csv line 22: .*backslash escapes quotes, set data\.csv"
    ):
        list(read_conversations([put("day.csv", content)], AUTO))


def test_backslash_of_the_config_escapes_quotes(put):
    content, said = spark_day()
    read = read_strictly([put("day.csv", content)], BACKSLASH)
    assert len(read) == 100
    assert turns_of(read[10])[0] == ("customer", 'The screen says "E10" again.')
    assert ["\n".join(f"{role}: {text}" for role, text in turns_of(one)) for one in read] == said


@pytest.mark.parametrize("cell", ["C:\\new", "a\\\\b", "x\\", "\\n", '\\"', 'a, "b"\\'])
def test_backslash_that_escapes_nothing_is_text(put, cell):
    content = f"dialogue,note\nAgent: a,{spark_cell(cell)}\n"
    (read,) = read_strictly([put("day.csv", content)], BACKSLASH)
    assert read.metadata == {"note": cell}


def test_backslash_before_a_letter_stays_whoever_wrote_it(put):
    content = 'dialogue,note\nAgent: a,"C:\\new \\"x\\""\n'
    (read,) = read_strictly([put("day.csv", content)], BACKSLASH)
    assert read.metadata == {"note": 'C:\\new "x"'}


@pytest.mark.parametrize(
    "rest",
    [
        '"customer: a 5" pipe\nagent: ok"\n',  # no quote is escaped at all
        '"customer: a 5" pipe\nagent: ok\ncustomer: thanks"\n',
        '"customer: 5"\nagent: ok"\n',
        '"customer: \\"hello\nagent: ok"\n',
        '"customer: \\"hello\nagent: ok\n',  # cut short
        '"customer: say \\"\nagent: ok"\n',
        '"customer: \\"E10\\" again\nagent: ok\n"\nagent: next\n',
        '"customer: a" b\n"\nagent: c"\n',
        ' "customer: hi\nagent: ok"\n',  # a space before the quote
    ],
)
@pytest.mark.parametrize("before", ["", '"customer: hi\nagent: ho"\n'])
def test_a_cell_that_may_go_on_in_the_next_line_ends_the_file(put, rest, before):
    with pytest.raises(
        DataError,
        match=r"^t\.csv line \d+: .*later rows cannot be trusted, so mend or replace",
    ):
        list(read_conversations([put("t.csv", f"dialogue\n{before}{rest}")], AUTO))


def test_a_stray_quote_in_a_row_of_one_line_costs_this_row_alone(put):
    rows = [
        '1,"Agent: a" b',
        '2,"Agent: c\nd"',
        '3,Agent: 5" e',
        '4,"Agent: "x" b"',
        '5,"Agent: y"',
    ]
    content = "\n".join(["id,dialogue", *rows])
    read = list(read_conversations([put("t.csv", content)], AUTO))
    assert [type(one) for one in read] == [
        Reject,
        Conversation,
        Conversation,
        Reject,
        Conversation,
    ]
    assert [one.source.line for one in read] == [2, 3, 5, 6, 7]


def test_cells_that_end_with_a_backslash_are_no_reason_for_doubt(put):
    content = 'id,dialogue,path\n1,"Agent: a, b","C:\\dir\\"\n2,"\nAgent: c","D:\\"\n3,",",x\n'
    read = list(read_conversations([put("t.csv", content)], AUTO))
    assert [one.source.line for one in read] == [2, 3, 5]
    assert read[1].metadata == {"path": "D:\\"}


def test_quotes_of_a_table_without_quoted_cells_are_text(put):
    (read,) = read_strictly([put("t.tsv", 'id\tdialogue\n1\tAgent: a 5" pipe, or 6"\n')], AUTO)
    assert turns_of(read) == [("agent", 'a 5" pipe, or 6"')]


def test_line_break_that_pandas_did_not_quote_is_text(put):
    said = '"customer: Where is it?\nagent: Soon, customer: fine"'
    content = f"subject,dialogue\nlate\rorder,{said}\nok,customer: Hi\n"
    read = read_strictly([put("day.csv", content)], AUTO)
    assert [one.metadata for one in read] == [{"subject": "late\rorder"}, {"subject": "ok"}]
    assert [one.source.line for one in read] == [2, 4]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_carriage_return_in_a_cell_is_no_line_end(put, end):
    content = f'id,dialogue{end}1,Agent: a\rb{end}2,"Agent: c\rd"{end}'
    assert [turns_of(one) for one in read_strictly([put("t.csv", content)], AUTO)] == [
        [("agent", "a\nb")],
        [("agent", "c\nd")],
    ]


def test_rows_that_end_with_carriage_returns_are_rows(put):
    content = 'id,dialogue\r1,"customer: Hello\nagent: Hi"\r\r2,customer: Bye\r'
    read = read_strictly([put("mac.csv", content)], AUTO)
    assert [(one.id, len(one.turns), one.source.line) for one in read] == [("1", 2, 2), ("2", 1, 4)]


@pytest.mark.parametrize(
    "content",
    [
        'id;dialogue\n1;"customer: Hello\nagent: Hi, what is wrong?"\n',
        'id\tdialogue\n1\t"customer: Hello\nagent: Hi, what is wrong?"\n',
        'id|dialogue\n1|"customer: Hello\nagent: Hi, what is wrong?"\n',
        '\ufeff"id";"dialogue"\r\n"1";"customer: Hello\r\nagent: Hi, what is wrong?"\r\n',
        'sep=;\r\nid;dialogue\r\n1;"customer: Hello\nagent: Hi, what is wrong?"\r\n',
        '"sep=|"\nid|dialogue\n1|"customer: Hello\nagent: Hi, what is wrong?"\n',
        '"a,b,c"\tid\tdialogue\n\t1\t"customer: Hello\nagent: Hi, what is wrong?"\n',
        'a,b,c\tid\tdialogue\n\t1\t"customer: Hello\nagent: Hi, what is wrong?"\n',
        'a;b;c,id,dialogue\n,1,"customer: Hello\nagent: Hi, what is wrong?"\n',
        '\n,,\n"id","dialogue"\n1,"customer: Hello\nagent: Hi, what is wrong?"\n',
        'ID;Messages;a,b,c\n1;"[{""role"": ""user"", ""content"": ""Hello""}, '
        '{""role"": ""assistant"", ""content"": ""Hi, what is wrong?""}]";x\n',
        'ID,Dialogue\n1,"customer: Hello\nagent: Hi, what is wrong?"\n',
        'ID,TRANSCRIPT,,\n1,"customer: Hello\nagent: Hi, what is wrong?",,\n',
        '"id","two\nlines","dialogue"\n1,x,"customer: Hello\nagent: Hi, what is wrong?"\n',
    ],
)
def test_delimiter_and_columns_are_found_in_the_header(put, content):
    (read,) = read_strictly([put("t.csv", content)], AUTO)
    assert (read.id, turns_of(read)) == ("1", HELLO)


def test_delimiter_of_the_config_comes_before_what_the_header_shows(put):
    reading = ReadingSection(csv=CsvSection(delimiter="\x01"))
    content = 'id\x01dialogue\x01a;b\n1\x01"customer: Hello\nagent: Hi, what is wrong?"\x012\n'
    (read,) = read_strictly([put("t.csv", content)], reading)
    assert (read.id, turns_of(read), read.metadata) == ("1", HELLO, {"a;b": "2"})


def test_summary_is_found_in_any_case_where_only_one_column_matches(put):
    one = put("one.csv", "id,dialogue,Summary\n1,Agent: a,S.\n")
    two = put("two.csv", "id,dialogue,Summary,SUMMARY\n2,Agent: a,S.,T.\n")
    named = put("named.csv", "id,Chat\n3,Agent: a\n")
    assert read_strictly([one], AUTO)[0].references == ("S.",)
    (both,) = read_strictly([two], AUTO)
    assert (both.references, both.metadata) == ((), {"Summary": "S.", "SUMMARY": "T."})
    assert read_strictly([named], ReadingSection(columns={"conversation": "chat"}))[0].id == "3"


def test_files_that_were_joined_are_read_as_one(put):
    part = '\ufeffid,dialogue\r\n{0},"Agent: a\r\nb"\r\n'
    read = read_strictly([put("t.csv", part.format(1) + part.format(2))], AUTO)
    assert [(one.id, one.source.line) for one in read] == [("1", 2), ("2", 5)]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "shift_jis", "utf-16-le"])
def test_encoding_of_the_config(put, encoding):
    word = "ありがとう" if encoding == "shift_jis" else "déçu"
    content = f'id,dialogue,{word}\n1,"Agent: {word}\nb",x\n'.encode(encoding)
    reading = ReadingSection(csv=CsvSection(encoding=encoding))
    (read,) = read_strictly([put("t.csv", content)], reading)
    assert (turns_of(read), read.metadata) == ([("agent", f"{word}\nb")], {word: "x"})


def test_encoding_of_the_config_is_not_that_of_json_nor_of_marked_files(put):
    reading = ReadingSection(csv=CsvSection(encoding="cp1252"))
    files = [
        put("a.jsonl", '{"id": "1", "turns": [{"role": "agent", "text": "é"}]}'),
        put("b.csv", "\ufeffid,dialogue\n2,Agent: é\n"),
        put("c.csv", "id,dialogue\n3,Agent: é\n".encode("utf-16")),
    ]
    assert [turns_of(one) for one in read_strictly(files, reading)] == [[("agent", "é")]] * 3


def test_byte_that_the_encoding_has_not_spoils_its_row(put):
    reading = ReadingSection(csv=CsvSection(encoding="cp1252"))
    file = put("t.csv", b"id,dialogue\n1,Agent: \x81\n2,Agent: \xe9\n")
    first, second = read_conversations([file], reading)
    assert first.detail.startswith("column 'dialogue': byte 0x81 at character 8 is not CP1252")
    assert turns_of(second) == [("agent", "é")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "content",
    ["id,dialogue\n1,Agent: é😀\n", '{"id": "1", "turns": [{"role": "agent", "text": "é😀"}]}\n'],
)
def test_utf16_with_a_mark_is_read(put, content, encoding):
    mark = "\ufeff" if encoding.endswith("be") else ""
    (read,) = read_strictly([put("t", (mark + content).encode(encoding))], AUTO)
    assert turns_of(read) == [("agent", "é😀")]


def test_utf16_that_is_cut_short_ends_the_file(put):
    file = put("t.csv", "id,dialogue\n1,Agent: a\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="is not utf-16-le up to its end"):
        list(read_conversations([file], AUTO))


def test_metadata_column_holds_a_json_object_or_is_a_column_like_others(put):
    cells = ["", '"{""k"": 1}"', "text", "[1]", "{broken"]
    rows = [f"{number},Agent: a,{cell},s\n" for number, cell in enumerate(cells)]
    content = "id,dialogue,metadata,shop\n" + "".join(rows)
    own = [one.metadata for one in read_strictly([put("t.csv", content)], AUTO)]
    assert own == [
        {"shop": "s"},
        {"shop": "s", "k": 1},
        {"shop": "s", "metadata": "text"},
        {"shop": "s", "metadata": "[1]"},
        {"shop": "s", "metadata": "{broken"},
    ]


class Name(str):
    """Text that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_columns_are_checked_in_linear_time():
    names = [Name(f"column {number}") for number in range(9_999)]
    Name.compared = 0
    check_columns([*names, "dialogue"], "t.csv", AUTO)
    assert Name.compared < 10 * len(names)


def test_too_many_columns_end_the_file(put):
    header = ",".join(f"c{number}" for number in range(60_000))
    with pytest.raises(DataError, match=r"^t\.csv: has 60001 columns, and at most 10000 are read"):
        list(read_conversations([put("t.csv", f"dialogue,{header}\n")], AUTO))


def test_message_about_columns_is_short(put):
    file = put("t.csv", ",".join("x" * 60 + str(number) for number in range(5000)))
    with pytest.raises(DataError) as caught:
        list(read_conversations([file], AUTO))
    assert len(str(caught.value)) < 1200


def test_header_without_end_ends_the_file(put):
    for content in ("a" * (2 << 20), 'dialogue,"' + "a\n" * (1 << 20)):
        with pytest.raises(DataError, match="the header is longer than 1048576 characters, or has"):
            list(read_conversations([put("t.csv", content)], AUTO))


def test_line_longer_than_a_record_may_be_ends_the_file(put, monkeypatch):
    monkeypatch.setattr("job.conversations.csv_rows.MAX_RECORD_CHARACTERS", 50)
    content = "dialogue\nAgent: a\nAgent: " + "x" * 50 + "\nAgent: b\n"
    with pytest.raises(DataError, match=r"^t\.csv line 3: is longer than 50 characters"):
        list(read_conversations([put("t.csv", content)], AUTO))


def test_table_in_another_encoding_is_one_piece(tmp_path: Path):
    rows = "".join(f"{number},Agent: é\n" for number in range(9))
    (tmp_path / "t.csv").write_bytes(f"id,dialogue\n{rows}".encode("cp1252"))
    (file,) = list_inputs([str(tmp_path / "t.csv")])
    reading = ReadingSection(csv=CsvSection(encoding="cp1252"))
    (piece,) = cut(file, reading, Size(2, 1))
    read = list(read_piece(file, piece, reading))
    assert (piece.kind, piece.records) == ("whole", 9)
    assert read == list(read_conversations([file], reading))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_metadata_of_an_output_is_metadata_again(tmp_path: Path, suffix: str):
    row = {
        "id": "a",
        "summary": "agent: S.",
        "source": {"uri": "x", "line": 1},
        "metadata": {"shop": "Oslo", "deep": [{"k": None}]},
    }
    with one_file(tmp_path / f"day{suffix}", AS_DEFAULT) as write:
        write(json.dumps(row).encode())
    files = list_inputs([str(tmp_path / f"day{suffix}")])
    (read,) = read_strictly(files, ReadingSection(columns={"conversation": "summary"}))
    assert read.id == "a"
    assert {"shop": "Oslo", "deep": [{"k": None}]}.items() <= read.metadata.items()


def test_a_night_of_an_older_recap_is_known_as_finished():
    assert "csv" not in reading_identity(AUTO)
    assert reading_identity(BACKSLASH)["csv"]["escape"] == "\\"


def test_lines_of_nothing_before_the_header_are_not_split(put, monkeypatch):
    split: list[object] = []
    real = csv.reader
    monkeypatch.setattr(
        csv, "reader", lambda *rows, **how: split.append(rows) or real(*rows, **how)
    )
    nothing = "\n" * 5000 + ",,\n" * 5000 + '"",""\r\n' * 5000
    (read,) = read_strictly([put("t.csv", f"{nothing}id,dialogue\n1,Agent: a\n")], AUTO)
    assert (read.id, read.source.line) == ("1", 15_002)
    assert len(split) < 10


@pytest.mark.parametrize("mark", ["NA", "NULL", "nan", "None", "<NA>", "#N/A", "\\N", " "])
def test_a_mark_of_a_missing_value_is_no_reference(put, mark):
    content = f"dialogue,summary\nAgent: a,{mark}\nAgent: b,NAND gates\n"
    read = read_strictly([put("a.csv", content)], AUTO)
    assert [one.references for one in read] == [(), ("NAND gates",)]


@pytest.mark.parametrize("row", ["Agent: a\\\tb\ts\tt", 'Agent: \\"\ta\tb'])
def test_a_row_with_signs_of_an_escape_names_the_remedy(put, row):
    found = list(read_conversations([put("a.tsv", f"dialogue\tsummary\n{row}\n")], AUTO))
    assert isinstance(found[0], Reject)
    assert found[0].detail.endswith("set data.csv: {escape: '\\'}")


@pytest.mark.parametrize("columns", [2, 3])
def test_a_backslash_before_a_line_break_makes_no_conversations(put, columns):
    others = "".join(f"\tc{number}" for number in range(2, columns))
    said = "Agent: a\\\nCustomer: b\\\nAgent: c"
    rows = "".join(f"{number}\t{said}{others}\n" for number in range(3))
    file = put("a.tsv", f"id\tdialogue{others}\n{rows}")
    with pytest.raises(DataError, match=r"escapes line breaks, set data\.csv: \{escape"):
        list(read_conversations([file], AUTO))
    assert [len(one.turns) for one in read_strictly([file], BACKSLASH)] == [3, 3, 3]


def test_rows_may_end_with_a_backslash(put):
    content = "dialogue,folder\nAgent: a,C:\\x\\\nAgent: b,C:\\y\\\nAgent: c,z\n"
    read = read_strictly([put("a.csv", content)], AUTO)
    assert [one.metadata["folder"] for one in read] == ["C:\\x\\", "C:\\y\\", "z"]
