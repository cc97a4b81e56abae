"""Claims about the page and the screen: what they show, and that hostile text stays text."""

import pytest

from job.config.commands import TrainConfig
from job.feedback.run import run_feedback
from job.feedback.screen import next_step, screen
from job.training.examples import read_examples
from tests.feedback.world import conversation, corrected, verdict

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture
def numbers(world):
    record = conversation(0)
    record["turns"][0]["text"] += HOSTILE
    lines = world.night("2026-01-05", [record, *map(conversation, range(1, 6))])
    world.verdicts(
        [
            verdict(lines[0], edited=f"{corrected(lines[0])} {HOSTILE}", by=HOSTILE),
            verdict(lines[1], verdict="up", by="ann"),
            verdict(lines[1], verdict="down", by="bob", reason=HOSTILE),
        ]
    )
    return run_feedback(world.config())


def test_the_page_shows_conflicts_and_corrections_as_text(world, numbers):
    text = (world.folder / "out" / "report.html").read_text()
    assert "<img" not in text
    assert "\x1b" not in text
    assert "Agents disagree" in text
    assert "numbers added" in text


def test_the_screen_has_no_word_of_a_conversation(numbers):
    text = screen(numbers)
    assert "agents disagree on 1 of 1 judged by several" in text
    assert "onerror" not in text
    assert "parcel" not in text


def test_the_share_of_thumbs_has_an_interval(numbers):
    mean, low, high = numbers["all"]["up_share"]
    assert 0 <= low < mean < high <= 1


def test_bias_shows_which_lengths_are_judged(numbers):
    quarters = numbers["bias"]["by_length"]
    assert sum(quarter["judged"] for quarter in quarters) == numbers["judged"]
    assert numbers["bias"]["agents"] == 3


@pytest.mark.parametrize(
    ("edits", "ups", "downs", "wanted"),
    [
        (0, 8, 0, ""),
        (0, 0, 8, ""),
        (1, 0, 0, ""),
        (0, 4, 4, "thumbs"),
        (2, 4, 0, "sft"),
        (8, 0, 0, "sft"),
    ],
)
def test_the_next_step_is_a_training_that_can_learn(world, edits, ups, downs, wanted):
    lines = world.night("2026-01-05", [conversation(number) for number in range(8)])
    thumbs = ["up"] * ups + ["down"] * downs
    rows = [verdict(line, edited=corrected(line)) for line in lines[:edits]]
    rows += [verdict(line, verdict=one) for line, one in zip(lines[edits:], thumbs, strict=False)]
    world.verdicts(rows)
    numbers = run_feedback(world.config())
    text = next_step(numbers, str(world.folder / "out"))
    assert bool(text) == bool(wanted)
    assert f"/{wanted}/train.jsonl" in text or not wanted
    assert ("is left to train on: method: kto" in screen(numbers)) == ((ups == 0) != (downs == 0))
    if text:
        method = "kto" if wanted == "thumbs" else "sft"
        data = {
            side: str(world.folder / "out" / wanted / f"{side}.jsonl")
            for side in ("train", "validation")
            if world.rows(wanted, side)
        }
        content = {"run": "r", "method": method, "data": data, "output": str(world.folder)}
        config = TrainConfig.model_validate(content | {"model": {"base": "b"}})
        assert read_examples(config).train
