"""Find the date of a scheduled run, from `yesterday`, `today` or `monday` in the scheduler's zone.

The result are variables in which `date` is a date, and `previous_date` is the day before it.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from job.errors import ConfigError

WORDS = ("yesterday", "today", "monday")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
DATE = "RECAP_VAR_DATE"
ZONE = "RECAP_TIME_ZONE"
SCHEDULED = "RECAP_SCHEDULED_AT"
PREVIOUS = "previous_date"
PREVIOUS_DATE = "RECAP_VAR_PREVIOUS_DATE"


def with_date(
    variables: Mapping[str, str], environment: Mapping[str, str], now: datetime
) -> Mapping[str, str]:
    """Return the variables with a date, if `date` is `yesterday`, `today` or `monday`.

    `monday` is the last one until today: a weekly run that is tried again on the days after has the
    same. The day is that of RECAP_SCHEDULED_AT if the scheduler sets it, so that waiting in a queue
    does not change it. Otherwise it is that of `now`, which has a time zone. Days begin as in
    RECAP_TIME_ZONE, or else UTC.

    Raise ConfigError if the time or the zone is invalid, or `date` or `previous_date` is no date.
    """
    _check_date(PREVIOUS, PREVIOUS_DATE, variables, environment)
    word = variables.get("date") or environment.get(DATE)
    if word not in WORDS:
        _check_date("date", DATE, variables, environment)
        return variables
    due = environment.get(SCHEDULED)
    day = (_time(due) if due else now).astimezone(_zone(environment.get(ZONE) or "UTC")).date()
    days_before = {"yesterday": 1, "today": 0, "monday": day.weekday()}
    return {**variables, "date": (day - timedelta(days=days_before[word])).isoformat()}


def with_previous_date(
    variables: Mapping[str, str], environment: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the variables with `previous_date`, if there is a `date` and no other value for it."""
    text = variables.get("date") or environment.get(DATE)
    if not text or PREVIOUS in variables or PREVIOUS_DATE in environment:
        return variables
    try:
        day = date.fromisoformat(text) - timedelta(days=1)
    except (ValueError, OverflowError):  # no date, or the first of all
        return variables
    return {**variables, PREVIOUS: day.isoformat()}


def _check_date(
    name: str, in_environment: str, variables: Mapping[str, str], environment: Mapping[str, str]
) -> None:
    """Raise ConfigError if the variable has a value that is no date. An empty value is none."""
    text = variables.get(name) or environment.get(in_environment)
    if not text or _is_date(text):
        return
    where = f"--var {name}" if variables.get(name) else f"{in_environment} in the environment"
    words = ", yesterday, today or monday" if name == "date" else ""
    raise ConfigError(
        f"{where} is {text!r}, wanted a date such as 2026-01-31{words}; a day that is written "
        "otherwise needs a variable of another name: --var day=20260131"
    )


def _is_date(text: str) -> bool:
    try:
        return bool(ISO_DATE.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ConfigError(
            f"{SCHEDULED} is '{text}' in the environment, wanted a time with its zone: "
            "2026-01-31T02:00:00Z"
        )
    return time


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone; a path; a folder of zones
        raise ConfigError(
            f"{ZONE} is '{name}' in the environment, which is no time zone here: name one of the "
            "IANA's, such as Europe/Berlin (tzdata must be installed)"
        ) from None
