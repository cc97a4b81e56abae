"""The verdict on nights: which figures changed since when, and why."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from job.summarization.quality import FIGURES, Figure
from job.watch.causes import Attribution, Change, attribute, find_change
from job.watch.challengers import Trial, find_trial
from job.watch.martingale import Observation, capitals
from job.watch.nights import WatchedNight


@dataclass(frozen=True)
class Watched:
    """A figure over the nights: its observations, and the capital that bet on a change.

    `alarmed` is the first night whose capital reached the threshold; `change` and `attribution`
    are there only if there is one.
    """

    figure: Figure
    observations: Sequence[Observation]
    capitals: Sequence[float]
    threshold: float
    alarmed: date | None
    change: Change | None = None
    attribution: Attribution | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict on nights, figure by figure.

    `left_out` counts the nights between the first and the last that the config leaves out.
    """

    nights: Sequence[WatchedNight]
    anchors: Sequence[WatchedNight]
    figures: Sequence[Watched]
    alpha: float
    left_out: int = 0

    @property
    def trial(self) -> Trial | None:
        """The challenger of the last night that had one, over all nights that tried it."""
        return find_trial([(night.day, night.tried) for night in self.nights])

    @property
    def alarms(self) -> list[Watched]:
        """The figures that changed."""
        return [watched for watched in self.figures if watched.alarmed is not None]


def judge(nights: Sequence[WatchedNight], anchors: Sequence[WatchedNight], alpha: float) -> Verdict:
    """Judge all figures of the nights, which are in the order of their days.

    Each figure has an equal part of alpha (Bonferroni), so that all together alarm falsely with a
    probability of at most alpha, however they depend on each other.
    """
    threshold = len(FIGURES) / alpha
    figures = [_watch(figure, nights, anchors, threshold) for figure in FIGURES]
    return Verdict(nights, anchors, figures, alpha)


def since(
    nights: Sequence[WatchedNight],
    first: date | None,
    last: date | None,
    left_out: Collection[date],
) -> list[WatchedNight]:
    """Return the nights from `first` to `last`, both included, without those left out."""
    found = []
    for night in nights:
        is_early = first is not None and night.day < first
        is_late = last is not None and night.day > last
        if not is_early and not is_late and night.day not in left_out:
            found.append(night)
    return found


def _watch(
    figure: Figure,
    nights: Sequence[WatchedNight],
    anchors: Sequence[WatchedNight],
    threshold: float,
) -> Watched:
    observations = []
    for night in nights:
        measured = night.figures.get(figure.name)
        if measured is not None and measured.records:
            observations.append(Observation(night.day, measured.mean, measured.error))
    capital = capitals(figure.name, observations)
    alarmed = None
    for observation, reached in zip(observations, capital, strict=True):
        if reached >= threshold:
            alarmed = observation.day
            break
    change = None
    attribution = None
    if alarmed is not None:
        change = find_change(figure.name, nights)
    if change is not None:
        attribution = attribute(figure, change, nights, anchors)
    return Watched(figure, observations, capital, threshold, alarmed, change, attribution)
