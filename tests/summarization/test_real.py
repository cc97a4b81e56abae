"""Real tweets and meetings of 10,000 words through `hierarchical`, with the demo's base."""

import os
import random
import re
from pathlib import Path

import pytest

from job.config.commands import SummarizeConfig
from job.summarization.summarize import summarize
from tests.summarization.conftest import read_lines, write_lines

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
TOPICS = ("search", "billing", "the mobile app", "support", "the new office", "onboarding", "reports", "storage")


def meeting(number: int, words: int = 10_000) -> dict[str, object]:
    """A meeting of `words` words: turns of one to four sentences by five people."""
    rng = random.Random(number)
    turns: list[dict[str, str]] = []
    count = 0
    while count < words:
        text = ". ".join(
            rng.choice(SAID).format(rng.choice(TOPICS), rng.randrange(2, 60)) for _ in range(rng.randint(1, 4))
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


def test_meetings_of_ten_thousand_words_are_summarized_whole(tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [meeting(number) for number in range(2)])
    counts = summarize(config_of(tmp_path, source, data={"roles": "as_written"}))
    rows = read_lines(tmp_path / "out/parts/part-00000.jsonl")
    assert (counts.summaries, counts.rejected) == (2, 0)
    for row in rows:
        assert row["parts"] >= 12
        assert row["levels"] >= 2
        assert row["dropped_turns"] < 150, "the base, which has learned no summary, says nothing of a few parts"
        assert row["input_tokens"] > 12_000
        assert row["summary"]


@pytest.mark.skipif(not TWEETS.is_dir(), reason="TweetSumm is not here; RECAP_TWEETSUMM names its folder")
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
