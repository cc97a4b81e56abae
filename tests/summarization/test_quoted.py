"""Claims about messages that quote a record: with redaction on, none holds personal data."""

import json

import pytest

from job.errors import DataError
from job.preflight.summarizing import plan_summarizing
from job.prompt.encode import Encoder
from job.summarization.summarize import summarize
from job.summarization.summarizer import Summarizer, fetch_digests
from job.telemetry import configure_logging
from tests.stand_in import PROMPT, StandInEngine, StandInTokenizer
from tests.summarization.conftest import conversation, read_lines, write_lines

CARD, DIGITS, MAIL = "4111 1111 1111 1111", "4111111111111111", "joe@shop.com"
QUOTING = [
    {"id": "key", f"{MAIL} {CARD}": 1},
    {"id": "long key", "x" * 30 + CARD: 1},
    {"id": "role", "turns": [{"role": f"Card {CARD}", "text": "hi"}]},
    {"id": "line", "dialogue": f"Card {DIGITS}: thanks\nagent: hi"},
    {"id": "key of a turn", "turns": [{MAIL: "customer", "text": "hi"}]},
    {"id": "part", "messages": [{"role": "user", "content": [{"type": MAIL, "x": 1}]}]},
]


def open_with(filled, cache):
    encoder = Encoder(PROMPT, StandInTokenizer(), 512)
    digests = fetch_digests(filled.config, cache)
    return Summarizer(StandInEngine(), encoder, PROMPT.cleaning, digests, "stand-in")


def test_no_reject_holds_what_redaction_finds(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [*QUOTING, conversation("good")])
    summarize(config(redaction={}), open_with)
    rejects = read_lines(tmp_path / "out/rejects/part-00000.jsonl")
    assert [row["id"] for row in rejects] == [record["id"] for record in QUOTING]
    written = json.dumps([row["detail"] for row in rejects])
    assert MAIL not in written
    assert "111" not in written
    assert "role 'Card [CARD_1]' is not one of" in written


def test_the_log_names_the_place_of_a_reject_alone(config, tmp_path, capsys):
    configure_logging(person=False)
    write_lines(tmp_path / "in.jsonl", [*QUOTING[:5], conversation("good")])
    summarize(config(redaction={}), open_with)
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    rejected = [line for line in logged if line["message"] == "rejected"]
    places = [line["record"] for line in rejected]
    assert places == [f"{tmp_path}/in.jsonl line {line}" for line in range(1, 6)]


def test_without_redaction_rejects_quote_as_ever(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [*QUOTING, conversation("good")])
    summarize(config(), open_with)
    rejects = read_lines(tmp_path / "out/rejects/part-00000.jsonl")
    assert f"role 'Card {CARD}' is not one of" in rejects[2]["detail"]


def test_an_error_that_quotes_a_header_is_redacted(config, tmp_path):
    table = tmp_path / "4155550123" / "day.csv"
    table.parent.mkdir()
    table.write_text(f"hello,my card is {CARD},{MAIL}\n1,2,3\n")
    night = config(redaction={}, input=str(table))
    with pytest.raises(DataError) as caught:
        summarize(night, open_with)
    for said in (str(caught.value), str(plan_summarizing(night).error)):
        assert said.startswith(f"{table}: no column")
        assert "my card is [CARD_1], [EMAIL_1]" in said


def test_a_plan_shows_no_reject_unredacted(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", QUOTING[2:4])
    found = plan_summarizing(config(redaction={})).checks[0].found
    assert found.count("role 'Card [CARD_1]'") == 2
