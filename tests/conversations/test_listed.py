"""Lists in cells: read as their writer meant them or refused, and never taken for text."""

import contextlib
import csv
import io
import json
import random
import time

import numpy as np
import pytest

from job.config.data_sections import ReadingSection
from job.conversations.draft import RecordError
from job.conversations.listed import MAX_PYTHON_CHARACTERS, list_in
from job.conversations.read import read_conversations, read_strictly

VALUES = (
    ["Kettle leaks.", "It's replaced."],
    ['She said "no".', "b"],
    ["one"],
    ["line\nbreak", "back\\slash", "\\d", "tab\t", "é 😊 “q”", "[1]", "a, 'b'"],
    [{"role": "user", "content": "it's"}, {"role": "assistant", "content": 'a "q" }'}],
    [None, "a"],
    ["a" * 5000, "b"],
    [],
)


@pytest.mark.parametrize("value", VALUES)
def test_a_list_is_read_as_json_python_and_numpy_write_it(value):
    array = np.empty(len(value), dtype=object)
    array[:] = value
    for written in (
        json.dumps(value),
        json.dumps(value, indent=1),
        str(value),
        f" {value}\n",
        str(array),
    ):
        assert list_in(written, "summary") == value


def test_random_lists_come_back_from_every_writer():
    rng = random.Random(3)
    alphabet = "ab'\"\\\n,[]{}() é:"
    for _ in range(300):
        number = rng.randrange(1, 4)
        texts = ["".join(rng.choices(alphabet, k=rng.randrange(12))) for _ in range(number)]
        for value in (texts, [{"role": "user", "content": text} for text in texts]):
            array = np.empty(len(value), dtype=object)
            array[:] = value
            assert list_in(str(value), "summary") == value
            assert list_in(str(array), "summary") == value
            assert list_in(json.dumps(value), "summary") == value


@pytest.mark.parametrize(
    "text",
    [
        "Kettle leaks.",
        "[laughs] Fine.",
        "[1] See the order.",
        "[Agent] sends one. ['x']",
        "('cause) it leaks",
        '("The Firm") buys.',
        '{"issue": "leak"}',
        "None",
        "",
    ],
)
def test_text_that_begins_with_a_bracket_stays_text(text):
    assert list_in(text, "summary") is None


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b'",
        "['a'] and so on",
        "['a', exec('1')]",
        "['a', __import__('os')]",
        "['a' + 'b']",
        "['a'][0]",
        "['a', ...]",
        "['a' 'b' ... 'z']",
        "[b'a']",
        "[array(['a'], dtype=object)]",
        "[{'at': Timestamp('2026-01-31')}]",
        "[" * 5000 + "'a'" + "]" * 5000,
        "['" + "a" * MAX_PYTHON_CHARACTERS + "']",
        "['a', " + "9" * 5000 + "]",
        "['a', " + "-" * 5000 + "1]",
        "{'a', 'b'}",
        '["a", "b"',
    ],
)
def test_what_cannot_be_read_as_a_list_is_refused(text):
    with pytest.raises(RecordError, match="summary"):
        list_in(text, "summary")


@pytest.mark.parametrize(
    "text",
    [
        "['" + "\\'" * 500_000,
        "['" * 500_000,
        "[''" * 300_000,
        "[" * 1_000_000,
        "['a'" + " " * 1_000_000 + "]",
        "['a', " + "1 " * 400_000,
        "('" * 500_000 + ")",
        "{'" + "a" * 1_000_000 + "}",
    ],
)
def test_a_hostile_cell_takes_one_pass(text):
    started = time.process_time()
    with contextlib.suppress(RecordError):
        list_in(text, "summary")
    assert time.process_time() - started < 30, "quadratic work would take minutes"


def test_tuples_are_lists():
    assert list_in("('a', 'b')", "summary") == ["a", "b"]
    assert list_in("('a',)", "summary") == ["a"]


def test_cells_that_pandas_wrote_are_references_and_turns(put):
    turns = [{"role": "user", "content": "It's late"}, {"role": "assistant", "content": "Sorry"}]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["chat", "summary"])
    writer.writerow([str(turns), str(["Late.", "It's late."])])
    writer.writerow([json.dumps(turns), "Late."])
    writer.writerow(["Customer: [hm] late", "['Late."])
    reading = ReadingSection(columns={"conversation": "chat"})
    first, second, bad = read_conversations([put("t.csv", text.getvalue())], reading)
    assert first.turns == second.turns
    assert (first.references, second.references) == (("Late.", "It's late."), ("Late.",))
    assert bad.detail.startswith("summary begins like a list ([' …)")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("column", ["messages", "conversations", "turns", "chat"])
def test_a_column_of_lists_needs_no_text_beside_it(put, column, delimiter):
    turns = [{"role": "user", "content": "It's late; now, what?"}]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["nr", column, "summary"], ["1", str(turns), str(["Late.", "So late."])]])
    reading = ReadingSection(turns={"list": "chat"} if column == "chat" else {})
    (one,) = read_strictly([put("t.csv", text.getvalue())], reading)
    assert [turn.text for turn in one.turns] == ["It's late; now, what?"]
    assert (one.references, one.metadata) == (("Late.", "So late."), {"nr": "1"})


def test_a_list_in_the_text_of_a_json_record_is_no_text_either(put):
    record = {"turns": str([{"role": "user", "text": "Hi"}]), "summary": "['A.', 'B.']"}
    (one,) = read_strictly([put("a.jsonl", json.dumps(record))], ReadingSection())
    assert ([turn.text for turn in one.turns], one.references) == (["Hi"], ("A.", "B."))
