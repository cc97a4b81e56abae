"""The page of `recap watch`: each figure and its evidence over the nights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from job.config.watch_config import WatchConfig
from job.errors import ConfigError
from job.pages.charts import Curve, LineChart, Table, line_chart
from job.pages.render import render
from job.storage.keys import split_file
from job.storage.open import open_store
from job.watch.judge import Verdict, Watched
from job.watch.nights import WatchedNight
from job.watch.screen import (
    HEAD_OF_TRIAL,
    evidence,
    explanation,
    of_the_night,
    row_of_trial,
    sentence,
    shown,
    usual,
    which_nights,
)

TEMPLATE = "page_of_nights.html"


@dataclass(frozen=True)
class DrawnFigure:
    """A figure for the page: its charts, and the sentence if it changed."""

    id: str
    title: str
    course: LineChart | None
    evidence: LineChart | None
    sentence: str


@dataclass(frozen=True)
class ShownTrial:
    """The challenger that was tried last for the page: who, how and when, and both sides."""

    title: str
    table: Table


def check_name(uri: str) -> None:
    """Raise ConfigError if `uri` is no name of a page."""
    if not uri.endswith(".html"):
        raise ConfigError(f"--plot: got {uri}, wanted a file whose name ends in .html")


def write_page(uri: str, config: WatchConfig, verdict: Verdict) -> None:
    """Write the page to `uri`, a path or a URI of S3."""
    folder, name = split_file(uri)
    open_store(folder, config.storage).write(name, page(config, verdict).encode())


def page(config: WatchConfig, verdict: Verdict) -> str:
    """Return the page as HTML. Figures that changed come first."""
    first = verdict.nights[0].day
    figures = sorted(verdict.figures, key=lambda watched: watched.alarmed is None)
    drawn = [_draw(watched, first, verdict.anchors) for watched in figures if watched.observations]
    return render(
        "job.watch",
        TEMPLATE,
        title=f"Nights of {config.run}",
        nights=config.nights,
        is_alarm=bool(verdict.alarms),
        sentence=_verdict(verdict),
        explanation=explanation(verdict),
        table=_table(figures, verdict.nights[-1].day),
        challenger=_trial(verdict),
        figures=drawn,
    )


def _trial(verdict: Verdict) -> ShownTrial | None:
    trial = verdict.trial
    if trial is None:
        return None
    rows = [row_of_trial(each) for each in trial.figures]
    title = f"{trial.title()}. Nobody is alarmed; the intervals are for one look."
    return ShownTrial(title[0].upper() + title[1:], Table(HEAD_OF_TRIAL, rows))


def _verdict(verdict: Verdict) -> str:
    between = which_nights(verdict)
    if not verdict.alarms:
        return f"{between}: no figure changed."
    titles = ", ".join(watched.figure.title for watched in verdict.alarms)
    return f"{between}: changed: {titles}."


def _draw(watched: Watched, first: date, anchors: Sequence[WatchedNight]) -> DrawnFigure:
    figure = watched.figure
    x_name = f"days after {first}"

    def at(day: date) -> float:
        return float((day - first).days)

    points = [(at(night.day), night.mean) for night in watched.observations]
    curves = [Curve("nights", points)]
    of_anchors = []
    for anchor in anchors:
        if figure.name in anchor.figures and anchor.day >= first:
            of_anchors.append((at(anchor.day), anchor.figures[figure.name].mean))
    if of_anchors:
        curves.append(Curve("anchors", of_anchors, "quiet"))

    powers = []
    for night, capital in zip(watched.observations, watched.capitals, strict=True):
        powers.append((at(night.day), math.log10(max(capital, 1e-9))))
    level = math.log10(watched.threshold)
    limit = [(powers[0][0], level), (powers[-1][0], level)]
    bets = [Curve("evidence", powers), Curve("alarm", limit, "other")]
    return DrawnFigure(
        id=figure.name,
        title=figure.title,
        course=line_chart(f"{figure.name}-nights", figure.title, curves, x_name),
        evidence=line_chart(f"{figure.name}-evidence", "Evidence, as a power of ten", bets, x_name),
        sentence=sentence(watched) if watched.alarmed else "",
    )


def _table(figures: Sequence[Watched], day: date) -> Table:
    rows = []
    for watched in figures:
        if not watched.observations:
            continue
        last = shown(watched, of_the_night(watched, day))
        cause = watched.attribution.cause if watched.attribution else ""
        alarm = f"{watched.alarmed} {cause}".strip() if watched.alarmed else ""
        cells = (last, shown(watched, usual(watched, day)), evidence(watched), alarm)
        rows.append((watched.figure.title, *cells))
    return Table(("figure", "last night", "usual for the weekday", "evidence", "alarm"), rows)
