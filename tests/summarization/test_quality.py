"""Claims about the quality block: its figures, its sample, and that it is exact in any case."""

import json
from dataclasses import replace
from hashlib import blake2b
from statistics import stdev

import numpy as np
import pytest

from job.conversations.record import Conversation, Reject, Source, Turn
from job.errors import Stopped
from job.inference.engine import Generated
from job.inference.reader import Prompts
from job.prompt.encode import EncodedPart
from job.prompt.seen_tokens import SeenTokens
from job.summarization.quality import (
    FAITHFULNESS,
    FIGURES,
    MAX_SAMPLED,
    OTHER_LANGUAGE,
    REWARD,
    QualitySample,
    QualitySums,
    measure,
    measuring_code,
    scoring_code,
)
from job.summarization.records import Summary
from job.summarization.shard import Shard
from job.summarization.summarize import summarize
from tests.stand_in import PROMPT, StandInEngine, stand_in
from tests.summarization.conftest import conversation, write_lines
from tests.summarization.nights import at_call, manifest_of

SOURCE = Source("in.jsonl", 1)
PARCEL = Conversation(
    "a",
    (
        Turn("customer", "My parcel 4711 is late, says Peter Smith in Berlin."),
        Turn("agent", "I am sorry. It will be there on Monday."),
    ),
    SOURCE,
)


def figures_of(text, tokens=20):
    prompts = Prompts("a", SOURCE, [EncodedPart([1] * tokens, 2)], 0, None)
    summary = Summary("a", text, SOURCE, "stop", tokens, 5, 0, {})
    found = json.loads(measure(PARCEL, prompts, summary))
    assert found.pop("language") == "en"
    return {name: value / 1000 for name, value in found.items()}


def run_night(config, before=lambda: None, shard=None):
    engine = StandInEngine(before)
    arguments = () if shard is None else (shard,)
    summarize(config, stand_in(engine), *arguments)


def quality(folder):
    return manifest_of(folder)["quality"]


def test_figures_of_one_record_are_those_counted_by_hand():
    found = figures_of("Peter Smith asks for parcel 4711.")
    assert found == {
        "turns": 2,
        "conversation_words": 19,
        "characters_per_token": round(len(" ".join(t.text for t in PARCEL.turns)) / 20, 3),
        "other_scripts": 0,
        "redactions": 0,
        "empty": 0,
        "repeating": 0,
        "copied": 0,
        "invented_numbers": 0,
        "invented_names": 0,
    }


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("The parcel 4712 is late.", "invented_numbers"),
        ("The parcel of Maria Jones is late.", "invented_names"),
        ("The parcel is late. The parcel is late. The parcel is late.", "repeating"),
        ("…", "empty"),
        ("My parcel 4711 is late, says Peter Smith in Berlin.", "copied"),
    ],
)
def test_each_fault_shows_in_its_figure(text, figure):
    assert figures_of(text)[figure] == 1
    assert figures_of("The parcel 4711 is late.")[figure] == 0


def test_an_empty_answer_counts_as_an_empty_summary():
    prompts = Prompts("a", SOURCE, [EncodedPart([1], 1)], 0, None)
    found = json.loads(measure(PARCEL, prompts, Reject(SOURCE, "empty_summary", "", "a")))
    assert found["empty"] == 1000
    assert "copied" not in found


def test_a_record_that_cannot_be_measured_loses_no_summary():
    broken = PARCEL._replace(turns=None)
    prompts = Prompts("a", SOURCE, [EncodedPart([1], 1)], 0, None)
    assert measure(broken, prompts, Reject(SOURCE, "empty_summary", "", "a")) == b""


def test_sums_are_the_same_in_any_order():
    values = [7 * number % 31 + 10**9 for number in range(1000)]
    lines = [json.dumps({"turns": value}).encode() for value in values]
    one, other = QualitySums(), QualitySums()
    for line in lines:
        one.add(line)
    for line in reversed(lines):
        other.add(line)
    assert one.to_json() == other.to_json()
    assert one.to_json()["turns"]["sd"] == pytest.approx(stdev(values) / 1000, abs=1e-6)


def test_a_large_night_is_sampled_by_its_ids_alone():
    sample = QualitySample.of(100 * MAX_SAMPLED)
    digests = [blake2b(str(number).encode(), digest_size=16).digest() for number in range(20000)]
    chosen = [digest for digest in digests if sample.has(digest)]
    assert 150 < len(chosen) < 250
    assert all(QualitySample.of(50 * MAX_SAMPLED).has(digest) for digest in chosen)
    assert all(QualitySample.of(MAX_SAMPLED).has(digest) for digest in digests)


def test_each_scored_figure_has_a_digest_of_its_own_code():
    codes = {scoring_code(FAITHFULNESS), scoring_code(REWARD), measuring_code()}
    assert len(codes) == 3
    assert all(len(code) == 12 for code in codes)


def test_the_block_names_its_sample_and_all_figures(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation(f"c{number}") for number in range(5)])
    run_night(config())
    block = quality(tmp_path / "out")
    assert block["sample"] == {"records": 5, "share": 1.0}
    assert block["measured_by"] == measuring_code()
    assert block["scored_by"] == {}
    # `recap watch` counts other languages, by those of another night. The others
    # need an adapter, a classifier and candidates.
    names = {figure.name for figure in FIGURES} - {
        OTHER_LANGUAGE,
        "unseen_tokens",
        FAITHFULNESS,
        REWARD,
    }
    assert set(block["figures"]) == names
    assert sum(block["languages"].values()) == 5
    assert block["figures"]["turns"] == {"records": 5, "mean": 1.0, "sd": 0.0}


def test_the_block_is_the_same_after_a_stop_and_with_other_shards(config, tmp_path):
    records = [conversation(f"c{number}", f"parcel {number} " * number) for number in range(1, 30)]
    write_lines(tmp_path / "in.jsonl", [*records, records[3], {"no": "record"}])
    run_night(config(output=str(tmp_path / "whole")))

    small = config(output=str(tmp_path / "stopped"), chunks={"records": 4})

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        run_night(small, at_call(3, stop))
    run_night(small)

    shared = config(output=str(tmp_path / "shared"), chunks={"records": 3})
    run_night(shared, shard=Shard(0, 2))
    run_night(shared, shard=Shard(1, 2))

    whole = quality(tmp_path / "whole")
    assert whole["sample"]["records"] == 29  # the repeated id is a reject, and counts once
    assert quality(tmp_path / "stopped") == whole
    assert quality(tmp_path / "shared") == whole


def test_languages_are_counted_by_conversation(config, tmp_path):
    texts = ["My parcel is late.", "Is it in the shop?", "Mi paquete no ha llegado.", "4711"]
    write_lines(tmp_path / "in.jsonl", [conversation(text, text) for text in texts])
    run_night(config())
    assert quality(tmp_path / "out")["languages"] == {"en": 2, "es": 1, "unknown": 1}


def test_tokens_that_no_training_conversation_had_are_counted(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("a", "abc"), conversation("b", "abQ?")])
    around = f"{PROMPT.before}customer: {PROMPT.after}"
    seen = SeenTokens.of([np.frombuffer(f"{around}abc".encode(), dtype=np.uint8)])

    def open_with_record(filled, cache):
        return replace(stand_in(StandInEngine())(filled, cache), seen=seen)

    summarize(config(), open_with_record)
    figure = quality(tmp_path / "out")["figures"]["unseen_tokens"]
    assert figure["records"] == 2
    # Tokens are bytes: 2 of those of "customer: abQ?" are new, and none of the other.
    assert figure["mean"] == pytest.approx((2 / len("customer: abQ?") + 0) / 2, abs=5e-4)


def test_lengths_cut_summaries_and_rejects_are_of_all_records(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [*map(conversation, "abcd"), {"no": "record"}])
    texts = ["x", "xx", "xxx", "xxxx"]

    class Growing(StandInEngine):
        def generate(self, prompts, settings, on_done=None):
            super().generate(prompts, settings, on_done)
            return [Generated(texts.pop(), 3, "stop" if texts else "length") for _ in prompts]

    summarize(config(), stand_in(Growing()))
    figures = quality(tmp_path / "out")["figures"]
    assert figures["characters"] == {"records": 4, "mean": 2.5, "sd": round(stdev([1, 2, 3, 4]), 6)}
    assert figures["cut"] == {"records": 4, "mean": 0.25, "sd": 0.5}
    assert (figures["rejected"]["records"], figures["rejected"]["mean"]) == (5, 0.2)


@pytest.mark.parametrize(
    ("text", "invented"),
    [("Write to me at [EMAIL_1].", 0), ("Write to [EMAIL_1], not to a@b.com.", 1)],
)
def test_redacted_nights_measure_what_the_model_read(config, tmp_path, text, invented):
    write_lines(tmp_path / "in.jsonl", [conversation("a", "Write to me at peter@example.com")])

    class Repeating(StandInEngine):
        def generate(self, prompts, settings, on_done=None):
            super().generate(prompts, settings, on_done)
            return [Generated(text, 3, "stop") for _ in prompts]

    summarize(config(redaction={}), stand_in(Repeating()))
    figures = quality(tmp_path / "out")["figures"]
    assert figures["redactions"]["mean"] == 1  # what the model wrote itself is no input
    assert figures["invented_numbers"]["mean"] == invented  # it becomes [EMAIL_2]
    assert figures["invented_names"]["mean"] == 0
