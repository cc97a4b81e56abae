"""Nights as a team has them: weekdays differ, sizes differ, each night varies a little."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

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


@dataclass(frozen=True)
class Plant:
    """A change from a night on: of one figure by a factor, for one cause."""

    figure: str
    factor: float
    at: int
    cause: str = "data"


def day(number: int) -> date:
    """Return the day of a night, counted from 0."""
    return FIRST + timedelta(days=number)


class Team:
    """A team whose nights are drawn at random: each weekday has a level of its own."""

    def __init__(self, seed: int, night_spread: float = 0.03) -> None:
        self._random = np.random.default_rng(seed)
        self._night_spread = night_spread
        self._weekdays = {figure.name: self._random.normal(0.0, 0.1, 7) for figure in FIGURES}

    def nights(self, count: int, plant: Plant | None = None) -> list[WatchedNight]:
        """Return so many nights, one a day."""
        return [self._night(number, plant) for number in range(count)]

    def anchors(self, count: int, plant: Plant | None = None) -> list[WatchedNight]:
        """Return an anchor for each week of so many nights: a change of data does not move it."""
        if plant is not None and plant.cause == "data":
            plant = None
        return [self._anchor(number, plant) for number in range(3, count, 7)]

    def _night(self, number: int, plant: Plant | None) -> WatchedNight:
        records = int(self._random.integers(120, 200))
        figures = {}
        for figure in FIGURES:
            level = _level(figure, number, plant)
            level *= 1 + self._weekdays[figure.name][day(number).weekday()]
            level *= math.exp(self._random.normal(0.0, self._night_spread))
            factor = RECORDS_PER_SAMPLED if figure.name in OF_ALL else 1
            figures[figure.name] = self._measured(figure, level, factor * records)
        return _watched(number, records, figures, plant, outputs=f"night {number}")

    def _anchor(self, number: int, plant: Plant | None) -> WatchedNight:
        figures = {}
        for figure in FIGURES:
            level = _level(figure, number, plant)
            figures[figure.name] = Measured(ANCHOR_RECORDS, level, 0.1 * level)
        return _watched(number, ANCHOR_RECORDS, figures, plant, outputs="")

    def _measured(self, figure: Figure, level: float, records: int) -> Measured:
        if figure.is_share:
            mean = self._random.binomial(records, min(level, 1.0)) / records
            return Measured(records, mean, math.sqrt(mean * (1 - mean)))
        spread = SPREADS.get(figure.name, SPREAD) * level
        mean = level + self._random.normal(0.0, spread / math.sqrt(records))
        return Measured(records, mean, spread)


def _level(figure: Figure, number: int, plant: Plant | None) -> float:
    level = SHARE if figure.is_share else LEVELS.get(figure.name, 2.0)
    if plant is not None and plant.figure == figure.name and number >= plant.at:
        level *= plant.factor
    return level


def _watched(
    number: int,
    records: int,
    figures: dict[str, Measured],
    plant: Plant | None,
    outputs: str,
) -> WatchedNight:
    cause = plant.cause if plant is not None and number >= plant.at else ""
    serving = "new" if cause == "model" else "old"
    return WatchedNight(
        day=day(number),
        uri=f"dt={day(number)}",
        records=records,
        figures=figures,
        serving=serving,
        measured_by="new" if cause == "measurement" else "old",
        input="anchor",
        outputs=outputs or serving,
    )


def until(nights: Sequence[WatchedNight], last: date) -> list[WatchedNight]:
    """Return the nights that were there on the day `last`."""
    return [night for night in nights if night.day <= last]
