"""Nights as a team has them: weekdays differ, sizes differ, each night varies a little."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from job.summarization.quality import FIGURES, Figure
from job.watch.measured import Measured
from job.watch.nights import WatchedNight

FIRST = date(2026, 1, 1)
SHARE = 0.05  # of every figure that is a share
LEVELS = {
    "characters": 180.0,
    "turns": 8.0,
    "conversation_words": 120.0,
    "characters_per_token": 4.0,
}
SPREADS = {"characters_per_token": 0.1}  # of records, as a share of their mean; else:
SPREAD = 0.45
ANCHOR_RECORDS = 200
OF_ALL = ("characters", "cut", "rejected")  # figures of all records; others are of a sample
RECORDS_PER_SAMPLED = 10
STATES = ("old", "new", "newest")  # of weights and code, by the changes of them so far
LATE = 40  # number of the night with which a new version's figures begin


@dataclass(frozen=True)
class Plant:
    """A change from a night on: of one figure by a factor, for one cause.

    The cause `judge` is another model that measures the figure: the code is the same. `scorer` is
    other code that measures this figure alone.
    """

    figure: str
    factor: float
    at: int
    cause: str = "data"


def day(number: int) -> date:
    """Return the day of a night, counted from 0."""
    return FIRST + timedelta(days=number)


@dataclass(frozen=True)
class Habits:
    """The ways in which a team's nights vary while nothing changes.

    Spreads are standard deviations as a share of a figure's level. `together` and `neighbors` are
    correlations: of the figures of one night, and of each night with the one before.
    """

    night_spread: float = 0.03
    sunday_spread: float = 0.03
    weekday_spread: float = 0.1
    anchors_vary: bool = False  # a model that samples: each anchor's records are drawn anew
    together: float = 0.0
    neighbors: float = 0.0
    records: tuple[int, int] = (120, 200)  # sampled ones of a night; log-uniform between them
    share: float = SHARE
    missing: float = 0.0  # nights that were never summarized
    works_weekends: bool = True
    constant: Collection[str] = ()  # figures that never vary
    late: Collection[str] = ()  # figures that begin with night LATE
    follows_size: float = 0.0  # power of a night's records by which its figures grow


class Team:
    """A team whose nights are drawn at random: each weekday has a level of its own.

    With `figures`, its nights have these alone.
    """

    def __init__(
        self,
        seed: int,
        habits: Habits = Habits(),
        figures: Sequence[Figure] = FIGURES,
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._habits = habits
        self._figures = figures
        levels = self._random.normal(0.0, habits.weekday_spread, (len(FIGURES), 7))
        self._weekdays = dict(zip([figure.name for figure in FIGURES], levels, strict=True))

    def nights(self, count: int, *plants: Plant) -> list[WatchedNight]:
        """Return so many nights, one a day but for those that are missing."""
        waves = self._waves(count)
        found = []
        for number in range(count):
            is_closed = day(number).weekday() >= 5 and not self._habits.works_weekends
            if not is_closed and self._random.random() >= self._habits.missing:
                found.append(self._night(number, plants, waves[number]))
        return found

    def anchors(self, count: int, *plants: Plant) -> list[WatchedNight]:
        """Return an anchor for each week of so many nights: a change of data does not move it."""
        moving = [plant for plant in plants if plant.cause != "data"]
        return [self._anchor(number, moving) for number in range(3, count, 7)]

    def _waves(self, count: int) -> NDArray[np.float64]:
        """Return a standard normal number for each night and figure, correlated as the habits."""
        habits = self._habits
        common = self._random.standard_normal((count, 1))
        waves = self._random.standard_normal((count, len(self._figures)))
        waves = math.sqrt(habits.together) * common + math.sqrt(1 - habits.together) * waves
        for number in range(1, count):
            fresh = math.sqrt(1 - habits.neighbors**2) * waves[number]
            waves[number] = habits.neighbors * waves[number - 1] + fresh
        return waves

    def _night(
        self, number: int, plants: Sequence[Plant], waves: NDArray[np.float64]
    ) -> WatchedNight:
        habits = self._habits
        few, many = habits.records
        records = round(math.exp(self._random.uniform(math.log(few), math.log(many))))
        size = (records / math.sqrt(few * many)) ** habits.follows_size
        weekday = day(number).weekday()
        spread = habits.sunday_spread if weekday == 6 else habits.night_spread
        figures = {}
        for figure, wave in zip(self._figures, waves, strict=True):
            if figure.name in habits.late and number < LATE:
                continue
            level = _level(figure, number, plants, habits.share)
            if figure.name in habits.constant:
                figures[figure.name] = Measured(records, 0.0 if figure.is_share else level, 0.0)
                continue
            level *= max(1 + self._weekdays[figure.name][weekday], 0.1) * size
            level *= math.exp(spread * wave)
            factor = RECORDS_PER_SAMPLED if figure.name in OF_ALL else 1
            figures[figure.name] = self._measured(figure, level, factor * records)
        return _watched(number, records, figures, plants, outputs=f"night {number}")

    def _anchor(self, number: int, plants: Sequence[Plant]) -> WatchedNight:
        figures = {}
        for figure in self._figures:
            level = _level(figure, number, plants, self._habits.share)
            measured = Measured(ANCHOR_RECORDS, level, 0.1 * level)
            if self._habits.anchors_vary:
                measured = self._measured(figure, level, ANCHOR_RECORDS)
            figures[figure.name] = measured
        return _watched(number, ANCHOR_RECORDS, figures, plants, outputs="")

    def _measured(self, figure: Figure, level: float, records: int) -> Measured:
        if figure.is_share:
            mean = self._random.binomial(records, min(level, 1.0)) / records
            return Measured(records, mean, math.sqrt(mean * (1 - mean)))
        spread = SPREADS.get(figure.name, SPREAD) * level
        mean = level + self._random.normal(0.0, spread / math.sqrt(records))
        return Measured(records, mean, spread)


def _level(figure: Figure, number: int, plants: Sequence[Plant], share: float) -> float:
    level = share if figure.is_share else LEVELS.get(figure.name, 2.0)
    for plant in plants:
        if plant.figure == figure.name and number >= plant.at:
            level *= plant.factor
    return level


def _watched(
    number: int,
    records: int,
    figures: dict[str, Measured],
    plants: Sequence[Plant],
    outputs: str,
) -> WatchedNight:
    causes = [plant.cause for plant in plants if number >= plant.at]
    serving = STATES[causes.count("model")]
    return WatchedNight(
        day=day(number),
        uri=f"dt={day(number)}",
        records=records,
        figures=figures,
        serving=serving,
        measured_by=STATES[causes.count("measurement")],
        input="anchor",
        outputs=outputs or serving,
        judges={
            plant.figure: STATES[number >= plant.at] for plant in plants if plant.cause == "judge"
        },
        scored_by={
            plant.figure: STATES[number >= plant.at] for plant in plants if plant.cause == "scorer"
        },
    )


def until(nights: Sequence[WatchedNight], last: date) -> list[WatchedNight]:
    """Return the nights that were there on the day `last`."""
    return [night for night in nights if night.day <= last]
