"""The day that a scheduled run is about: a date, or `yesterday` or `today` in the scheduler's zone.

Variables and environment → variables in which `date` is a date, and `previous_date` the day before
it. Knows nothing of configs.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from job.errors import ConfigError

DAYS_BEFORE = {"yesterday": 1, "today": 0}  # of the day on which the run was due
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
DATE, ZONE, SCHEDULED = "RECAP_VAR_DATE", "RECAP_TIME_ZONE", "RECAP_SCHEDULED_AT"
PREVIOUS, PREVIOUS_DATE = "previous_date", "RECAP_VAR_PREVIOUS_DATE"


def with_date(
    variables: Mapping[str, str], environment: Mapping[str, str], now: datetime
) -> Mapping[str, str]:
    """Return the variables with a date in place of the word where `date` is `yesterday` or `today`.

    That is a day counted from RECAP_SCHEDULED_AT where the scheduler sets it, which no waiting
    moves, else from `now` (with its zone); days begin as in RECAP_TIME_ZONE, else UTC. Raises
    ConfigError where the time or the zone is unclear, and for a `date` or `previous_date` that is
    no date.
    """
    _check_date(PREVIOUS, PREVIOUS_DATE, variables, environment)
    word = variables.get("date") or environment.get(DATE)
    if word not in DAYS_BEFORE:
        _check_date("date", DATE, variables, environment)
        return variables
    due = environment.get(SCHEDULED)
    day = (_time(due) if due else now).astimezone(_zone(environment.get(ZONE) or "UTC")).date()
    return {**variables, "date": (day - timedelta(days=DAYS_BEFORE[word])).isoformat()}


def with_previous_date(
    variables: Mapping[str, str], environment: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the variables with the day before `date`, if that is set and nobody names another."""
    text = variables.get("date") or environment.get(DATE)
    if not text or PREVIOUS in variables or PREVIOUS_DATE in environment:
        return variables
    try:
        day = date.fromisoformat(text) - timedelta(days=1)
    except (ValueError, OverflowError):  # before the year 1 there is no day
        return variables
    return {**variables, PREVIOUS: day.isoformat()}


def _check_date(
    name: str, in_environment: str, variables: Mapping[str, str], environment: Mapping[str, str]
) -> None:
    """Raise ConfigError if the variable has a value that is no date; an empty value is none."""
    text = variables.get(name) or environment.get(in_environment)
    if not text or _is_date(text):
        return
    where = f"--var {name}" if variables.get(name) else f"{in_environment} in the environment"
    words = ", yesterday or today" if name == "date" else ""
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
            f"{SCHEDULED} is '{text}' in the environment, wanted a time with its zone: 2026-01-31T02:00:00Z"
        )
    return time


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone; a path; a folder of zones
        raise ConfigError(
            f"{ZONE} is '{name}' in the environment, which is no time zone here: name one of the IANA's, such as "
            "Europe/Berlin (tzdata must be installed)"
        ) from None
