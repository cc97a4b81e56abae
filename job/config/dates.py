"""The day that a scheduled run is about: `yesterday`, of the time that the scheduler meant, in the zone that it names.

Variables and environment → variables in which `date` is a date, and `previous_date` the day before it. Knows nothing of
configs.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from job.errors import ConfigError

YESTERDAY = "yesterday"
DATE, ZONE, SCHEDULED = "RECAP_VAR_DATE", "RECAP_TIME_ZONE", "RECAP_SCHEDULED_AT"
PREVIOUS, PREVIOUS_DATE = "previous_date", "RECAP_VAR_PREVIOUS_DATE"


def with_date(variables: Mapping[str, str], environment: Mapping[str, str], now: datetime) -> Mapping[str, str]:
    """The variables, with the date in place of the word where `date` is `yesterday`; ConfigError if that is unclear.

    Yesterday of RECAP_SCHEDULED_AT where the scheduler says when the run was due, which no waiting moves, else of `now`
    (with its zone); days begin as in RECAP_TIME_ZONE, else UTC.
    """
    if (variables.get("date") or environment.get(DATE)) != YESTERDAY:
        return variables
    due = environment.get(SCHEDULED)
    day = (_time(due) if due else now).astimezone(_zone(environment.get(ZONE) or "UTC")).date()
    return {**variables, "date": (day - timedelta(days=1)).isoformat()}


def with_previous_date(variables: Mapping[str, str], environment: Mapping[str, str]) -> Mapping[str, str]:
    """The variables, with the day before `date` where that is a date such as 2026-01-31 and nobody names another."""
    if PREVIOUS in variables or PREVIOUS_DATE in environment:
        return variables
    try:
        day = date.fromisoformat(variables.get("date") or environment.get(DATE) or "")
    except ValueError:
        return variables
    return {**variables, PREVIOUS: (day - timedelta(days=1)).isoformat()}


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
