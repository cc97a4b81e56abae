"""Claims about the stack's alarms: what they read, and when they tell somebody."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.infra import stack

FILLED = "FILL(nights, 0)"
MIDNIGHT = datetime(2026, 2, 1, tzinfo=UTC)


def test_alarms_read_metrics_that_a_filter_makes():
    found = stack.watching(Night="on")
    made = {
        metric["MetricName"]
        for resource in found.values()
        if resource["Type"] == "AWS::Logs::MetricFilter"
        for metric in resource["Properties"]["MetricTransformations"]
    }
    metrics = found["TooManyRejects"]["Properties"]["Metrics"]
    read = {m["MetricStat"]["Metric"]["MetricName"] for m in metrics if "MetricStat" in m}
    assert read == {"night_records", "night_rejects", "night_skipped"}
    (share,) = (m["Expression"] for m in metrics if "Expression" in m)
    assert "rejects / (records - skipped)" in share, "as limits.max_reject_fraction counts"
    counted = found["NoNightEnded"]["Properties"]["Metrics"]
    read |= {m["MetricStat"]["Metric"]["MetricName"] for m in counted if "MetricStat" in m}
    read.add(found["GpuIdle"]["Properties"]["MetricName"])
    assert read <= made


def alarmed(
    alarm: Mapping[str, Any], told: list[datetime], now: datetime, further_back: int = 0
) -> bool:
    """Return True if CloudWatch would have an alarm of counts in the state ALARM.

    By its documentation of missing data, it reads more periods than it evaluates (it does not say
    how many) and takes the newest that have data. Only if these are too few, missing ones count,
    here as breaching.
    """
    properties = alarm["Properties"]
    assert (properties["ComparisonOperator"], properties["TreatMissingData"]) == (
        "LessThanThreshold",
        "breaching",
    )
    (metric,) = (each["MetricStat"] for each in properties["Metrics"] if "MetricStat" in each)
    (expression,) = (each["Expression"] for each in properties["Metrics"] if "Expression" in each)
    assert (metric["Stat"], expression in ("nights", FILLED)) == ("SampleCount", True)
    length, periods = int(metric["Period"]), int(properties["EvaluationPeriods"])
    newest = int(now.timestamp()) // length
    counts = Counter(int(moment.timestamp()) // length for moment in told)
    asked = range(newest, newest - periods - further_back, -1)
    found = [counts[period] for period in asked if period in counts]
    if expression == FILLED and found:  # of nothing, it makes nothing
        found = [counts[period] for period in asked]
    return all(count < float(properties["Threshold"]) for count in found[:periods])


def hour_of(schedule: str) -> int:
    found = re.fullmatch(r"cron\(0 (\d+) \* \* \? \*\)", schedule)
    assert found
    return int(found[1])


def start_and_due() -> tuple[datetime, datetime]:
    """When a night is started and when it is due, of a stack with its defaults, on one day."""
    night, deadline = stack.load()["Parameters"], stack.load(stack.WATCH)["Parameters"]
    start = MIDNIGHT + timedelta(hours=hour_of(night["NightStart"]["Default"]))
    return start, MIDNIGHT + timedelta(hours=hour_of(deadline["NightDue"]["Default"]))


@pytest.mark.parametrize("further_back", [0, 2, 24])
@pytest.mark.parametrize("minutes_late", [0, 10, 59])
def test_only_a_night_that_ended_since_it_was_started_is_in_time(minutes_late, further_back):
    start, due = start_and_due()
    asked = due + timedelta(minutes=minutes_late)  # metrics and alarms take their time
    alarm = stack.watching(Night="on")["NoNightEnded"]
    assert alarmed(alarm, [], asked, further_back)
    for ended in (start + timedelta(minutes=5), due - timedelta(minutes=1)):
        assert not alarmed(alarm, [ended], asked, further_back)
    made_up_for_in_the_evening = [MIDNIGHT - timedelta(hours=hours) for hours in (1, 3, 5.5)]
    assert alarmed(alarm, made_up_for_in_the_evening, asked, further_back)


def test_with_hours_that_are_missing_an_earlier_night_would_do():
    alarm = stack.watching(Night="on")["NoNightEnded"]
    (math,) = (each for each in alarm["Properties"]["Metrics"] if "Expression" in each)
    math["Expression"] = "nights"
    assert not alarmed(alarm, [MIDNIGHT - timedelta(hours=1)], start_and_due()[1], further_back=5)


def test_a_night_in_time_is_never_late_as_it_is_announced_soon_or_never():
    found = stack.watching(Night="on")
    policy = found["NightDueSchedule"]["Properties"]["Target"].get("RetryPolicy", {})
    told = timedelta(
        seconds=policy.get("MaximumEventAgeInSeconds", 86400)
    )  # what the scheduler takes by itself
    told += timedelta(
        seconds=found["NightIsDue"]["Properties"]["Period"]
    )  # that NightIsDue stays in alarm
    start, due = start_and_due()
    assert not alarmed(found["NoNightEnded"], [start + timedelta(minutes=5)], due + told)


def test_a_stack_without_nights_misses_none():
    only_with_nights = stack.watching(Night="on").keys() - stack.watching().keys()
    alarms = {"NightIsDue", "NoNightEnded", "NightLate"}
    assert only_with_nights == alarms | {"NightDueSchedule", "NightDueRole"}


def test_a_night_that_was_not_started_sends_a_message_each_time():
    alarm = stack.watching()["NightNotStarted"]["Properties"]
    assert alarm["TreatMissingData"] == "notBreaching", "it ends by itself, and so begins again"
    assert (alarm["Statistic"], alarm["Threshold"]) == ("Sum", 1)
    (group,) = alarm["Dimensions"]
    schedules = [r for r in stack.both(Night="on").values() if r["Type"].endswith("::Schedule")]
    assert {each["Properties"]["GroupName"] for each in schedules} == {group["Value"]}
    assert all("DeadLetterConfig" in each["Properties"]["Target"] for each in schedules), (
        "the scheduler counts those that have one"
    )
    lasts = timedelta(seconds=alarm["Period"] * alarm["EvaluationPeriods"])
    start, due = start_and_due()
    assert lasts < due - start, "so that both schedules can fail in one night"


def test_idle_gpus_are_those_of_the_idlest_job_for_an_hour():
    alarm = stack.watching()["GpuIdle"]["Properties"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("recap/recap", "gpu_utilization")
    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Minimum", "LessThanThreshold")
    assert alarm["Period"] * alarm["EvaluationPeriods"] == 3600
    assert alarm["TreatMissingData"] == "notBreaching", "no job is no idle job"


def test_every_alarm_that_is_not_a_part_of_another_tells_somebody():
    found = stack.watching(Night="on")
    silent = {"NightIsDue", "NoNightEnded"}
    rule = found["NightLate"]["Properties"]["AlarmRule"]
    assert all(found[name]["Type"] == "AWS::CloudWatch::Alarm" for name in silent)
    assert rule.count("ALARM(") == len(silent)
    for name, resource in found.items():
        if (
            resource["Type"] in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
            and name not in silent
        ):
            assert resource["Properties"]["AlarmActions"], name
    for rule in ("JobFailed", "QueueBlocked"):
        (target,) = found[rule]["Properties"]["Targets"]
        assert target["Arn"] == found["NightLate"]["Properties"]["AlarmActions"][0]
