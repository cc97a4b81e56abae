"""Claims about the stack's alarms: what they read, when they tell somebody, and what they tell."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from job.submit.aws_batch import BY_HAND
from tests.infra import stack
from tests.infra.requests import Request

FILLED = "FILL(nights, 0)"
MIDNIGHT = datetime(2026, 2, 1, tzinfo=UTC)


def test_alarms_read_what_recap_tells_at_the_end_of_a_night(capsys):
    from job.telemetry import configure_logging, log_metrics

    configure_logging(person=False)
    counts = {"records": (40, "Count"), "rejects": (2, "Count"), "skipped": (30, "Count")}
    log_metrics("summaries", counts, run="nightly-2026-01-31")
    line = json.loads(capsys.readouterr().err)
    found = stack.watching()
    for name, value in (("NightRecords", 40), ("NightRejects", 2), ("NightSkipped", 30)):
        properties = found[name]["Properties"]
        assert (
            properties["FilterPattern"] == '{ ($.message = "summaries") && ($.run = "nightly*") }'
        )
        (metric,) = properties["MetricTransformations"]
        assert line["message"] == "summaries"
        assert line[metric["MetricValue"].removeprefix("$.")] == value
    published = {m["MetricName"] for n in ("NightRecords", "NightRejects", "NightSkipped")
                 for m in found[n]["Properties"]["MetricTransformations"]}  # fmt: skip
    metrics = found["TooManyRejects"]["Properties"]["Metrics"]
    read = {m["MetricStat"]["Metric"]["MetricName"] for m in metrics
            if "MetricStat" in m}  # fmt: skip
    assert read == published
    (share,) = (
        m["Expression"]
        for m in found["TooManyRejects"]["Properties"]["Metrics"]
        if "Expression" in m
    )
    assert "rejects / (records - skipped)" in share, "as limits.max_reject_fraction counts"
    counted = stack.watching(Night="on")["NoNightEnded"]["Properties"]["Metrics"]
    assert {
        m["MetricStat"]["Metric"]["MetricName"] for m in counted if "MetricStat" in m
    } <= published


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


def test_a_job_that_a_person_stops_is_no_alarm_and_one_without_a_reason_is():
    detail = stack.watching()["JobFailed"]["Properties"]["EventPattern"]["detail"]
    assert detail["statusReason"] == [{"exists": False}, {"anything-but": BY_HAND}]


def mailed(**detail: Any) -> str:
    """The mail that EventBridge makes of a failed job: what is not there is left out."""
    (target,) = stack.watching()["JobFailed"]["Properties"]["Targets"]
    transformer, values = target["InputTransformer"], {}
    for name, path in transformer["InputPathsMap"].items():
        value: Any = {"detail": detail}
        for key in path.removeprefix("$.").split("."):
            value = value.get(key, {})
        values[name] = value or ""
    return str(
        json.loads(
            re.sub(r"<(\w+)>", lambda match: str(values[match[1]]), transformer["InputTemplate"])
        )
    )


def test_the_mail_of_a_failed_job_tells_its_end_or_how_to_ask_for_it():
    job = {
        "jobName": "recap-night",
        "jobId": "1-2",
        "statusReason": "Essential container in task exited",
    }
    mail = mailed(**job, container={"exitCode": 65, "logStreamName": "summarize/default/3"})
    start = (
        "recap-night (1-2) failed: Essential container in task exited. Exit code: 65. "
        "Log group /recap/recap, "
    )
    assert mail.startswith(f"{start}stream summarize/default/3. ")

    commands = re.findall(
        r"aws batch list-jobs((?: --[a-z-]+ [\w-]+)+)", mailed(**job, arrayProperties={"size": 4})
    )
    asked = [dict(re.findall(r"--([a-z-]+) ([\w-]+)", options)) for options in commands]
    assert [each.pop("region") for each in asked] == [stack.REGION] * 2
    requests = [{key.replace("-", ""): value for key, value in each.items()} for each in asked]
    told = [
        Request("batch", "ListJobs", each).parameters() for each in requests
    ]  # which Batch knows
    assert told == [
        {"jobStatus": "FAILED", kind: "1-2"} for kind in ("arrayJobId", "multiNodeJobId")
    ]


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
    (target,) = found["JobFailed"]["Properties"]["Targets"]
    assert target["Arn"] == found["NightLate"]["Properties"]["AlarmActions"][0]
