"""The examples of docs/formats.md are read as they stand."""

import pytest

from job.config.data_sections import ReadingSection
from job.conversations.read import read_strictly
from tests.formats_page import entries, examples

# The turns of each entry's first record, and its references.
READ = {
    "SAMSum": (["Mira", "Tom"], 1),
    "DialogSum": (["#Person1#", "#Person2#"], 3),
    "QMSum": (["Project Manager", "Marketing"], 1),
    "ShareGPT": (["customer", "agent"], 1),
    "OpenAI fine-tuning": (["customer", "agent"], 1),
    "MTS-Dialog": (["agent", "customer", "customer"], 1),
    "One call a file: WebVTT, SRT, text": (["Mira Bell", "Tom"], 0),
    "A Zendesk export": (["customer", "agent"], 0),
    "Alpaca": (["customer", "agent"], 1),
    "Prompts and completions": (["customer", "agent"], 1),
    "A CSV saved by Excel": (["customer", "agent"], 1),
    "Calls with time stamps": (["agent", "customer"], 1),
    "Intercom conversations": (["customer", "agent"], 0),
    "MediaSum": (["ANN LEE, HOST", "BOB DUE"], 1),
    "Any other list of turns": (["customer", "agent"], 0),
}


def test_every_example_of_the_formats_page_is_read(put):
    read = [read_strictly([put(kind, text)], ReadingSection()) for kind, text in examples()]
    assert [len(conversations) for conversations in read] == [3, 3, 1, 1]
    assert [len(one.turns) for conversations in read for one in conversations] == [
        2,
        1,
        1,
        2,
        2,
        1,
        2,
        2,
    ]
    assert [len(one.references) for conversations in read for one in conversations] == [
        0,
        2,
        1,
        0,
        0,
        1,
        2,
        1,
    ]


def test_every_entry_of_the_page_is_known_here():
    assert [entry.name for entry in entries()] == list(READ)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_a_file_that_people_have_is_read_with_its_config(put, entry):
    reading = ReadingSection.model_validate(entry.config["data"])
    first, *others = read_strictly([put(f"x.{entry.kind}", entry.content)], reading)
    roles, references = READ[entry.name]
    assert ([turn.role for turn in first.turns], len(first.references)) == (roles, references)
    assert not others
    for turn in first.turns:  # no label, instruction or mark-up is left in what was said
        assert not {":", "<", "#"} & set(turn.text)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_each_key_of_an_entry_is_needed(put, entry):
    """The page has the least that works: without any of its keys, something is not read."""
    data = entry.config["data"]
    whole = read_strictly([put("x", entry.content)], ReadingSection.model_validate(data))
    for key in data:
        less = {name: value for name, value in data.items() if name != key}
        try:
            rest = read_strictly([put("x", entry.content)], ReadingSection.model_validate(less))
        except Exception:
            continue
        assert rest != whole, key
