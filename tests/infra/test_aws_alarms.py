"""Claims about the stack's alarms: what they read, and when they tell somebody."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from tests.infra import stack
from tests.infra.cloudwatch import is_in_alarm

FILLED = "FILL(nights, 0)"
# Of https://docs.aws.amazon.com/scheduler/latest/UserGuide/monitoring-cloudwatch.html
SENT_TO_THE_DEAD_LETTERS = "InvocationsSentToDeadLetterCount"
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
    ended = {m["MetricStat"]["Metric"]["MetricName"] for m in counted if "MetricStat" in m}
    assert ended == {"night_records"}, "which each night has, also one that is not good"
    read |= ended
    read |= {found[name]["Properties"]["MetricName"] for name in ("GpuIdle", "GpuFault")}
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
    failure = {SENT_TO_THE_DEAD_LETTERS: 1}
    assert rings("NightNotStarted", of="AWS/Scheduler", minute=29, **failure), "however late it is"
    assert not rings("NightNotStarted", of="AWS/Scheduler", minute=30, **failure)
    assert not rings("NightNotStarted")
    alarm = stack.watching()["NightNotStarted"]["Properties"]
    (group,) = alarm["Dimensions"]
    schedules = [r for r in stack.both(Night="on").values() if r["Type"].endswith("::Schedule")]
    assert {each["Properties"]["GroupName"] for each in schedules} == {group["Value"]}
    assert group["Name"] == "ScheduleGroup"
    assert all("DeadLetterConfig" in each["Properties"]["Target"] for each in schedules), (
        "the scheduler counts those that have one"
    )
    lasts = timedelta(seconds=alarm["Period"] * alarm["EvaluationPeriods"])
    start, due = start_and_due()
    assert lasts < due - start, "so that both schedules can fail in one night"


OF_THE_STACK = "recap/recap"


@cache
def watching() -> dict[str, dict[str, Any]]:
    return stack.watching(Night="on")


def rings(name: str, minute: float = 4, of: str = OF_THE_STACK, **told: Any) -> bool:
    """Return True if the alarm is on in this minute, after these points of these metrics.

    A metric's points are given as a value in minute 0, or by their minutes.
    """
    points = {
        (of, metric): list(values.items()) if isinstance(values, dict) else [(0, values)]
        for metric, values in told.items()
    }
    return is_in_alarm(watching()[name], points, minute)


@pytest.mark.parametrize(
    ("records", "skipped", "rejects", "is_on"),
    [
        (1000, 0, 21, True),
        (1000, 0, 20, False),
        (1000, 0, 0, False),
        (1000, 900, 3, True),
        (1000, 1000, 0, False),
        (0, 0, 0, False),
    ],
)
def test_rejects_are_too_many_of_the_records_that_were_not_skipped(
    records, skipped, rejects, is_on
):
    night = {"night_records": records, "night_skipped": skipped, "night_rejects": rejects}
    assert rings("TooManyRejects", **night) == is_on
    assert not rings("TooManyRejects", minute=5, **night), "each night sends its own message"


def test_the_share_of_rejects_is_the_parameters():
    alarm = stack.watching(MaxRejectPercent="10")["TooManyRejects"]
    for rejects, is_on in ((101, True), (100, False)):
        night = {"night_records": 1000, "night_skipped": 0, "night_rejects": rejects}
        points = {(OF_THE_STACK, name): [(0.0, value)] for name, value in night.items()}
        assert is_in_alarm(alarm, points, minute=0) == is_on


def test_a_single_fault_of_a_gpu_is_told():
    assert rings("GpuFault", gpu_faults=1)
    assert not rings("GpuFault")
    assert not rings("GpuFault", gpu_faults=1, minute=5)


def idle_minutes(loads_for: float, since: int = 0) -> dict[float, float]:
    """Return the lines of a job on its only GPU in two hours: idle at first, and then at work."""
    return {since + m: float(m) if m <= loads_for else 0.0 for m in range(120)}


def test_a_gpu_that_is_idle_for_an_hour_is_told():
    assert rings("GpuIdle", minute=60, gpu_idle_minutes=idle_minutes(loads_for=60))
    assert not rings("GpuIdle", minute=59, gpu_idle_minutes=idle_minutes(loads_for=60))
    assert not rings("GpuIdle", minute=65, gpu_idle_minutes=idle_minutes(loads_for=60))
    assert not rings("GpuIdle"), "no job is no idle job"


def test_jobs_that_are_idle_in_turn_are_not_told():
    jobs = [idle_minutes(loads_for=4, since=5 * number) for number in range(24)]
    points = [point for job in jobs for point in job.items()]
    alarm = watching()["GpuIdle"]
    for minute in range(120):
        assert not is_in_alarm(alarm, {(OF_THE_STACK, "gpu_idle_minutes"): points}, minute)


def test_a_busy_job_hides_no_idle_one():
    points = [*idle_minutes(loads_for=0).items(), *idle_minutes(loads_for=90).items()]
    told = {(OF_THE_STACK, "gpu_idle_minutes"): points}
    assert is_in_alarm(watching()["GpuIdle"], told, minute=70)


def test_what_the_schedule_sends_makes_the_night_due():
    due = watching()["NightDueSchedule"]["Properties"]["Target"]
    sent = json.loads(due["Input"])
    (datum,) = sent["MetricData"]
    told = {datum["MetricName"]: datum["Value"]}
    assert rings("NightIsDue", of=sent["Namespace"], **told)
    assert not rings("NightIsDue", of=sent["Namespace"], minute=5, **told), "of this night only"
    assert not rings("NightIsDue")


def test_both_schedules_are_in_the_stacks_time_zone():
    found = stack.resources(Night="on", TimeZone="Europe/Athens")
    found |= stack.watching(Night="on", TimeZone="Europe/Athens")
    zones = [
        each["Properties"]["ScheduleExpressionTimezone"]
        for each in found.values()
        if each["Type"] == "AWS::Scheduler::Schedule"
    ]
    assert zones == ["Europe/Athens"] * 2


def test_a_night_is_due_when_the_parameter_says():
    when = "cron(30 6 ? * MON-FRI *)"
    schedule = stack.watching(Night="on", NightDue=when)["NightDueSchedule"]["Properties"]
    assert schedule["ScheduleExpression"] == when


def test_a_night_is_late_if_it_is_due_and_has_not_ended():
    rule = watching()["NightLate"]["Properties"]["AlarmRule"]
    first, second = re.fullmatch(r'ALARM\("([^"]+)"\) AND ALARM\("([^"]+)"\)', rule).groups()
    assert [each.rpartition(":")[2] for each in (first, second)] == ["NightIsDue", "NoNightEnded"]


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
