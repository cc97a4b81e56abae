"""The real TweetSumm files, from $RECAP_TWEETSUMM or data/tweetsumm beside the repository."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from job.config.data_sections import ReadingSection
from job.conversations.cleaning import TWEETS, clean_all, resolve_steps
from job.conversations.read import read_strictly
from job.conversations.splits import compare, hold_out

AUTO = ReadingSection()
BESIDE = Path(__file__).parents[2].parent / "shared" / "data" / "tweetsumm"
FOLDER = Path(os.environ.get("RECAP_TWEETSUMM") or BESIDE)
STORE = SimpleNamespace(open=lambda key: (FOLDER / key).open("rb"))

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="TweetSumm is not here; RECAP_TWEETSUMM names its folder"
)


def find_overlap(train, validation):
    return compare(train, validation).overlap


def read(name):
    return read_strictly([SimpleNamespace(uri=name, store=STORE, key=name)], AUTO)


@pytest.mark.parametrize(
    ("name", "dialogs", "references"),
    [
        ("dialogstudio_examples.json", 5, 14),
        ("train.json", 869, 2608),
        ("validation.json", 108, 352),
    ],
)
def test_every_dialog_is_read_and_loses_nothing_by_cleaning(name, dialogs, references):
    conversations = read(name)
    raw = json.loads((FOLDER / name).read_text("utf-8"))
    pairs = [pair for dialog in raw.values() for pair in dialog["log"]]
    said = [
        pair[side]
        for pair in pairs
        for side in ("user utterance", "system response")
        if pair[side].strip()
    ]
    assert [turn.text for conversation in conversations for turn in conversation.turns] == said
    assert [conversation.id for conversation in conversations] == list(raw)
    assert (len(conversations), sum(len(one.references) for one in conversations)) == (
        dialogs,
        references,
    )
    cleaned = clean_all(conversations, resolve_steps(AUTO, conversations))
    assert resolve_steps(AUTO, conversations) == TWEETS
    assert sum(len(one.turns) for one in cleaned) == len(said)
    texts = " ".join(turn.text for one in cleaned for turn in one.turns)
    assert not any(mark in texts for mark in ("http", "<LINK>", "@", "^", "&amp;"))


def test_train_and_validation_do_not_overlap():
    assert (
        find_overlap(
            clean_all(read("train.json"), TWEETS), clean_all(read("validation.json"), TWEETS)
        )
        == []
    )


def test_copies_of_a_dialog_from_two_preprocessings_are_found():
    published, copied = (
        clean_all(read("dialogstudio_examples.json"), TWEETS),
        clean_all(read("train.json"), TWEETS),
    )
    pairs = find_overlap(copied, published)
    assert {pair.validation_id for pair in pairs} == {
        f"TweetSumm--train--{n}" for n in (1, 3, 4, 5)
    }
    assert {pair.kind for pair in pairs} == {"near"}


def test_held_out_conversations_do_not_overlap_with_the_rest():
    train, validation = hold_out(read("train.json"), 0.1, seed=42)
    assert len(train) + len(validation) == 869
    assert find_overlap(train, validation) == []
