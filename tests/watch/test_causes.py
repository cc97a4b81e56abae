"""Claims about the cause of a change: named right, and not named without anchors."""

from dataclasses import replace

import pytest

from job.summarization.quality import FAITHFULNESS, FIGURES
from job.watch.causes import Change, attribute, find_change
from job.watch.judge import judge
from job.watch.measured import Measured
from tests.watch.streams import Plant, Team, day, until

CASES = [
    (figure, factor, cause)
    for figure, factor in (("characters", 0.9), ("invented_numbers", 2.0))
    for cause in ("data", "model", "measurement")
]
MIN_RIGHT = 0.9
BY_NAME = {figure.name: figure for figure in FIGURES}
CHARACTERS = BY_NAME["characters"]


def cause_at_the_alarm(seed, plant):
    """Return the cause on the day of the alarm, with what was known by then; None without one."""
    team = Team(seed)
    nights, anchors = team.nights(84, plant), team.anchors(84, plant)
    for watched in judge(nights, anchors, 0.05).figures:
        if watched.figure.name == plant.figure and watched.alarmed is not None:
            then = judge(until(nights, watched.alarmed), until(anchors, watched.alarmed), 0.05)
            (same,) = [one for one in then.alarms if one.figure.name == plant.figure]
            return same.attribution.cause if same.attribution else "unknown"
    return None


@pytest.mark.parametrize("teams", [2, pytest.param(20, marks=pytest.mark.quality)])
def test_nine_of_ten_causes_are_named_right_on_the_day_of_the_alarm(teams):
    named = []
    for figure, factor, cause in CASES:
        for seed in range(teams):
            found = cause_at_the_alarm(seed, Plant(figure, factor, at=56, cause=cause))
            if found is not None:
                named.append((cause, found))
    right = [cause == found for cause, found in named]
    print(f"{sum(right)} of {len(right)} causes named right; wrong: {[*filter(differ, named)]}")
    assert len(named) >= 0.9 * len(CASES) * teams
    assert sum(right) >= MIN_RIGHT * len(right)


def differ(pair):
    return pair[0] != pair[1]


@pytest.mark.parametrize(
    ("figure", "cause"),
    [("faithfulness", "measurement"), ("turns", "data"), ("characters", "model")],
)
def test_another_classifier_is_the_cause_of_its_figure_alone(figure, cause):
    plant = Plant(figure, 4.0, at=56, cause=cause)
    nights, anchors = Team(7).nights(84, plant), []
    for anchor in Team(7).anchors(84, plant):
        judge = "new" if anchor.day >= day(56) else "old"
        anchors.append(replace(anchor, measured_by="same", judges={FAITHFULNESS: judge}))
    found = attribute(BY_NAME[figure], find_change(figure, nights), nights, anchors)
    assert found.cause == cause


def test_without_anchors_the_cause_is_unknown_and_the_hint_is_there():
    plant = Plant("characters", 0.8, at=56, cause="model")
    nights = Team(1).nights(84, plant)
    change = find_change("characters", nights)
    found = attribute(CHARACTERS, change, nights, [])
    assert found.cause == "unknown"
    assert "weights, settings or engine changed in these days" in found.why


def test_the_parts_of_a_change_add_up_to_it():
    team = Team(2)
    plant = Plant("characters", 0.8, at=56, cause="model")
    nights, anchors = team.nights(84, plant), team.anchors(84, plant)
    change = find_change("characters", nights)
    found = attribute(CHARACTERS, change, nights, anchors)
    assert sum(found.parts.values()) == pytest.approx(change.size)
    assert found.parts["model"] == pytest.approx(-36.0)


def test_the_first_night_of_a_large_change_is_found():
    plant = Plant("characters", 0.7, at=56)
    change = find_change("characters", Team(3).nights(84, plant))
    assert change.since == day(56)
    assert change.size == pytest.approx(-54.0, rel=0.15)


def test_a_new_model_and_new_code_at_once_are_not_told_apart():
    team = Team(4)
    plant = Plant("characters", 0.8, at=56, cause="model")
    nights = team.nights(84, plant)
    both = []
    for anchor in team.anchors(84, plant):
        measured_by = "new" if anchor.serving == "new" else "old"
        both.append(anchor.__class__(**{**anchor.__dict__, "measured_by": measured_by}))
    found = attribute(CHARACTERS, find_change("characters", nights), nights, both)
    assert found.cause == "model or measurement"


@pytest.mark.parametrize(("cause", "named"), [("data", "data"), ("measurement", "unknown")])
def test_without_anchors_the_data_changed_the_input_if_nothing_else_did(cause, named):
    nights = Team(6).nights(84, Plant("turns", 1.3, at=56, cause=cause))
    assert attribute(BY_NAME["turns"], find_change("turns", nights), nights, []).cause == named


def anchors_of(means, changed_at, serving):
    """Return weekly anchors with these means; from `changed_at` on with the new `serving`."""
    found = []
    for anchor, mean in zip(Team(7).anchors(84), means, strict=True):
        figures = {"characters": Measured(200, mean, 80.0)}
        weights = serving if anchor.day >= day(changed_at) else "old"
        found.append(replace(anchor, figures=figures, serving=weights, outputs=str(anchor.day)))
    return found


@pytest.mark.parametrize(
    ("means", "cause"),
    [
        # The last anchor before the change was short by chance.
        ((180, 183, 177, 180, 182, 178, 180, 170, 154, 150, 152, 151), "model"),
        ((180, 183, 177, 180, 182, 178, 180, 190, 176, 184, 180, 180), "data"),
    ],
)
def test_anchors_that_nothing_tells_apart_are_averaged(means, cause):
    nights = Team(7).nights(84, Plant("characters", 0.8, at=56))
    change = Change(day(56), -40.0)
    found = attribute(CHARACTERS, change, nights, anchors_of(means, 56, "old"))
    assert found.cause == cause
    assert sum(found.parts.values()) == pytest.approx(-40.0)


@pytest.mark.parametrize(("serving", "cause"), [("new", "model"), ("old", "data")])
def test_of_two_likely_causes_the_one_that_changed_is_named(serving, cause):
    before = [174.0, 186.0, 180.0, 174.0, 186.0, 180.0, 174.0, 186.0]
    means = [*before, 157.0, 169.0, 163.0, 163.0]  # less than half of the change
    cause_of_nights = "model" if serving == "new" else "data"
    nights = Team(7).nights(84, Plant("characters", 0.8, at=56, cause=cause_of_nights))
    change = Change(day(56), -36.0)
    found = attribute(CHARACTERS, change, nights, anchors_of(means, 56, serving))
    assert found.cause == cause
    assert ("settings or engine changed in these days" in found.why) == (cause == "model")


@pytest.mark.parametrize("anchors_after", [1, 2])
def test_another_model_that_changes_no_anchor_is_not_the_cause(anchors_after):
    """The weights were exchanged in the week in which the export changed."""
    plant = Plant("characters", 0.92, at=56, cause="model")
    nights = Team(7).nights(56 + 7 * anchors_after, plant)
    anchors = anchors_of([180.0] * 12, 56, "new")[: 8 + anchors_after]
    found = attribute(CHARACTERS, Change(day(56), -15.0), nights, anchors)
    assert found.cause == "data"
    assert found.parts["model"] == 0
