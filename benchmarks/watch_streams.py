"""Measure `recap watch` on simulated nights: false alarms, delays, and causes that are right.

Teams are drawn at random (`tests.watch.streams`). False alarms are of streams without a change,
whose nights vary in ten ways; delays and causes are of planted changes. Writes the tables of
docs/watching.md, all of them without `--tables`:

    python -m benchmarks.watch_streams --tables causes
"""

import argparse
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from job.summarization.quality import FAITHFULNESS, FIGURES, REWARD
from job.watch.judge import Verdict, Watched, judge
from job.watch.nights import WatchedNight
from tests.watch.streams import Habits, Plant, Team, day, until

PAGE = Path(__file__).parents[1] / "docs" / "watching.md"
STREAMS = 200
NIGHTS = 100
WEEKS = 15  # from the first night of a stream to that of the next: days break ties
AFTER = 84  # nights that a team waits for the alarm after a change
ALPHA = 0.05
HALF = [figure.name for figure in FIGURES][::2]
AS_A_TEAM = Habits()
ALLOWED = {
    "each figure by itself; nights vary by 3%, weekdays by 10%": AS_A_TEAM,
    "all figures of a night rise and fall together (0.9)": Habits(together=0.9),
    "weekdays differ by half; Sundays vary ten times as much": Habits(
        weekday_spread=0.5, sunday_spread=0.3
    ),
    "5 to 5,000 sampled records a night": Habits(records=(5, 5000)),
    "busy nights are longer: four times the records, 15% more": Habits(
        records=(20, 2000), follows_size=0.1
    ),
    "shares of 0.2%: most nights have none": Habits(share=0.002),
    "half of the figures never vary": Habits(constant=HALF),
    "half of the figures begin with night 40": Habits(late=HALF),
    "no nights on weekends, one of ten others missing": Habits(works_weekends=False, missing=0.1),
    "nights that vary by 20%": Habits(night_spread=0.2, sunday_spread=0.2),
}
NOT_ALLOWED = {
    "not allowed: each night is like the one before (0.3)": Habits(neighbors=0.3),
    "not allowed: each night is like the one before (0.6)": Habits(neighbors=0.6),
}
CHANGES = {
    "summaries 10% shorter": ("characters", 0.9),
    "summaries 5% shorter": ("characters", 0.95),
    "invented numbers twice as often (5% to 10% of summaries)": ("invented_numbers", 2.0),
    "conversations with 15% more turns": ("turns", 1.15),
}
STARTS = {28: "four weeks", 56: "eight weeks"}
FACTORS = {"characters": 0.9, "invented_numbers": 2.0}
OF_A_JUDGE = {FAITHFULNESS: 2.0, REWARD: 0.9}
CAUSES = ("data", "model", "measurement")
LATER = 56
SOON = 21
ANCHORS = {
    "anchors that agree": AS_A_TEAM,
    "anchors that vary as nights do": Habits(anchors_vary=True),
}
BY_NAME = {figure.name: figure for figure in FIGURES}
MARKS = {
    "false": (
        "<!-- false alarms, by benchmarks/watch_streams.py -->",
        "<!-- end of the false alarms -->",
    ),
    "delays": ("<!-- delays, by benchmarks/watch_streams.py -->", "<!-- end of the delays -->"),
    "causes": ("<!-- causes, by benchmarks/watch_streams.py -->", "<!-- end of the causes -->"),
}


@dataclass(frozen=True)
class Outcome:
    """The end of a planted change: nights until the alarm, and the cause named that day.

    `delay` is infinite without an alarm, and None if the alarm was there before the change.
    """

    delay: float | None
    cause: str | None


@dataclass(frozen=True)
class PlantedCause:
    """A row of the table of causes: what is planted in one night, and the cause that is right."""

    name: str
    plants: Sequence[Plant]
    right: str


def false_alarms(habits: Habits, streams: int) -> int:
    """Return how many of so many streams without a change alarm. None shares a day."""
    alarmed = 0
    for seed in range(streams):
        nights = [_later(night, WEEKS * seed) for night in Team(seed, habits).nights(NIGHTS)]
        alarmed += bool(judge(nights, (), ALPHA).alarms)
    return alarmed


def outcome(seed: int, plants: Sequence[Plant], habits: Habits = AS_A_TEAM) -> Outcome:
    """Return what becomes of planted changes of one figure, all in one night.

    Other figures are there for the threshold alone.
    """
    plant = plants[0]
    team = Team(seed, habits, [BY_NAME[plant.figure]])
    nights = team.nights(plant.at + AFTER, *plants)
    anchors = team.anchors(plant.at + AFTER, *plants)
    alarmed = _planted(judge(nights, anchors, ALPHA), plant).alarmed
    if alarmed is None:
        return Outcome(float("inf"), None)
    if alarmed < day(plant.at):
        return Outcome(None, None)
    then = judge(until(nights, alarmed), until(anchors, alarmed), ALPHA)
    attribution = _planted(then, plant).attribution
    delay = float((alarmed - day(plant.at)).days + 1)
    return Outcome(delay, attribution.cause if attribution else "unknown")


def _planted(verdict: Verdict, plant: Plant) -> Watched:
    (found,) = [each for each in verdict.figures if each.figure.name == plant.figure]
    return found


def _later(night: WatchedNight, weeks: int) -> WatchedNight:
    """Return the night so many weeks later."""
    return replace(night, day=night.day + timedelta(weeks=weeks))


def false_table(streams: int = STREAMS) -> Iterator[str]:
    """Yield the table of false alarms."""
    yield f"| {streams} streams of {NIGHTS} nights without a change | alarmed |"
    yield "|---|---:|"
    for name, habits in {**ALLOWED, **NOT_ALLOWED}.items():
        alarmed = false_alarms(habits, streams)
        yield f"| {name} | {alarmed} ({alarmed / streams:.1%}) |"


def delay_table(teams: int = STREAMS) -> Iterator[str]:
    """Yield the table of delays, by change and by the nights before it."""
    heads = [f"after {name}" for name in STARTS.values()]
    yield f"| change | {' | '.join(f'median delay {head}' for head in heads)} |"
    yield "|---|---|---|"
    for name, (figure, factor) in CHANGES.items():
        cells = []
        for at in STARTS:
            outcomes = [outcome(seed, [Plant(figure, factor, at)]) for seed in range(teams)]
            cells.append(_delays([found.delay for found in outcomes]))
        yield f"| {name} | {' | '.join(cells)} |"


def _delays(found: Sequence[float | None]) -> str:
    delays = [delay for delay in found if delay is not None]
    never = sum(delay == float("inf") for delay in delays)
    median = statistics.median(delays)
    text = "not half of them noticed" if median == float("inf") else f"{median:.0f} nights"
    return f"{text}; {never} of {len(delays)} never" if never else text


def planted_causes() -> Iterator[PlantedCause]:
    """Yield what is planted, row by row."""
    for figure, factor in FACTORS.items():
        for cause in CAUSES:
            yield PlantedCause(cause, [Plant(figure, factor, LATER, cause)], cause)
    for figure, factor in OF_A_JUDGE.items():
        plant = Plant(figure, factor, LATER, "judge")
        yield PlantedCause("another model that measures", [plant], "measurement")
    for figure, factor in FACTORS.items():
        for cause in CAUSES[:2]:
            name = f"{cause}, three weeks after the first night"
            yield PlantedCause(name, [Plant(figure, factor, SOON, cause)], cause)
    for figure, factor in FACTORS.items():
        whole, idle = Plant(figure, factor, LATER), Plant(figure, 1.0, LATER, "model")
        yield PlantedCause("data, and weights that change nothing", [whole, idle], "data")
    for figure, factor in FACTORS.items():
        halves = [Plant(figure, math.sqrt(factor), LATER, cause) for cause in CAUSES[:2]]
        yield PlantedCause("data and model, half each", halves, "several")


def cause_table(teams: int = STREAMS) -> Iterator[str]:
    """Yield the table of causes that were named right on the day of the alarm."""
    yield f"| planted | what changed | right is | {' | '.join(ANCHORS)} |"
    yield "|---|---|---|---|---|"
    for planted in planted_causes():
        cells = [_named(planted, habits, teams) for habits in ANCHORS.values()]
        figure = planted.plants[0].figure
        factor = math.prod(plant.factor for plant in planted.plants)
        change = f"`{figure}` by {factor:g}"
        yield f"| {planted.name} | {change} | {planted.right} | {' | '.join(cells)} |"


def _named(planted: PlantedCause, habits: Habits, teams: int) -> str:
    """Return how many causes are named right, or not at all, of those teams that alarmed."""
    outcomes = [outcome(seed, planted.plants, habits).cause for seed in range(teams)]
    named = [cause for cause in outcomes if cause is not None]
    right = named.count(planted.right)
    text = f"{right} of {len(named)} ({right / len(named):.0%})"
    unknown = named.count("unknown")
    return f"{text}; {unknown} unknown" if unknown else text


def page_with(text: str, tables: Mapping[str, Sequence[str]]) -> str:
    """Return a page with each table between its marks."""
    for name, lines in tables.items():
        first, last = MARKS[name]
        before, _, rest = text.partition(first)
        _, _, after = rest.partition(last)
        text = "\n".join([f"{before}{first}", *lines, f"{last}{after}"])
    return text


def main(names: Iterable[str]) -> None:
    """Measure, and write the tables of these names into the page."""
    tables = {name: list(TABLES[name]()) for name in names}
    PAGE.write_text(page_with(PAGE.read_text("utf-8"), tables), encoding="utf-8")


TABLES = {"false": false_table, "delays": delay_table, "causes": cause_table}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    main(parser.parse_args().tables)
