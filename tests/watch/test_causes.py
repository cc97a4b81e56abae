"""Claims about the cause of a change: named right, and not named without anchors."""

from dataclasses import replace

import pytest

from job.summarization.quality import FIGURES
from job.watch.causes import Change, attribute, find_change
from job.watch.judge import judge
from job.watch.measured import Measured
from job.watch.nights import WatchedNight
from tests.watch.manifests import manifest_of
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


def attributed(figure, *plants):
    """Return the attribution of a figure by 84 nights of a team, and by its anchors."""
    nights = Team(7).nights(84, *plants)
    anchors = Team(7).anchors(84, *plants)
    return attribute(BY_NAME[figure], find_change(figure, nights), nights, anchors)


@pytest.mark.parametrize("figure", ["faithfulness", "reward"])
@pytest.mark.parametrize(
    ("cause", "named"), [("judge", "measurement"), ("scorer", "measurement"), ("data", "data")]
)
def test_another_model_that_measures_is_the_cause_of_its_figure(figure, cause, named):
    """Also where it is exchanged in the week in which the export changed."""
    plants = Plant(figure, 4.0, at=56, cause=cause), Plant(figure, 1.0, at=56, cause="judge")
    assert attributed(figure, *plants).cause == named


@pytest.mark.parametrize("other", ["judge", "scorer"])
@pytest.mark.parametrize(("figure", "cause"), [("turns", "data"), ("characters", "model")])
def test_another_model_that_measures_is_not_the_cause_of_other_figures(figure, cause, other):
    plants = Plant(figure, 4.0, at=56, cause=cause), Plant("faithfulness", 1.0, 56, other)
    assert attributed(figure, *plants).cause == cause


def test_another_reward_model_measures_rewards_and_chooses_the_rest(real):
    (night,) = Team(4).nights(1)

    def chosen_by(digest):
        candidates = {"count": 4, "reward": {"digest": digest}}
        identity = real[1].extra["identity"] | {"candidates": candidates}
        manifest = manifest_of(real[1], night, identity=identity)
        return WatchedNight.from_manifest(night.day, night.uri, manifest)

    one, other = chosen_by("a"), chosen_by("b")
    assert one.writing("reward") == other.writing("reward")
    assert one.measuring("reward") != other.measuring("reward")
    assert one.writing("characters") != other.writing("characters")
    assert one.measuring("characters") == other.measuring("characters")


def test_code_of_one_figure_measures_that_alone(real):
    (night,) = Team(4).nights(1)

    def scored_by(digest):
        block = manifest_of(real[1], night).extra["quality"] | {"scored_by": {"reward": digest}}
        manifest = manifest_of(real[1], night, quality=block)
        return WatchedNight.from_manifest(night.day, night.uri, manifest)

    one, other = scored_by("a"), scored_by("b")
    assert one.measuring("reward") != other.measuring("reward")
    assert one.writing("reward") == other.writing("reward")
    for figure in ("faithfulness", "characters"):
        assert one.measuring(figure) == other.measuring(figure)
        assert one.writing(figure) == other.writing(figure)


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


@pytest.mark.parametrize(
    ("causes", "named"),
    [
        (("data", "model"), "several"),
        (("data", "measurement"), "several"),
        (("model", "measurement"), "model or measurement"),
    ],
)
def test_two_changes_in_one_night_are_not_named_as_one(causes, named):
    plants = [Plant("characters", 0.9, at=56, cause=cause) for cause in causes]
    found = attributed("characters", *plants)
    assert found.cause == named


def test_what_was_settled_before_the_first_night_is_no_cause():
    """No anchor was run between them: `since` begins after the exchange."""
    team = Team(3)
    plants = Plant("characters", 0.8, at=20, cause="model"), Plant("characters", 0.9, at=70)
    nights = team.nights(98, *plants)[21:]
    change = find_change("characters", nights)
    anchors = team.anchors(98, *plants)
    late = [anchor for anchor in anchors if not day(20) <= anchor.day < day(70)]
    found = attribute(CHARACTERS, change, nights, late)
    assert found.cause == "unknown"
    assert "no anchor night with weights, settings and code of these nights" in found.why
    assert attribute(CHARACTERS, change, nights, anchors).cause == "data"


def test_weights_of_which_no_anchor_was_run_may_be_the_cause():
    """The last anchor is three days older than they are, and the alarm is sooner than the next."""
    plant = Plant("characters", 0.8, at=56, cause="model")
    team = Team(4)
    nights, anchors = team.nights(65, plant), team.anchors(84, plant)
    old = [replace(anchor, serving="old") for anchor in anchors if anchor.day < day(65)]
    found = attribute(CHARACTERS, Change(day(54), -36.0), nights, old)
    assert found.cause == "unknown"
    assert "of the last night" in found.why


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
    change = Change(day(56), -30.0)
    found = attribute(CHARACTERS, change, nights, anchors_of(means, 56, "old"))
    assert found.cause == cause
    assert sum(found.parts.values()) == pytest.approx(-30.0)


@pytest.mark.parametrize(
    ("serving", "shorter", "cause"),
    [("new", 25.0, "model"), ("new", 11.0, "unknown"), ("old", 25.0, "data")],
)
def test_of_two_likely_causes_none_is_named_but_one_that_changed(serving, shorter, cause):
    before = [167.0, 193.0, 180.0, 167.0, 193.0, 180.0, 167.0, 193.0]
    after = [167.0, 193.0, 180.0, 180.0]
    means = [*before, *(mean - shorter for mean in after)]
    cause_of_nights = "model" if serving == "new" else "data"
    nights = Team(7).nights(84, Plant("characters", 0.8, at=56, cause=cause_of_nights))
    change = Change(day(56), -36.0)
    found = attribute(CHARACTERS, change, nights, anchors_of(means, 56, serving))
    assert found.cause == cause
    assert ("settings or engine changed in these days" in found.why) == (cause == "unknown")


@pytest.mark.parametrize("anchors_after", [1, 2])
def test_another_model_that_changes_no_anchor_is_not_the_cause(anchors_after):
    """The weights were exchanged in the week in which the export changed."""
    plant = Plant("characters", 0.92, at=56, cause="model")
    nights = Team(7).nights(56 + 7 * anchors_after, plant)
    anchors = anchors_of([180.0] * 12, 56, "new")[: 8 + anchors_after]
    found = attribute(CHARACTERS, Change(day(56), -15.0), nights, anchors)
    assert found.cause == "data"
    assert found.parts["model"] == 0
