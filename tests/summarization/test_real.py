"""Real tweets and meetings of 10,000 words through `hierarchical`, with the demo's base."""

import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.inference.taken import Filled
from job.summarization.summarize import summarize
from job.summarization.summarizer import Summarizer
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import read_lines, write_lines
from tests.summarization.nights import Wrapped, with_engine

ROOT = Path(__file__).parents[2]
BASE = ROOT / "examples" / "demo" / "base"
TWEETS = Path(os.environ.get("RECAP_TWEETSUMM") or ROOT.parent / "shared" / "data" / "tweetsumm")
SPEAKERS = ("Ana", "Bo", "Chen", "Dee", "Eli")
SAID = (
    "the budget of the {0} team grows by {1} percent next year",
    "we move the launch of {0} to week {1} as the tests take longer",
    "{0} asks who takes over the {1} open tickets from the old queue",
    "I would rather keep {0} as it is until customer {1} has answered",
    "can somebody send the numbers of {0} for the last {1} days",
)
TOPICS = (
    "search",
    "billing",
    "the mobile app",
    "support",
    "the new office",
    "onboarding",
    "reports",
    "storage",
)


def meeting(number: int, words: int = 10_000) -> dict[str, Any]:
    """A meeting of `words` words: turns of one to four sentences by five people."""
    rng = random.Random(number)
    turns: list[dict[str, str]] = []
    count = 0
    while count < words:
        text = ". ".join(
            rng.choice(SAID).format(rng.choice(TOPICS), rng.randrange(2, 60))
            for _ in range(rng.randint(1, 4))
        )
        turns.append({"role": rng.choice(SPEAKERS), "text": text})
        count += len(text.split())
    return {"id": f"meeting-{number}", "turns": turns}


def config_of(tmp_path: Path, source: Path, **keys: object) -> SummarizeConfig:
    content = {
        "run": "real",
        "input": str(source),
        "output": str(tmp_path / "out"),
        "model": {"base": str(BASE)},
        "generation": {"max_new_tokens": 24},
        "long_conversations": "hierarchical",
        "limits": {"max_reject_fraction": 1},
    }
    return SummarizeConfig.model_validate(content | keys)


class Talkative(Wrapped):
    """The real engine, with a text where the base, which has not been trained, has no answer."""

    silent = 0

    def generate(self, prompts: Any, settings: Any, on_done: Any = None) -> Any:
        answers = super().generate(prompts, settings, on_done)
        self.silent += sum(not answer.text.strip() for answer in answers)
        return [
            answer if answer.text.strip() else replace(answer, text="They talked.")
            for answer in answers
        ]


def test_every_turn_of_a_meeting_of_10_000_words_is_summarized(
    tmp_path,
):
    meetings = [meeting(number) for number in range(2)]
    config = config_of(
        tmp_path, write_lines(tmp_path / "in.jsonl", meetings), data={"roles": "as_written"}
    )
    engines: list[Talkative] = []

    def talkative(engine: Any) -> Talkative:
        engines.append(Talkative(engine, lambda _prompts: None))
        return engines[0]

    counts = summarize(config, with_engine(talkative))
    rows = read_lines(tmp_path / "out/parts/part-00000.jsonl")
    assert (counts.summaries, counts.rejected) == (2, 0)
    assert engines[0].silent > 0, "else nothing is shown of it"
    for row in rows:
        assert row["parts"] >= 12
        assert row["levels"] >= 2
        assert row["dropped_turns"] == 0
        assert row["input_tokens"] > 12_000
        assert row["summary"]


def test_turns_of_parts_without_an_answer_are_counted_as_dropped(tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [meeting(0, 3000)])
    (row,) = summarized(config_of(tmp_path, source, data={"roles": "as_written"}), tmp_path)
    assert 0 < row["dropped_turns"] < len(meeting(0, 3000)["turns"])


def summarized(config: SummarizeConfig, tmp_path: Path) -> list[dict[str, Any]]:
    summarize(config)
    return read_lines(tmp_path / "out/parts/part-00000.jsonl")


@pytest.mark.skipif(
    not TWEETS.is_dir(), reason="TweetSumm is not here; RECAP_TWEETSUMM names its folder"
)
def test_real_tweets_have_one_outcome_each_and_no_handle_or_link_in_it(tmp_path):
    source = TWEETS / "dialogstudio_examples.json"
    keys = {"data": {"cleaning": ["html_entities", "whitespace"]}, "redaction": {}}
    keys["generation"] = {"max_new_tokens": 24, "max_input_tokens": 160}
    counts = summarize(config_of(tmp_path, source, **keys))
    rows = read_lines(tmp_path / "out/parts/part-00000.jsonl")
    assert counts.summaries + counts.rejected == 5
    assert counts.redactions >= 5
    assert max(row["levels"] for row in rows) == 2
    assert not any(re.search(r"@\w|https?:", row["summary"]) for row in rows)


@pytest.mark.skipif(
    not TWEETS.is_dir(), reason="TweetSumm is not here; RECAP_TWEETSUMM names its folder"
)
@pytest.mark.parametrize("long", ["hierarchical", "keep_ends"])
def test_all_real_tweets_of_a_file_are_summarized_in_its_order(tmp_path, long):
    """With an engine that answers at once, and prompts of 700 bytes."""
    source = TWEETS / "validation.json"
    given = json.loads(source.read_text(encoding="utf-8"))

    def open_with(filled: Filled[SummarizeConfig], cache: Path) -> Summarizer:
        real = stand_in(StandInEngine())(filled, cache)
        return replace(real, encoder=replace(real.encoder, max_tokens=700))

    counts = summarize(
        config_of(tmp_path, source, long_conversations=long, chunks={"records": 10}), open_with
    )
    summaries, rejects = (
        read_lines(tmp_path / f"out/{folder}/part-00000.jsonl") for folder in ("parts", "rejects")
    )
    assert (counts.records, len(given)) == (108, 108)
    places = [[row["source"]["line"] for row in rows] for rows in (summaries, rejects)]
    assert places == [sorted(lines) for lines in places], "in the order of the input"
    assert sorted(places[0] + places[1]) == list(range(1, 109))
    assert len({row["id"] for row in summaries}) == counts.summaries >= 100
    most = max(row["parts"] for row in summaries)
    assert most >= 3 if long == "hierarchical" else most == 1
    dropped = sum(row["dropped_turns"] for row in summaries)
    assert dropped > 0 if long == "keep_ends" else dropped == 0
