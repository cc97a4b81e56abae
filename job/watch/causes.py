"""The cause of a change: the data, the model, or what measures.

A change of a figure has three parts, which add up. Anchors are nights over an input that never
changes, so what changes there is no change of the data. Between two of them, it is the model's if
the same code measured both, and the measuring code's if the same model wrote both. The rest of the
nights' change is the data's. The largest part is the cause, unless another one is large as well.
Where anchors vary so much that two parts are as likely, what is known to have changed with the
nights decides, and where that is not the largest part, the cause is unknown.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby, pairwise
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from job.summarization.quality import Figure
from job.watch.nights import WatchedNight

Cause = Literal["data", "model", "measurement", "model or measurement", "several", "unknown"]
NOTHING_ELSE = "; nothing else is known to have changed"
DOUBT = timedelta(days=3)  # of the night on which a change began
MAX_ANCHORS_BEFORE = 8  # of a change: older ones may be of another time
# The second largest part of a change that has several causes: a share of the change, and outside
# the anchors' error, of which a part that is nothing seldom has so many.
MIN_SHARE_OF_SEVERAL = 1 / 4
MIN_ERRORS_OF_SEVERAL = 2.5
MIN_NIGHTS_AFTER = 2  # a change that began with the last night alone has no size to speak of


@dataclass(frozen=True)
class Change:
    """A lasting change of a figure: the first night after it, and its size."""

    since: date
    size: float


@dataclass(frozen=True)
class Attribution:
    """The cause of a change, and its parts in units of the figure, by cause.

    `why` is a sentence for people.
    """

    cause: Cause
    parts: dict[Cause, float]
    why: str


def find_change(name: str, nights: Sequence[WatchedNight]) -> Change | None:
    """Return the step that explains most of a figure's course beside its weekdays' means.

    None if there are too few nights with the figure.
    """
    with_figure = [night for night in nights if name in night.figures]
    if len(with_figure) < 2 * MIN_NIGHTS_AFTER:
        return None
    means = np.array([night.figures[name].mean for night in with_figure])
    weekdays = np.array([night.day.weekday() for night in with_figure])
    rest = _without_weekdays(means, weekdays)
    best = None
    most = 0.0
    for first in range(MIN_NIGHTS_AFTER, len(with_figure) - MIN_NIGHTS_AFTER + 1):
        step = np.zeros(len(with_figure))
        step[first:] = 1.0
        # Least squares with weekdays: both sides without their weekdays' means.
        step = _without_weekdays(step, weekdays)
        power = float(step @ step)
        if power < 1e-9:  # each weekday is on one side alone
            continue
        size = float(step @ rest) / power
        explained = size * size * power
        if explained > most:
            most = explained
            best = Change(with_figure[first].day, size)
    return best


def attribute(
    figure: Figure,
    change: Change,
    nights: Sequence[WatchedNight],
    anchors: Sequence[WatchedNight],
) -> Attribution:
    """Return the cause of a figure's change, by the anchors before and after it.

    Without them a figure of the input changed by the data, if nothing else did in these days. Any
    other cause is unknown, and the sentence says what else changed.
    """
    name = figure.name
    beside = _changed_beside(name, change, nights)
    before, after, missing = _around(name, change, nights, anchors)
    if missing:
        hints = _hints(beside)
        if figure.of == "input" and not hints:
            why = f"{missing}, but nothing else changed"
            return Attribution("data", {"data": change.size}, why)
        return Attribution("unknown", {}, f"{missing}{hints}")

    parts: dict[Cause, float] = {"data": change.size}
    states = _states(name, change, before, after)
    of_an_anchor = _error_of_an_anchor(name, states)
    error = 0.0
    for one, other in pairwise(states):
        size = _mean(name, other) - _mean(name, one)
        step = _cause_between(name, one[-1], other[0])
        parts[step] = parts.get(step, 0.0) + size
        parts["data"] -= size
        error = math.hypot(error, of_an_anchor * math.sqrt(1 / len(one) + 1 / len(other)))
    cause = _largest(change, parts, error, beside)
    why = _sentence(change, parts)
    if cause != "several" and cause != _ranked(change, parts)[0]:
        why += _hints(beside) or NOTHING_ELSE
    return Attribution(cause, parts, why)


def _around(
    name: str,
    change: Change,
    nights: Sequence[WatchedNight],
    anchors: Sequence[WatchedNight],
) -> tuple[Sequence[WatchedNight], Sequence[WatchedNight], str]:
    """Return the anchors before and after a change, and a sentence if some are missing.

    Anchors of weights or code that no night had are of another time: an exchange that was settled
    before the first night is no part of the change. After it, one must be like the last night. If
    none is like any night, all have settings of their own, and all count.
    """
    with_figure = [anchor for anchor in anchors if name in anchor.figures]
    kinds = {night.kind(name) for night in nights}
    like_nights = [anchor for anchor in with_figure if anchor.kind(name) in kinds]
    found = like_nights or with_figure
    before = [anchor for anchor in found if anchor.day < change.since - DOUBT]
    after = [anchor for anchor in found if anchor.day >= change.since - DOUBT]
    which = " with weights, settings and code of these nights" if like_nights else ""
    missing = ""
    if not before:
        missing = f"no anchor night{which} is there from before {change.since}"
    elif not after or after[-1].day < change.since:
        missing = f"no anchor night{which} is there from after {change.since}"
    elif like_nights and nights[-1].kind(name) not in {anchor.kind(name) for anchor in after}:
        missing = "no anchor night with weights, settings and code of the last night is there"
    return before, after, missing


def _ranked(change: Change, parts: dict[Cause, float]) -> list[Cause]:
    """Return the causes, the largest part in the direction of the change first."""
    sign = 1.0 if change.size >= 0 else -1.0
    return sorted(parts, key=lambda part: parts[part] * sign, reverse=True)


def _largest(
    change: Change, parts: dict[Cause, float], error: float, beside: Sequence[Cause]
) -> Cause:
    """Return the cause of the largest part, or several if another one is large as well.

    `error` is that of the parts by the anchors, and `beside` what else is known to have changed.
    """
    first, *others = _ranked(change, parts)
    if not others:
        return first
    second = parts[others[0]] if parts[others[0]] * change.size > 0 else 0.0
    least = max(MIN_SHARE_OF_SEVERAL * abs(change.size), MIN_ERRORS_OF_SEVERAL * error)
    if abs(second) > least:
        return "several"
    if len(beside) > 1:
        return first
    rival = beside[0] if beside else next(part for part in (first, *others) if part != "data")
    # What the data lose, the rival part gains: so the two differ by twice the anchors' error.
    is_doubtful = abs(parts["data"] - parts.get(rival, 0.0)) < 2 * error
    if is_doubtful and not beside:
        return "data"  # nothing else is known to have changed
    if is_doubtful and first != rival:
        return "unknown"
    return first


def _states(
    name: str,
    change: Change,
    before: Sequence[WatchedNight],
    after: Sequence[WatchedNight],
) -> list[list[WatchedNight]]:
    """Return the anchors around a change in groups that differ by what is known to differ.

    A model that samples writes each anchor otherwise, so the mean of a group is compared. If
    nothing is known to differ, the anchors before and after the change are the two groups.
    """

    def state(anchor: WatchedNight) -> Hashable:
        return anchor.writing(name), anchor.measuring(name)

    recent = before[-MAX_ANCHORS_BEFORE:]
    states = [list(group) for _, group in groupby([*recent, *after], key=state)]
    first = next(number for number, group in enumerate(states) if before[-1] in group)
    if first < len(states) - 1:
        return states[first:]
    same = [anchor for anchor in states[first] if anchor in before]
    return [same, [anchor for anchor in after if anchor.day >= change.since]]


def _mean(name: str, anchors: Sequence[WatchedNight]) -> float:
    return fmean([anchor.figures[name].mean for anchor in anchors])


def _error_of_an_anchor(name: str, states: Sequence[Sequence[WatchedNight]]) -> float:
    """Return the standard error of an anchor's mean: how much those of one state differ.

    All summarize the same conversations. A model that does not sample writes them alike, and then
    there is none. Where no state has several, it is as if each had conversations of its own.
    """
    freedom = sum(len(state) - 1 for state in states)
    if not freedom:
        return fmean([anchor.figures[name].error for state in states for anchor in state])
    squares = 0.0
    for state in states:
        middle = _mean(name, state)
        squares += sum((anchor.figures[name].mean - middle) ** 2 for anchor in state)
    return math.sqrt(squares / freedom)


def _cause_between(name: str, one: WatchedNight, other: WatchedNight) -> Cause:
    """Return what a difference of a figure between two anchors is due to."""
    if one.measuring(name) == other.measuring(name):
        return "model"  # its weights or settings, or the engine or machine that ran it
    if one.outputs == other.outputs or one.writing(name) == other.writing(name):
        return "measurement"
    return "model or measurement"


def _sentence(change: Change, parts: dict[Cause, float]) -> str:
    shares = [f"{part} {size:+.4g}" for part, size in parts.items()]
    return f"of {change.size:+.4g} since {change.since}: {', '.join(shares)}"


def _changed_beside(name: str, change: Change, nights: Sequence[WatchedNight]) -> Sequence[Cause]:
    """Return what else differs between the nights around the change."""
    around = [night for night in nights if abs(night.day - change.since) <= DOUBT]
    found: list[Cause] = []
    if len({night.writing(name) for night in around}) > 1:
        found.append("model")
    if len({night.measuring(name) for night in around}) > 1:
        found.append("measurement")
    return found


def _hints(beside: Sequence[Cause]) -> str:
    """Return what else changed as the rest of a sentence."""
    hints = ""
    if "model" in beside:
        hints += "; weights, settings or engine changed in these days"
    if "measurement" in beside:
        hints += "; the code that measures changed in these days"
    return hints


def _without_weekdays(
    values: NDArray[np.float64], weekdays: NDArray[np.int64]
) -> NDArray[np.float64]:
    rest = values.astype(np.float64)
    for weekday in range(7):
        of_day = weekdays == weekday
        if of_day.any():
            rest[of_day] -= rest[of_day].mean()
    return rest
