"""Claims about which nights count: each line once, by the night whose line agents have read."""

import json

import pytest

from job.errors import ConfigError, MissingError
from job.feedback.run import run_feedback
from tests.feedback.world import conversation, corrected, verdict

DATES = ("2026-01-13", "2026-01-20")
LATER = "2026-01-31"


@pytest.fixture
def edited(world):
    """Two nights of 10 conversations, all of which are edited."""
    for number, date in enumerate(DATES):
        lines = world.night(date, [conversation(10 * number + one) for one in range(10)])
        rows = [verdict(line, edited=corrected(line), by="ann") for line in lines]
        world.verdicts(rows, f"{date}.jsonl")
    return world


def add_anchor(world, date):
    """Summarize 16 conversations of both nights again, in the place that the pages name."""
    name = f"anchors/dt={date}"
    world.night(date, [conversation(number) for number in range(16)], name)


def judged_by_night(numbers):
    return {night["name"]: night["judged"] for night in numbers["nights"]}


@pytest.mark.parametrize("date", ["2026-01-04", DATES[0], LATER])
def test_anchors_below_the_nights_change_nothing(edited, date):
    wanted = run_feedback(edited.config(output=str(edited.folder / "before")))
    add_anchor(edited, date)
    found = run_feedback(edited.config(anchors=str(edited.folder / "nights" / "anchors")))
    assert len(edited.rows("pairs", "test")) == 10
    for numbers in (wanted, found):
        del numbers["version"]
    assert found == wanted
    assert judged_by_night(found) == dict.fromkeys(DATES, 10)


def test_a_line_belongs_to_the_first_of_its_nights(edited, caplog):
    add_anchor(edited, LATER)
    numbers = run_feedback(edited.config())
    assert judged_by_night(numbers) == dict.fromkeys(DATES, 10) | {LATER: 0}
    assert len(edited.rows("pairs", "test")) == 10
    assert "name their folder in the key anchors" in caplog.text


def test_the_command_and_its_plan_leave_anchors_out(edited, recap, tmp_path):
    add_anchor(edited, LATER)
    path = tmp_path / "feedback.yaml"
    path.write_text(json.dumps(edited.content(nights=f"{edited.folder}/nights/")))
    keys = ["--set", f"anchors={edited.folder}/./nights//anchors/"]
    planned = recap("plan", str(path), *keys)
    assert "2 nights" in planned.out
    assert "20 of 20 rows join a summary" in planned.out
    ended = recap("feedback", str(path), *keys)
    assert "100% of 20 summaries were judged" in ended.out
    assert "the key anchors" not in ended.err + planned.err


def test_nights_that_are_all_anchors_are_missing(edited):
    anchors = [f"{edited.folder}/nights/dt={date}" for date in DATES]
    with pytest.raises(MissingError, match=r"or below, but for anchors, .*; correct nights"):
        run_feedback(edited.config(anchors=anchors))


def test_anchors_that_have_all_nights_are_a_mistake(edited, recap, tmp_path):
    path = tmp_path / "feedback.yaml"
    path.write_text(json.dumps(edited.content()))
    ended = recap("feedback", str(path), "--set", f"anchors={edited.folder}")
    assert ended.code == ConfigError.exit_code
    assert f"{edited.folder} has all nights" in ended.err
