"""Rows are those of encoding one conversation after another, and no longer than the base reads."""

import json
import pickle
import random
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from job.config.sections import PromptSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError, DataError
from job.model.load import context_tokens
from job.prompt.encode import IGNORED, Encoder, NothingToSummarizeError, TooLongError
from job.prompt.template import make_prompt
from job.telemetry import LOGGER
from job.training.rows import (
    RowSettings,
    check_rows,
    prompt_ids_of,
    read_rows,
    row_tokens,
    write_rows,
)
from tests.tiny import CHAT_TEMPLATE, make_byte_tokenizer

PIECES = ["hello", "order", "é", "日本", "😀", "<s>", "</s>", "<|user|>", "12345", "\n", "x" * 30]


@pytest.fixture
def tokenizer():
    """A token is a byte, beside five control tokens."""
    return make_byte_tokenizer()


def varied(count, seed=5):
    """Return conversations of all kinds: empty turns, long ones, control tokens, 1 to 3 references.

    Some do not fit into 300 tokens, some only without some turns.
    """
    rng = random.Random(seed)

    def text(most):
        return " ".join(rng.choice(PIECES) for _ in range(rng.randrange(most)))

    found = []
    for number in range(count):
        most = rng.choice([4, 4, 12, 12, 40, 400])
        turns = [Turn(rng.choice(["customer", "agent", "bot"]), text(most)) for _ in range(8)]
        turns.append(Turn("agent", "Bye."))
        references = [text(6) for _ in range(rng.randrange(1, 3))] + [text(rng.choice([6, 6, 200]))]
        references = [f"{reference} done" for reference in references]  # none is empty
        source = Source("data.jsonl", number + 1)
        found.append(Conversation(f"c{number}", tuple(turns), source, tuple(references)))
    return found


def settings(tokenizer, style="instruction", references="all", max_tokens=300, **others):
    tokenizer.chat_template = CHAT_TEMPLATE
    encoder = Encoder(make_prompt(PromptSection(style=style), tokenizer), tokenizer, max_tokens)
    named = {"max_excluded_fraction": 0.9} | others
    return RowSettings(encoder, references, **named)


def count_rows(conversations, rules):
    """Return the counts of the rows that are written. Raise what a training raises for them."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "rows.arrow")
        write_rows(conversations, rules, file)
        counts = read_rows(file).counted
    check_rows("train", counts, rules)
    return counts


def one_by_one(conversations, rules):
    """Return rows and reasons, as they are without batches, threads and files."""
    rows = []
    reasons = []
    for conversation in conversations:
        references = conversation.references
        for reference in references[:1] if rules.references == "first" else references:
            try:
                rows.append(rules.encoder.encode_example(conversation, reference))
            except TooLongError as error:
                reasons.append(str(error))
    return rows, reasons


@pytest.mark.parametrize(
    ("style", "references"), [("instruction", "all"), ("chat", "all"), ("instruction", "first")]
)
def test_rows_are_those_of_encoding_one_by_one(
    tokenizer, tmp_path, caplog, monkeypatch, style, references
):
    rules = settings(tokenizer, style, references)
    conversations = varied(70)
    rows, reasons = one_by_one(conversations, rules)
    assert len(rows) > 30
    assert len(reasons) > 10
    assert any(row.dropped_turns for row in rows)

    LOGGER.propagate = True
    monkeypatch.setattr("job.training.rows.CONVERSATIONS_AT_ONCE", 8)
    write_rows(iter(conversations), rules, tmp_path / "rows.arrow")
    written = read_rows(tmp_path / "rows.arrow")
    assert written.dataset["input_ids"][:] == [row.input_ids for row in rows]
    assert written.dataset["labels"][:] == [row.labels for row in rows]
    assert written.counts() == {
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "longest_tokens": max(len(row.input_ids) for row in rows),
        "shortened_rows": sum(row.dropped_turns > 0 for row in rows),
        "dropped_turns": sum(row.dropped_turns for row in rows),
        "dropped_tokens": written.counted.dropped_tokens,
        "excluded_rows": len(reasons),
    }
    assert written.counted.largest_id == max(max(row.input_ids) for row in rows)
    check_rows("train", written.counted, rules)
    warned = [record.fields for record in caplog.records if "rows left out" in record.message]
    assert warned == [{"split": "train", "rows": len(reasons), "first": reasons[0]}]


def test_ids_of_prompts_are_those_that_are_not_learned(tokenizer, tmp_path, monkeypatch):
    rules = settings(tokenizer)
    conversations = varied(70)
    rows, _ = one_by_one(conversations, rules)
    monkeypatch.setattr("job.training.rows.CONVERSATIONS_AT_ONCE", 8)
    write_rows(iter(conversations), rules, tmp_path / "rows.arrow")
    found = list(prompt_ids_of(read_rows(tmp_path / "rows.arrow").dataset))
    assert len(found) == 9  # of 8 conversations at a time
    prompts = [row.input_ids[: row.labels.count(IGNORED)] for row in rows]
    assert np.concatenate(found).tolist() == list(chain.from_iterable(prompts))


def test_too_many_excluded_rows_end_with_the_first(tokenizer):
    rules = settings(tokenizer, max_excluded_fraction=0.01)
    conversations = varied(30)
    rows, reasons = one_by_one(conversations, rules)
    total = len(rows) + len(reasons)
    with pytest.raises(DataError) as caught:
        count_rows(conversations, rules)
    assert str(caught.value).startswith(f"{len(reasons)} of {total} rows of train do not fit")
    assert str(caught.value).endswith(f"The first: {reasons[0]}")


def test_a_conversation_without_text_is_an_error_of_its_own(tokenizer):
    conversations = varied(40)
    silent = conversations[30]._replace(turns=(Turn("agent", " "),))
    with pytest.raises(NothingToSummarizeError, match=r"data\.jsonl line 31: no turn has any text"):
        count_rows([*conversations[:30], silent, *conversations[31:]], settings(tokenizer))


def test_a_token_without_embedding_is_found_in_any_row(tokenizer):
    conversations = varied(3)
    largest = count_rows(conversations, settings(tokenizer)).largest_id
    assert count_rows(conversations, settings(tokenizer, embeddings=largest + 1)).rows > 0
    with pytest.raises(ConfigError, match=f"token {largest} "):
        count_rows(conversations, settings(tokenizer, embeddings=largest))


def test_rows_reach_another_rank_as_the_name_of_their_file(tokenizer, tmp_path):
    write_rows(varied(60), settings(tokenizer), tmp_path / "rows.arrow")
    rows = read_rows(tmp_path / "rows.arrow")
    sent = pickle.dumps(rows)
    assert len(sent) < 5000 < (tmp_path / "rows.arrow").stat().st_size
    received = pickle.loads(sent)
    assert received.dataset[:] == rows.dataset[:]
    assert json.dumps(received.counts()) == json.dumps(rows.counts())


def test_a_row_is_no_longer_than_the_base_reads(caplog):
    LOGGER.propagate = True  # the command line switches it off
    assert row_tokens(512, 1024) == 512
    assert row_tokens(4096, None) == 4096
    assert not caplog.records
    assert row_tokens(4096, 1024) == 1024
    [record] = caplog.records
    assert record.fields == {"max_tokens": 4096, "context": 1024}


def test_the_context_is_what_the_base_says(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 1024}))
    assert context_tokens(tmp_path) == 1024
    (tmp_path / "config.json").write_text("{}")
    assert context_tokens(tmp_path) is None


class Faulty(Encoder):
    """An encoder that loses labels: those of whole rows, or of their ends."""

    lost = slice(None)

    def encode_examples(self, conversations):
        rows = super().encode_examples(conversations)
        for row in rows[3:]:
            kept = [IGNORED] * len(row.labels[self.lost])
            row.labels[self.lost] = kept
        return rows


class Empty(Faulty):
    lost = slice(None, -1)


class Endless(Faulty):
    lost = slice(-1, None)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Faulty, "row 4 of 8 of train teaches nothing but the end"),
        (Empty, "row 4 of 8 of train teaches nothing but the end"),
        (Endless, "row 4 of 8 of train does not learn the token that ends a summary"),
    ],
)
def test_rows_that_teach_nothing_or_no_end_are_refused(tokenizer, kind, message):
    rules = settings(tokenizer, references="first", max_tokens=200_000)
    encoder = rules.encoder
    faulty = kind(encoder.prompt, encoder.tokenizer, encoder.max_tokens)
    spoken = [each._replace(references=("A summary.",)) for each in varied(8)]
    assert count_rows(spoken, rules).rows == 8
    with pytest.raises(DataError, match=message):
        count_rows(spoken, replace(rules, encoder=faulty))


def test_lost_turns_and_their_tokens_are_counted(tokenizer):
    rules = settings(tokenizer, references="first")
    conversations = varied(70)
    counts = count_rows(conversations, rules)
    dropped = 0
    for conversation in conversations:
        first = conversation._replace(references=conversation.references[:1])
        for row in rules.encoder.encode_examples([first]):
            if isinstance(row, TooLongError) or not row.dropped_turns:
                continue
            (whole,) = rules.encoder.tokenize_each([conversation])
            if whole is None:  # more characters than are ever tokenized
                assert row.dropped_tokens is None
                continue
            assert row.dropped_tokens == len(whole) - row.labels.count(IGNORED)
            dropped += row.dropped_tokens
    assert counts.dropped_tokens == dropped > 0
    assert counts.dropped_turns >= counts.shortened > 0
