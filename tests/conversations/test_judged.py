"""Claims about records with judged answers: each format of them, and what nothing can teach."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from job.config.data_sections import ReadingSection
from job.conversations.formats.judged import why_useless
from job.conversations.read import read_strictly
from job.conversations.record import Answer, Turn
from job.errors import DataError

TURNS = (Turn("customer", "My kettle leaks."), Turn("agent", "I send a new one."))
PAIR = (Answer("Kettle leaks.", True), Answer("A call.", False))
TEXT = "Customer: My kettle leaks.\nAgent: I send a new one."
TOLD = [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"Sum up:\n{TEXT}"}]
SPOKEN = [
    {"role": "user", "content": "My kettle leaks."},
    {"role": "assistant", "content": "I send a new one."},
]
OWN_TURNS = [{"role": turn.role, "text": turn.text} for turn in TURNS]


def says(text):
    return {"role": "assistant", "content": text}


def in_messages(chosen="Kettle leaks.", rejected="A call."):
    return {"chosen": [says(chosen)], "rejected": [says(rejected)]}


def in_text(chosen="Kettle leaks.", rejected="A call."):
    return {"chosen": chosen, "rejected": rejected}


PAIRS = {
    "recap": {"turns": OWN_TURNS} | in_text(),
    "a table's column": {"dialogue": TEXT} | in_text(),
    "messages": {"messages": SPOKEN} | in_messages(),
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": TURNS[0][1]},
            {"from": "gpt", "value": TURNS[1][1]},
        ],
        "chosen": {"from": "gpt", "value": "Kettle leaks."},
        "rejected": {"from": "gpt", "value": "A call."},
    },
    "TRL, text": {"prompt": f"Sum up.\n\n{TEXT}"} | in_text(),
    "TRL, messages": {"prompt": TOLD} | in_messages(),
    "TRL, a prompt of turns": {"prompt": SPOKEN} | in_messages(),
    "TRL, implicit": {
        "chosen": [*TOLD, says("Kettle leaks.")],
        "rejected": [*TOLD, says("A call.")],
    },
    "TRL, implicit text": {
        "chosen": f"{TEXT}\nSummary: Kettle leaks.",
        "rejected": f"{TEXT}\nSummary: A call.",
    },
    "both": {"prompt": f"Sum up.\n{TEXT}"}
    | {"chosen": [*TOLD, says("Kettle leaks.")], "rejected": [*TOLD, says("A call.")]},
    "OpenAI": {
        "input": {"messages": TOLD, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [says("Kettle leaks.")],
        "non_preferred_output": [says([{"type": "text", "text": "A call."}])],
    },
}
THUMBS = {
    "recap": {"turns": OWN_TURNS, "completion": "Kettle leaks.", "label": True},
    "TRL, text": {"prompt": TEXT, "completion": "Kettle leaks.", "label": True},
    "TRL, messages": {"prompt": TOLD, "completion": [says("Kettle leaks.")], "label": 1},
}


def read(put, records, judged, reading=None, name="data.jsonl"):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    return read_strictly([put(name, lines)], reading or ReadingSection(), judged)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_each_format_is_read(put, name):
    (found,) = read(put, [PAIRS[name] | {"id": 7, "shop": "Oslo"}], "pairs")
    assert (found.id, found.turns, found.answers) == ("7", TURNS, PAIR)
    assert found.references == ("Kettle leaks.",)
    assert found.metadata["shop"] == "Oslo"
    assert not {"chosen", "rejected", "prompt"} & set(found.metadata)


@pytest.mark.parametrize("name", THUMBS)
def test_a_thumb_of_each_format_is_read(put, name):
    (found,) = read(put, [THUMBS[name]], "thumbs")
    assert (found.turns, found.answers) == (TURNS, (Answer("Kettle leaks.", True),))
    assert found.references == ()
    assert found.metadata == {}


@pytest.mark.parametrize(
    ("label", "wanted"),
    [(False, False), (0, False), (-1, False), ("Down", False), (1.0, True), ("TRUE", True)],
)
def test_a_label_is_a_word_or_a_number(put, label, wanted):
    (found,) = read(put, [THUMBS["recap"] | {"label": label}], "thumbs")
    assert found.answers == (Answer("Kettle leaks.", wanted),)


def test_pairs_are_read_from_a_compressed_file_an_array_and_tables(put):
    records = [PAIRS["TRL, text"], PAIRS["recap"]]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    table = f'id,{{}},chosen,rejected\n{{}},"{TEXT}",Kettle leaks.,A call.\n'
    files = [
        put("a.jsonl.gz", gzip.compress(lines)),
        put("b.json", json.dumps({"version": 1, "data": records}, indent=1)),
        put("c.csv", table.format("dialogue", 1)),
        put("d.csv", table.format("prompt", 2)),
    ]
    found = read_strictly(files, ReadingSection(), "pairs")
    assert [each.answers for each in found] == [PAIR] * 6
    assert {each.turns for each in found} == {TURNS}


@pytest.mark.parametrize("name", ["TRL, text", "TRL, messages", "TRL, implicit", "recap"])
def test_pairs_are_read_from_parquet(put, tmp_path, name):
    parquet.write_table(pyarrow.Table.from_pylist([PAIRS[name]]), tmp_path / "data.parquet")
    file = put("data.parquet", (tmp_path / "data.parquet").read_bytes())
    (found,) = read_strictly([file], ReadingSection(), "pairs")
    assert (found.turns, found.answers) == (TURNS, PAIR)


def test_a_prompt_keeps_what_the_reading_asks_for(put):
    record = {"prompt": "Sum up.\nBob: My kettle leaks.\nAnn: I send a new one."} | in_text()
    (found,) = read(put, [record], "pairs", ReadingSection(roles="as_written"))
    assert [turn.role for turn in found.turns] == ["Bob", "Ann"]
    record = {"talk": TEXT, "prompt": "Be short."} | in_text()
    (found,) = read(put, [record], "pairs", ReadingSection(columns={"conversation": "talk"}))
    assert found.turns == TURNS
    assert found.metadata == {"prompt": "Be short."}


def test_answers_that_begin_alike_keep_their_beginning(put):
    chosen, rejected = "The kettle leaks.\nA new one comes.", "The kettle leaks.\nNothing comes."
    (found,) = read(put, [{"prompt": TEXT} | in_text(chosen, rejected)], "pairs")
    assert [answer.text for answer in found.answers] == [chosen, rejected]


@pytest.mark.parametrize(
    ("record", "judged", "why"),
    [
        (PAIRS["recap"] | {"chosen": 5}, "pairs", "chosen is a number, wanted text or a message"),
        ({"turns": OWN_TURNS, "chosen": "x"}, "pairs", "has no 'rejected'; found turns, chosen"),
        (
            {"turns": OWN_TURNS, "summary": "x"},
            "pairs",
            "has no 'chosen'; found turns, summary; method: sft learns from references; pairs/ of",
        ),
        ({"turns": OWN_TURNS, "better": "x"}, "pairs", "{chosen: …, rejected: …})"),
        (THUMBS["recap"], "pairs", "method: kto learns from thumbs; pairs/ of `recap feedback`"),
        (PAIRS["recap"], "thumbs", "method: dpo learns from pairs; thumbs/ of `recap feedback`"),
        (PAIRS["OpenAI"], "thumbs", "method: dpo learns from pairs; thumbs/ of `recap feedback`"),
        (
            PAIRS["TRL, messages"] | {"chosen": [says([{"type": "image_url", "image_url": {}}])]},
            "pairs",
            "content holds a part of type 'image_url', wanted text parts",
        ),
        (
            PAIRS["OpenAI"] | {"non_preferred_output": [says("a"), says("b")]},
            "pairs",
            "non_preferred_output has 2 messages behind the prompt, wanted one",
        ),
        (
            PAIRS["TRL, messages"] | {"rejected": [{"role": "user", "content": "x"}]},
            "pairs",
            "rejected is a message by 'customer', wanted the assistant's",
        ),
        (in_text(), "pairs", "has no conversation: neither prompt, turns"),
        (
            PAIRS["TRL, text"] | {"prompt": "Why is the sky blue"},
            "pairs",
            "line 1: prompt is read as the transcript: no line",
        ),
        (PAIRS["TRL, text"] | {"prompt": None}, "pairs", "it has no turns"),
        (THUMBS["recap"] | {"label": "great"}, "thumbs", "label is great, wanted true or false"),
        ({"turns": OWN_TURNS, "completion": "x"}, "thumbs", "has no 'label'"),
        ({"turns": OWN_TURNS, "label": True}, "thumbs", "has no 'completion'"),
        ([1], "pairs", "the record is a list, wanted an object"),
    ],
)
def test_what_is_no_pair_or_thumb_is_rejected_with_its_reason(put, record, judged, why):
    with pytest.raises(DataError) as raised:
        read(put, [record, record], judged)
    (first, second) = str(raised.value).splitlines()[1:]
    assert first.startswith("  data.jsonl line 1: ")
    assert second.startswith("  data.jsonl line 2: ")
    assert why in first


@pytest.mark.parametrize(
    ("name", "content"), [("call.txt", TEXT), ("a.csv", f'dialogue,summary\n"{TEXT}",x\n')]
)
def test_a_file_without_answers_is_refused(put, name, content):
    with pytest.raises(DataError, match=r"no column 'chosen' .*correct data\.columns\.chosen"):
        read_strictly([put(name, content)], ReadingSection(), "pairs")


@pytest.mark.parametrize(
    ("record", "judged", "why"),
    [
        (PAIRS["recap"] | {"rejected": " Kettle  leaks."}, "pairs", "both answers are equal"),
        (PAIRS["recap"] | {"chosen": " "}, "pairs", "the preferred answer is empty"),
        (PAIRS["recap"] | {"rejected": None}, "pairs", "the other answer is empty"),
        (PAIRS["TRL, messages"] | {"chosen": [says(None)]}, "pairs", "the preferred answer is"),
        (THUMBS["recap"] | {"completion": "NaN"}, "thumbs", "the completion is empty"),
        (THUMBS["recap"] | {"label": None}, "thumbs", "no label"),
        (PAIRS["recap"], "pairs", ""),
        (THUMBS["recap"], "thumbs", ""),
    ],
)
def test_an_answer_that_teaches_nothing_is_known_with_its_reason(put, record, judged, why):
    (found,) = read(put, [record], judged)
    assert (why_useless(found.answers) or "").startswith(why)
    assert bool(why_useless(found.answers)) == bool(why)


def test_the_readers_of_conversations_read_no_answers(put):
    (found,) = read(put, [PAIRS["recap"]], None)
    assert (found.answers, found.references) == ((), ())
