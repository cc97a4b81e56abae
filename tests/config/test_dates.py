"""Claims about `date`: it is one date for all processes of a run, whenever they start."""

import re
from datetime import UTC, datetime

import pytest
import yaml

from job.config.dates import with_date, with_previous_date
from job.config.load import load_config
from job.errors import ConfigError

NOW = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
YESTERDAY = {"date": "yesterday"}


@pytest.mark.parametrize(
    ("environment", "date"),
    [
        ({}, "2026-02-28"),
        ({"RECAP_TIME_ZONE": ""}, "2026-02-28"),  # what a scheduler passes for nothing
        ({"RECAP_TIME_ZONE": "Europe/Berlin"}, "2026-03-01"),  # where it is half past midnight
        ({"RECAP_TIME_ZONE": "America/New_York"}, "2026-02-28"),
        ({"RECAP_SCHEDULED_AT": "2026-01-01T00:00:00Z"}, "2025-12-31"),
        (
            {"RECAP_SCHEDULED_AT": "2026-01-01T02:00:00+01:00", "RECAP_TIME_ZONE": "Etc/UTC"},
            "2025-12-31",
        ),
        (
            {"RECAP_SCHEDULED_AT": "2026-01-01T00:00:00Z", "RECAP_TIME_ZONE": "America/New_York"},
            "2025-12-30",
        ),
    ],
)
def test_yesterday_is_the_day_before_the_scheduled_one(environment, date):
    assert with_date(YESTERDAY, environment, NOW) == {"date": date}
    assert with_date({}, environment | {"RECAP_VAR_DATE": "yesterday"}, NOW) == {"date": date}


def test_yesterday_is_a_day_ago_when_clocks_change_not_24_hours():
    spring = datetime(
        2026, 3, 29, 22, 30, tzinfo=UTC
    )  # half past midnight on the 30th; the 29th had 23 hours
    assert with_date(YESTERDAY, {"RECAP_TIME_ZONE": "Europe/Berlin"}, spring) == {
        "date": "2026-03-29"
    }


def test_dates_and_other_variables_stay_as_they_are():
    for variables in ({"date": "2026-01-31"}, {"shard": "yesterday"}, {}):
        assert with_date(variables, {"RECAP_TIME_ZONE": "nowhere"}, NOW) == variables
    named = {"date": "2026-01-31"}
    assert with_date(named, {"RECAP_VAR_DATE": "yesterday"}, NOW) == named


@pytest.mark.parametrize(
    ("variables", "environment", "previous"),
    [
        ({"date": "2026-03-01"}, {}, "2026-02-28"),
        ({}, {"RECAP_VAR_DATE": "2026-01-01"}, "2025-12-31"),
        ({"date": "2026-03-01", "previous_date": "2026-02-20"}, {}, "2026-02-20"),
        (
            {"date": "2026-03-01"},
            {"RECAP_VAR_PREVIOUS_DATE": "2026-02-20"},
            None,
        ),  # taken from there
        ({"date": "0001-01-01"}, {}, None),  # there is no day before
        ({}, {}, None),
    ],
)
def test_the_previous_date_is_the_day_before_unless_it_is_given(variables, environment, previous):
    assert with_previous_date(variables, environment).get("previous_date") == previous


def test_today_is_the_scheduled_day():
    assert with_date({"date": "today"}, {}, NOW) == {"date": "2026-03-01"}
    late = {"RECAP_SCHEDULED_AT": "2026-01-31T23:30:00Z", "RECAP_TIME_ZONE": "Europe/Berlin"}
    assert with_date({"date": "today"}, late, NOW) == {"date": "2026-02-01"}


@pytest.mark.parametrize(
    "text",
    [
        "20260131", "2026-13-45", "2026-02-29", "2026-1-31", "YESTERDAY", "Today", "tomorrow",
        "31.01.2026", "week 9", "2026-W05-6", "2026-01-31T00:00", " 2026-01-31", "2026-01-31\n",
        "\u0662026-01-31", "<date>",
    ],
)  # fmt: skip
def test_an_invalid_date_is_a_mistake_with_its_remedy(text):
    wanted = "wanted a date such as 2026-01-31, yesterday, today or monday; .* --var day="
    with pytest.raises(ConfigError, match=f"--var date is {re.escape(repr(text))}, {wanted}"):
        with_date({"date": text}, {}, NOW)
    with pytest.raises(ConfigError, match="RECAP_VAR_DATE in the environment is"):
        with_date({}, {"RECAP_VAR_DATE": text}, NOW)
    with pytest.raises(
        ConfigError, match=r"--var previous_date is .*wanted a date such as 2026-01-31; "
    ):
        with_date({"date": "2026-03-01", "previous_date": text}, {}, NOW)


@pytest.mark.parametrize(
    ("due", "date"),
    [
        ("2026-02-02T06:00:00Z", "2026-02-02"),  # a Monday
        ("2026-02-05T23:59:00Z", "2026-02-02"),  # tried again on Thursday
        ("2026-02-08T23:30:00+00:00", "2026-02-02"),
        ("2026-02-09T00:30:00Z", "2026-02-09"),
        ("2027-01-01T12:00:00Z", "2026-12-28"),
    ],
)
def test_monday_is_the_last_one_until_the_day_of_the_run(due, date):
    assert with_date({"date": "monday"}, {"RECAP_SCHEDULED_AT": due}, NOW) == {"date": date}


def test_an_empty_date_is_none(config_text):
    """A scheduler passes an empty value for a variable that it does not know."""
    assert with_date({"date": ""}, {"RECAP_VAR_DATE": ""}, NOW) == {"date": ""}


@pytest.mark.parametrize(
    "time", ["2026-01-31", "02:00", "2026-01-31T02:00:00", "<aws.scheduler.scheduled-time>"]
)
def test_an_invalid_time_is_an_error(time):
    with pytest.raises(
        ConfigError,
        match=f"RECAP_SCHEDULED_AT is '{time}'.*wanted a time with its zone: 2026-01-31T",
    ):
        with_date(YESTERDAY, {"RECAP_SCHEDULED_AT": time}, NOW)


@pytest.mark.parametrize("zone", ["Europe", "Berlin", "/etc/localtime", "../UTC", "UTC+1"])
def test_an_invalid_zone_is_an_error(zone):
    with pytest.raises(
        ConfigError, match=r"RECAP_TIME_ZONE is .*no time zone here: name one of the IANA"
    ):
        with_date(YESTERDAY, {"RECAP_TIME_ZONE": zone}, NOW)


def test_all_dates_of_a_config_are_of_one_day(config_text, monkeypatch):
    monkeypatch.setenv("RECAP_VAR_DATE", "yesterday")
    monkeypatch.setenv("RECAP_SCHEDULED_AT", "2026-02-01T02:00:00Z")
    keys = {
        "run": "n-{date}",
        "input": "in/{date}/",
        "adapter": "a",
        "output": "o/{date}/",
        "skip_done": "o/{previous_date}/",
    }
    config = load_config("summarize", config_text(yaml.safe_dump(keys)))
    assert (config.run, config.input, config.output) == (
        "n-2026-01-31",
        "in/2026-01-31/",
        "o/2026-01-31/",
    )
    assert config.skip_done == "o/2026-01-30/"
