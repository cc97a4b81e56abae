"""Claims about the test of a figure: false alarms, weekdays, repetition, and how soon it alarms."""

import statistics
from datetime import date, timedelta

import numpy as np
import pytest

from benchmarks import watch_streams
from job.summarization.quality import FIGURES
from job.watch.judge import judge
from job.watch.martingale import Observation, capital_of, capitals, p_values
from tests.watch.streams import Plant, Team, day

ALPHA = 0.05


@pytest.mark.parametrize("teams", [20, pytest.param(200, marks=pytest.mark.quality)])
def test_at_most_alpha_of_the_teams_without_drift_alarm(teams):
    # All figures together, whose weekdays and sizes differ, over 100 nights.
    alarmed = 0
    for seed in range(teams):
        alarmed += bool(judge(Team(seed).nights(100), (), ALPHA).alarms)
    print(f"{alarmed} of {teams} teams without drift alarmed")
    assert alarmed <= ALPHA * teams


@pytest.mark.parametrize(
    ("figure", "factor"),
    [("characters", 0.9), ("invented_numbers", 2.0), ("turns", 1.15)],
)
def test_a_lasting_change_alarms_within_three_weeks(figure, factor):
    delays = []
    for seed in range(7):
        plant = Plant(figure, factor, at=56)
        verdict = judge(Team(seed).nights(100, plant), (), ALPHA)
        found = [watched for watched in verdict.figures if watched.figure.name == figure]
        alarmed = found[0].alarmed
        delays.append(float("inf") if alarmed is None else (alarmed - day(55)).days)
    assert min(delays) > 0  # no alarm before the change
    print(f"{figure} x {factor}: median delay {statistics.median(delays)} nights")
    assert statistics.median(delays) <= 21


def test_weekdays_that_differ_in_every_way_are_no_drift():
    # Sundays are half as long, and vary ten times as much.
    random = np.random.default_rng(7)
    nights = []
    for number in range(700):
        is_sunday = day(number).weekday() == 6
        level, spread = (15.0, 5.0) if is_sunday else (30.0, 0.5)
        nights.append(Observation(day(number), random.normal(level, spread), 0.1))
    assert max(capitals("characters", nights)) < len(FIGURES) / ALPHA


def test_p_values_are_uniform_and_independent_of_each_other():
    random = np.random.default_rng(3)
    nights = [Observation(day(number), random.standard_cauchy(), 0.3) for number in range(2000)]
    found = np.array(p_values("characters", nights))
    counts, _ = np.histogram(found, bins=10, range=(0, 1))
    assert counts.min() > 160
    assert counts.max() < 240
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.06


def test_a_bet_on_a_uniform_p_value_is_fair():
    grid = [(number + 0.5) / 1000 for number in range(1000)]
    assert statistics.fmean(capital_of([p])[0] for p in grid) == pytest.approx(1.0, abs=1e-3)


def test_nights_judged_again_have_the_same_evidence():
    nights = [Observation(day(number), 1.0 + number % 3, 0.1) for number in range(40)]
    assert capitals("characters", nights) == capitals("characters", nights)
    assert capitals("characters", nights[:30]) == capitals("characters", nights)[:30]


def test_a_figure_that_never_varies_does_not_alarm():
    nights = [Observation(date(2026, 1, 1) + timedelta(number), 0.0, 0.0) for number in range(365)]
    assert max(capitals("empty", nights)) < len(FIGURES) / ALPHA


def test_the_page_has_the_tables_of_the_benchmark():
    text = watch_streams.PAGE.read_text(encoding="utf-8")
    assert f"{len(FIGURES) / ALPHA:.0f} for {len(FIGURES)} figures" in text
    for name in (*watch_streams.NOT_ALLOWED, *watch_streams.CHANGES):
        assert f"\n| {name} | " in text
    for name in watch_streams.ALLOWED:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} | ")]
        assert int(row.split("|")[2].split()[0]) <= ALPHA * watch_streams.STREAMS
    assert watch_streams.page_with(text, {}) == text
