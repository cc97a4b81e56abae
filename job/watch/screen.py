"""The verdict of `recap watch` for a terminal, and as JSON for programs."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from job.printable import number_of
from job.watch.challengers import Compared
from job.watch.judge import Verdict, Watched

HEAD = ("figure", "last night", "usual", "evidence", "")
FEW_NIGHTS = 28  # four of each weekday: docs/watching.md has the delays
HEAD_OF_TRIAL = ("figure", "adapter", "challenger", "difference [95% interval]", "")


def screen(verdict: Verdict) -> str:
    """Return the verdict as a table of figures, with a line for each alarm below it."""
    last = verdict.nights[-1].day
    anchors = number_of(len(verdict.anchors), "anchor", "anchors")
    lines = [f"{which_nights(verdict)}, {anchors}", ""]
    lines += _table([HEAD, *(_row(watched, last) for watched in verdict.figures)])
    lines += ["", explanation(verdict)]
    for watched in verdict.alarms:
        lines.append(f"{watched.figure.title}: {sentence(watched)}")
    trial = verdict.trial
    if trial is not None:
        rows = [row_of_trial(each) for each in trial.figures]
        lines += ["", trial.title(), "", *_table([HEAD_OF_TRIAL, *rows])]
    return "\n".join(lines)


def which_nights(verdict: Verdict) -> str:
    """Return how many nights were compared, from when to when, and how many are not among them."""
    first, last = verdict.nights[0].day, verdict.nights[-1].day
    text = f"{number_of(len(verdict.nights), 'night', 'nights')} from {first} to {last}"
    gaps = []
    without = (last - first).days + 1 - len(verdict.nights) - verdict.left_out
    if without:
        gaps.append(f"{number_of(without, 'day', 'days')} without one")
    if verdict.left_out:
        gaps.append(f"{number_of(verdict.left_out, 'night', 'nights')} left out")
    return f"{text} ({', '.join(gaps)})" if gaps else text


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of five cells as lines: a title, numbers, and a mark."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:4], widths[1:4], strict=True)]
        lines.append("  ".join([*cells, row[4]]).rstrip())
    return lines


def row_of_trial(each: Compared) -> tuple[str, ...]:
    """Return a figure of both sides as cells, as `HEAD_OF_TRIAL` names them."""
    is_share = each.figure.is_share
    interval = f"[{_signed(each.low, is_share)}, {_signed(each.high, is_share)}]"
    return (
        each.figure.title,
        _value(each.adapter.mean, is_share),
        _value(each.challenger.mean, is_share),
        f"{_signed(each.difference, is_share)} {interval}",
        "outside" if each.is_outside else "",
    )


def explanation(verdict: Verdict) -> str:
    """Return what the evidence means, and whether there are too few nights for much of it."""
    threshold = verdict.figures[0].threshold
    text = (
        f"Evidence of {threshold:,.0f} is an alarm. Without a change, any figure ever reaches it "
        f"with a probability of at most {verdict.alpha:.0%}."
    )
    if not verdict.nights[-1].records:
        text += " The last night has no records."
    if len(verdict.nights) < FEW_NIGHTS:
        text += f" With fewer than {FEW_NIGHTS} nights, most changes are not noticed yet."
    return text


def sentence(watched: Watched) -> str:
    """Return one sentence about a figure that changed: when, how much and why."""
    told = f"alarm on {watched.alarmed}"
    if watched.change is not None:
        told += f", changed by {watched.change.size:+.4g} from {watched.change.since} on"
    if watched.attribution is not None:
        told += f"; cause: {watched.attribution.cause} ({watched.attribution.why})"
    return f"{told}."


def of_the_night(watched: Watched, day: date) -> float | None:
    """Return the figure of the night of this day; None if that night has no such figure."""
    found = [night.mean for night in watched.observations if night.day == day]
    return found[0] if found else None


def usual(watched: Watched, day: date) -> float | None:
    """Return the mean over the nights of this weekday before this day; None without any."""
    before = [night for night in watched.observations if night.day < day]
    same = [night.mean for night in before if night.day.weekday() == day.weekday()]
    return sum(same) / len(same) if same else None


def shown(watched: Watched, value: float | None) -> str:
    """Return a value of the figure as text."""
    return "" if value is None else _value(value, watched.figure.is_share)


def _value(value: float, is_share: bool) -> str:
    return f"{value:.2%}" if is_share else f"{value:,.2f}"


def _signed(value: float, is_share: bool) -> str:
    return f"{100 * value:+.2f}" if is_share else f"{value:+,.2f}"


def evidence(watched: Watched) -> str:
    """Return the evidence of a change after the last night as text."""
    capital = watched.capitals[-1]
    return f"{capital:,.2f}" if capital < 1e6 else f"{capital:.0e}"


def to_json(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as JSON: for each figure its nights, evidence, change and cause."""
    return {
        "alarm": bool(verdict.alarms),
        "alpha": verdict.alpha,
        "nights": len(verdict.nights),
        "anchors": len(verdict.anchors),
        "figures": {watched.figure.name: _figure(watched) for watched in verdict.figures},
        "challenger": None if verdict.trial is None else verdict.trial.to_json(),
    }


def _row(watched: Watched, last: date) -> tuple[str, ...]:
    title = watched.figure.title
    if not watched.observations:
        return (title, "", "", "", "")
    mark = f"ALARM since {watched.alarmed}" if watched.alarmed else ""
    of_last = shown(watched, of_the_night(watched, last))
    return (title, of_last, shown(watched, usual(watched, last)), evidence(watched), mark)


def _figure(watched: Watched) -> dict[str, Any]:
    nights = []
    for night, capital in zip(watched.observations, watched.capitals, strict=True):
        nights.append(
            {
                "night": night.day.isoformat(),
                "mean": night.mean,
                "error": round(night.error, 9),
                "evidence": round(capital, 6),
            }
        )
    change = watched.change
    attribution = watched.attribution
    return {
        "title": watched.figure.title,
        "threshold": watched.threshold,
        "alarmed": watched.alarmed and watched.alarmed.isoformat(),
        "change": change and {"since": change.since.isoformat(), "size": change.size},
        "cause": attribution and attribution.cause,
        "parts": attribution and attribution.parts,
        "nights": nights,
    }
