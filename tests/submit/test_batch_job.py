"""Claims about following a job of AWS Batch, with stand-ins of Batch and CloudWatch Logs.

Their answers are checked against the shapes that botocore knows of both services.
"""

import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

from job import telemetry
from job.errors import ForbiddenError
from job.submit.aws_batch import BY_HAND
from job.submit.batch_job import BatchJob
from job.submit.follow import STOPPED_BY_A_PERSON, Outcome, follow
from tests.submit.following import Moments, nothing_happens, shown

ID = "0a1b"
GROUP = "/recap/recap"
NAMES = {"jobName": "n", "jobQueue": "q", "startedAt": 1, "jobDefinition": "d"}


@cache
def output_of(service: str, operation: str) -> Any:
    model = botocore.session.get_session().get_service_model(service)
    return model.operation_model(operation).output_shape


def checked(service: str, operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer. Fail if the service could not give it."""
    validate_parameters(answer, output_of(service, operation))
    return answer


def denied(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


class Aws:
    """Batch with these jobs and Logs with these streams; both are changed while a test sleeps."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.streams: dict[str, list[str]] = {}
        self.refusals: list[str] = []  # error codes of the next requests for a log
        self.is_throttled = False  # every request for a log
        self.has_expired = False  # the login, for every request
        self.asked: list[str] = []  # streams

    def set(self, id: str, status: str, **more: Any) -> None:
        self.jobs[id] = NAMES | {"jobId": id, "status": status} | more

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        assert len(jobs) <= 100
        if self.has_expired:
            raise denied("ExpiredTokenException", "DescribeJobs")
        found = [self.jobs[id] for id in jobs if id in self.jobs]
        return checked("batch", "DescribeJobs", {"jobs": found})

    def get_paginator(self, name: str) -> "Aws":
        assert name == "list_jobs"
        return self

    def paginate(self, jobStatus: str, **parent: str) -> Iterator[dict[str, Any]]:
        (of_parent,) = parent.values()
        mark = {"arrayJobId": ":", "multiNodeJobId": "#"}[next(iter(parent))]
        keys = ("jobId", "jobName", "statusReason")
        for id, job in self.jobs.items():
            if id.startswith(f"{of_parent}{mark}") and job["status"] == jobStatus:
                container = {
                    k: job["container"][k] for k in ("exitCode", "reason") if k in job["container"]
                }
                summary = {key: job[key] for key in keys if key in job} | {"container": container}
                yield checked("batch", "ListJobs", {"jobSummaryList": [summary]})

    def get_log_events(self, logStreamName: str, **more: Any) -> dict[str, Any]:
        assert more["logGroupName"] == GROUP
        self.asked.append(logStreamName)
        if self.has_expired:
            raise denied("ExpiredTokenException", "GetLogEvents")
        if self.is_throttled:
            raise denied("ThrottlingException", "GetLogEvents")
        if self.refusals:
            raise denied(self.refusals.pop(0), "GetLogEvents")
        if logStreamName not in self.streams:
            raise denied("ResourceNotFoundException", "GetLogEvents")
        lines = self.streams[logStreamName]
        first = int(more.get("nextToken", "f/0")[2:])
        page = [{"message": line} for line in lines[first : first + 2]]
        token = f"f/{first + len(page)}"
        return checked("logs", "GetLogEvents", {"events": page, "nextForwardToken": token})


@pytest.fixture
def aws(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Aws:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(telemetry, "_WARNED", set())
    return Aws()


def followed(aws: Aws, *changes: Any) -> Outcome:
    return follow(BatchJob(ID, GROUP, aws, aws), "aws batch terminate-job", Moments(*changes))


def container(code: int | None = None, stream: str | None = None, reason: str = "") -> dict:
    found = {"exitCode": code, "logStreamName": stream, "reason": reason or None}
    return {key: value for key, value in found.items() if value is not None}


def test_a_job_is_followed_from_the_queue_through_a_retry_to_its_end(aws, caplog):
    attempt = {"container": container(75, "train/1", "Essential container exited"), "stoppedAt": 2}

    def waits() -> None:
        reason = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no capacity"
        aws.set(ID, "RUNNABLE", statusReason=reason)

    def runs() -> None:
        aws.set(ID, "RUNNING", container=container(stream="train/1"))
        aws.streams["train/1"] = ["one", "two", "three"]

    def is_preempted() -> None:
        aws.streams["train/1"].append("saved")
        aws.set(ID, "RUNNABLE", attempts=[attempt], container=container())

    def runs_again() -> None:
        aws.set(ID, "RUNNING", attempts=[attempt], container=container(stream="train/2"))
        aws.streams["train/2"] = ["resumed"]

    def ends() -> None:
        aws.set(ID, "SUCCEEDED", attempts=[attempt], container=container(0, "train/2"))

    def log_comes_late() -> None:
        aws.streams["train/2"].append("published")

    aws.set(ID, "SUBMITTED")
    moments = (waits, runs, is_preempted, runs_again, ends, log_comes_late)
    assert followed(aws, *moments) == Outcome(0, "")
    again = "attempt 2, after 75 (Essential container exited)"
    assert shown(caplog.records) == [
        "SUBMITTED",
        "RUNNABLE (CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no capacity)",
        "RUNNING",
        "> one",
        "> two",
        "> three",
        "> saved",
        f"RUNNABLE ({again})",
        f"RUNNING ({again})",
        "> resumed",
        "SUCCEEDED",
        "> published",
    ]


@pytest.mark.parametrize(
    ("job", "code", "why"),
    [
        ({"container": container(64)}, 64, "exit code 64"),
        ({"container": container(137, reason="OutOfMemoryError: killed")}, 137, "OutOfMemory"),
        (
            {"statusReason": "Host EC2 (instance i-0) terminated.", "container": {}},
            75,
            "lost its machine: Host EC2",
        ),
        (
            {
                "statusReason": "Task failed to start",
                "container": container(reason="CannotPullContainerError: ref recap:x: not found"),
            },
            66,
            "could not start: CannotPull",
        ),
        (
            {
                "statusReason": "Task failed to start",
                "container": container(reason="DockerTimeoutError: timed out after waiting 4m0s"),
            },
            75,
            "DockerTimeoutError",
        ),
        (
            {"statusReason": "Job attempt duration exceeded timeout", "container": container(75)},
            75,
            "ran out of time",
        ),
        (
            {"statusReason": "Job attempt duration exceeded timeout", "isTerminated": True},
            75,
            "ran out of time",
        ),
        (
            {"statusReason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", "isCancelled": True},
            64,
            "no machine of the queue fits",
        ),
        (
            {"statusReason": BY_HAND, "isTerminated": True, "container": container(75)},
            STOPPED_BY_A_PERSON,
            f"terminated: {BY_HAND}",
        ),
        (
            {"statusReason": "changed my mind", "isCancelled": True},
            STOPPED_BY_A_PERSON,
            "changed my mind",
        ),
    ],
)
def test_every_end_has_the_containers_code_or_one_of_its_cause(aws, job, code, why):
    aws.set(ID, "FAILED", **job)
    ended = followed(aws)
    assert ended.code == code
    assert why in ended.why


def array(aws: Aws, status: str, *workers: tuple[str, dict[str, Any]]) -> None:
    """Set an array job, and its workers by their statuses and containers."""
    counts: dict[str, int] = {"STARTING": 0}
    for index, (of_worker, properties) in enumerate(workers):
        counts[of_worker] = counts.get(of_worker, 0) + 1
        aws.set(f"{ID}:{index}", of_worker, **properties)
    properties = {"size": len(workers), "statusSummary": counts}
    aws.set(ID, status, arrayProperties=properties)


def test_workers_are_told_apart_and_the_worst_of_them_decides(aws, caplog):
    def run() -> None:
        array(
            aws,
            "PENDING",
            ("RUNNING", {"container": container(stream="s/0")}),
            ("RUNNING", {"container": container(stream="s/1")}),
            ("RUNNABLE", {"statusReason": "CAPACITY:X"}),
        )
        aws.streams |= {"s/0": ["zero"], "s/1": ["one"]}

    def end() -> None:
        array(
            aws,
            "FAILED",
            ("SUCCEEDED", {"container": container(0, "s/0")}),
            ("FAILED", {"container": container(75, "s/1")}),
            ("FAILED", {"container": container(77, "s/2")}),
        )
        aws.streams["s/2"] = ["denied"]

    array(aws, "PENDING", *[("RUNNABLE", {})] * 3)
    assert followed(aws, run, end) == Outcome(77, "worker 2 of 3: exit code 77")
    assert shown(caplog.records) == [
        "PENDING (3 RUNNABLE)",
        "PENDING (2 RUNNING, 1 RUNNABLE; worker 2 CAPACITY:X)",
        "worker 0> zero",
        "worker 1> one",
        "FAILED (1 SUCCEEDED, 2 FAILED)",
        "worker 2> denied",
    ]


def test_a_failure_among_more_workers_than_are_shown_is_found(aws):
    ended = [("SUCCEEDED", {"container": container(0)})] * 150
    array(aws, "FAILED", *ended, ("FAILED", {"container": container(65)}))
    assert followed(aws) == Outcome(65, "worker 150 of 151: exit code 65")


def test_the_node_with_the_cause_decides_not_those_that_it_ended(aws):
    aws.set(f"{ID}#0", "FAILED", container=container(75, "n/0"))
    aws.set(f"{ID}#1", "FAILED", container=container(70, "n/1"))
    aws.set(f"{ID}#2", "FAILED", container=container(137, "n/2"))
    aws.streams |= {"n/0": ["a"], "n/1": ["b"], "n/2": ["c"]}
    nodes = {"numNodes": 3, "mainNode": 0, "nodeRangeProperties": []}
    aws.set(ID, "FAILED", nodeProperties=nodes)
    assert followed(aws) == Outcome(70, "node 1 of 3: exit code 70")


def test_a_terminated_array_is_a_persons_doing_whatever_its_workers_say(aws):
    array(aws, "FAILED", *[("FAILED", {"container": container(75)})] * 2)
    aws.jobs[ID] |= {"isTerminated": True, "statusReason": BY_HAND}
    assert followed(aws).code == STOPPED_BY_A_PERSON


def test_throttled_logs_are_asked_for_again_and_no_line_is_lost(aws, caplog):
    aws.set(ID, "SUCCEEDED", container=container(0, "s"))
    aws.streams["s"] = ["one", "two", "three"]
    aws.refusals = ["ThrottlingException"]
    assert followed(aws).code == 0
    lines = [line for line in shown(caplog.records) if line.startswith(">")]
    assert lines == ["> one", "> two", "> three"]


def test_a_log_that_stays_throttled_does_not_hide_the_jobs_end(aws, caplog):
    def is_throttled() -> None:
        aws.is_throttled = True

    def ends() -> None:
        aws.set(ID, "FAILED", container=container(65, "s"))

    aws.set(ID, "RUNNING", container=container(stream="s"))
    aws.streams["s"] = ["one"]
    assert followed(aws, nothing_happens, is_throttled, *[nothing_happens] * 100, ends).code == 65
    cannot = "WARNING: the log cannot be read: asking again"
    last = "WARNING: the end of the log is not shown"
    states = [line for line in shown(caplog.records) if line != "RUNNING"]
    assert states == ["> one", cannot, "FAILED", last]


def test_a_log_that_is_back_after_the_end_is_shown_to_its_end(aws, caplog):
    def is_back() -> None:
        aws.is_throttled = False

    aws.is_throttled = True
    aws.set(ID, "SUCCEEDED", container=container(0, "s"))
    aws.streams["s"] = ["one", "two", "three"]
    assert followed(aws, *[nothing_happens] * 8, is_back).code == 0
    assert shown(caplog.records)[-3:] == ["> one", "> two", "> three"]


def test_a_log_that_is_refused_for_good_leaves_the_others(aws, caplog):
    ended = {"container": container(75, "s/1"), "stoppedAt": 2}
    aws.set(ID, "SUCCEEDED", attempts=[ended], container=container(0, "s/2"))
    aws.streams |= {"s/1": ["one"], "s/2": ["two"]}
    aws.refusals = ["InvalidParameterException"]
    assert followed(aws).code == 0
    lines = shown(caplog.records)
    assert "WARNING: a log is not shown any more" in lines
    assert len([line for line in lines if line.startswith("> ")]) == 1


def test_attempts_that_have_ended_are_read_until_they_are_quiet(aws):
    ended = [{"container": container(75, f"s/{n}"), "stoppedAt": 2} for n in range(10)]
    aws.streams |= {f"s/{n}": ["one", "two"] for n in range(11)}
    aws.set(ID, "RUNNING", attempts=ended, container=container(stream="s/10"))

    def forget() -> None:
        aws.asked.clear()

    def ends() -> None:
        assert set(aws.asked) == {"s/10"}
        assert len(aws.asked) == 5
        aws.set(ID, "SUCCEEDED", attempts=ended, container=container(0, "s/10"))

    assert followed(aws, *[nothing_happens] * 4, forget, *[nothing_happens] * 4, ends).code == 0
    assert set(aws.asked) == {"s/10"}


def test_a_job_that_batch_does_not_show_yet_is_asked_for_again(aws):
    assert followed(aws, lambda: aws.set(ID, "SUCCEEDED")).code == 0


def test_without_the_right_to_read_the_log_the_states_go_on(aws, caplog):
    aws.set(ID, "SUCCEEDED", container=container(0, "s"))
    aws.streams["s"] = ["one"]
    aws.refusals = ["AccessDeniedException"]
    assert followed(aws).code == 0
    assert shown(caplog.records) == [
        "SUCCEEDED",
        "WARNING: the log is not shown: these credentials may not read it",
    ]


def test_credentials_that_expire_end_the_following_with_77(aws):
    aws.set(ID, "RUNNING", container=container(stream="s"))
    aws.has_expired = True
    with pytest.raises(ForbiddenError, match=r"have expired(.|\n)*the job goes on"):
        followed(aws)
