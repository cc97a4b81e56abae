"""The default schedules of nights name hours that every day of every time zone has once."""

import re
from datetime import date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
import yaml

from tests.infra import stack
from tests.infra.kustomize import FOLDER

FIRST, YEARS = date(2026, 1, 1), 10


def aws_hour(parameter: str) -> int:
    template = stack.TEMPLATE if parameter == "NightStart" else stack.WATCH
    schedule = stack.load(template)["Parameters"][parameter]["Default"]
    found = re.fullmatch(r"cron\(0 (\d+) \* \* \? \*\)", schedule)
    assert found
    return int(found[1])


def kubernetes_hour() -> int:
    text = (FOLDER / "base" / "summarize.yaml").read_text(encoding="utf-8")
    (schedule,) = (each["spec"]["schedule"] for each in yaml.safe_load_all(text))
    found = re.fullmatch(r"0 (\d+) \* \* \*", schedule)
    assert found
    return int(found[1])


@cache
def days_of_changes() -> list[tuple[str, date]]:
    """Return each zone with each day before or on which its clocks change."""
    days = [FIRST + timedelta(days=n) for n in range(YEARS * 365)]
    noons = [datetime(day.year, day.month, day.day, 12) for day in days]
    found = []
    for name in sorted(available_timezones()):
        offsets = [ZoneInfo(name).utcoffset(noon) for noon in noons]
        for before, after, day in zip(offsets, offsets[1:], days[1:], strict=False):
            if before != after:
                found += [(name, day - timedelta(days=1)), (name, day)]
    return found


def zones_that_skip_or_repeat(hour: int) -> set[str]:
    """Return the zones in which this hour does not happen exactly once on each day."""
    found = set()
    for name, day in days_of_changes():
        time = datetime(day.year, day.month, day.day, hour)
        # Both folds differ for a time that is skipped and for one that happens twice.
        if ZoneInfo(name).utcoffset(time) != ZoneInfo(name).utcoffset(time.replace(fold=1)):
            found.add(name)
    return found


def test_every_night_of_every_zone_starts_and_is_due_once():
    for hour in (aws_hour("NightStart"), aws_hour("NightDue"), kubernetes_hour()):
        assert zones_that_skip_or_repeat(hour) == set(), hour


@pytest.mark.parametrize("name", ["infra/aws/README.md", "docs/orchestrators.md"])
def test_the_hours_that_a_page_names_are_those_that_are_safe_everywhere(name):
    page = (FOLDER.parent.parent / name).read_text(encoding="utf-8")
    first, last = re.findall(r"From (\d\d):00 to (\d\d):59, every time zone", page)[0]
    for hour in range(24):
        is_safe = int(first) <= hour <= int(last)
        assert (zones_that_skip_or_repeat(hour) == set()) is is_safe, hour


def test_two_in_the_morning_would_be_skipped_or_repeated():
    assert zones_that_skip_or_repeat(2) >= {"Europe/Berlin", "America/New_York"}


def test_nights_start_at_one_hour_everywhere_and_are_due_in_their_window():
    start, due = aws_hour("NightStart"), aws_hour("NightDue")
    hours = stack.load(stack.WATCH)["Parameters"]["NightHours"]["Default"]
    assert hours == due - start + 1
    assert start == kubernetes_hour()
