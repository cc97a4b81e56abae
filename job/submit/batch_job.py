"""A job of AWS Batch that is followed, through its attempts, its workers and its nodes.

Every attempt of every worker writes a log stream of its own. CloudWatch shows lines some seconds
after they were written, so a stream is read on after its attempt has ended, until it is quiet. The
log decides nothing: what cannot be read of it is a warning, and the job is followed to its end.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from job.errors import ExitCode, RecapError, RetryError
from job.submit.aws import aws_errors, is_denied
from job.submit.follow import MAX_FOLLOWED, STOPPED_BY_A_PERSON, Line, Look, Outcome, worst
from job.telemetry import warn, warn_once

QUIET_LOOKS_AT_THE_END = 3  # of an attempt's log
MAX_FAILED_READS_AT_THE_END = 12  # of a job's log, one after the other: some minutes
SUCCEEDED, FAILED = "SUCCEEDED", "FAILED"

WAITING = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING")

# In the reason of a container that could not start, for example as its image does not exist.
NOT_THERE = ("not found", "NotFound", "does not exist", "manifest unknown")


@dataclass
class _Stream:
    """A log stream, and how far it was read."""

    source: str
    token: str | None = None
    has_ended: bool = False  # its attempt, or the whole job
    quiet_looks: int = 0  # since then, one after the other
    has_more: bool = True  # as far as is known


class BatchJob:
    """A job by its id, and the log group of its definition."""

    seconds_between_looks: ClassVar[float] = 5.0

    def __init__(self, id: str, log_group: str, batch: Any, logs: Any) -> None:
        self._id = id
        self._group = log_group
        self._batch = batch
        self._logs = logs
        self._streams: dict[str, _Stream] = {}
        self._failed_reads = 0  # one after the other, since the job's end
        self._may_read_logs = True

    def look(self) -> Look:
        """Ask for the job, and for the workers or nodes whose logs are shown."""
        found = self._described([self._id])
        if not found:
            # It has just been submitted.
            raise RetryError(f"AWS Batch does not know job {self._id}")
        job = found[0]
        children = self._described(_children_of(job)[:MAX_FOLLOWED])
        has_ended = job["status"] in (SUCCEEDED, FAILED)
        for child in children or [job]:
            self._note_streams(child, has_ended)

        outcome = None
        if not has_ended:
            self._failed_reads = 0
        elif self._has_read_all():
            outcome = self._outcome(job)
        return Look(job["status"], _why(job, children), outcome)

    def lines(self) -> Iterator[Line]:
        """Yield the new events of every stream. Warn of a log that cannot be read."""
        for name, stream in self._unread().items():
            is_quiet = True
            try:
                for line in self._new_lines(name, stream):
                    is_quiet = False
                    yield line
            except RetryError as error:
                # The limits are the account's, so the other streams could not be read either.
                warn_once("the log cannot be read: asking again", why=str(error))
                self._failed_reads += 1
                return
            except RecapError as error:
                warn_once("a log is not shown any more", stream=name, why=str(error))
                stream.has_more = False
                continue
            if stream.has_ended:
                stream.quiet_looks = stream.quiet_looks + 1 if is_quiet else 0
                stream.has_more = stream.quiet_looks < QUIET_LOOKS_AT_THE_END
        self._failed_reads = 0

    def close(self) -> None:
        """Do nothing: requests are all that was started."""

    def _described(self, ids: list[str]) -> list[Mapping[str, Any]]:
        if not ids:
            return []
        with aws_errors(f"asking for job {self._id}"):
            found: list[Mapping[str, Any]] = self._batch.describe_jobs(jobs=ids)["jobs"]
        return found

    def _note_streams(self, job: Mapping[str, Any], has_ended: bool) -> None:
        """Note the streams of the attempts that have ended, and of the newest one."""
        has_ended = has_ended or job["status"] in (SUCCEEDED, FAILED)
        containers = [(job.get("container", {}), has_ended)]
        for attempt in job.get("attempts", ()):
            is_over = has_ended or bool(attempt.get("stoppedAt"))
            containers.append((attempt.get("container", {}), is_over))
        for container, is_over in containers:
            name = container.get("logStreamName")
            if name:
                stream = self._streams.setdefault(name, _Stream(_source_of(job)))
                stream.has_ended = is_over

    def _unread(self) -> dict[str, _Stream]:
        """Return the streams that may have more lines: each costs a request at every look."""
        if not self._may_read_logs:
            return {}
        return {name: stream for name, stream in self._streams.items() if stream.has_more}

    def _has_read_all(self) -> bool:
        """Return True if a job that has ended has no more lines, or none that can be read."""
        if self._failed_reads < MAX_FAILED_READS_AT_THE_END:
            return not self._unread()
        warn("the end of the log is not shown", log=self._group)
        return True

    def _new_lines(self, name: str, stream: _Stream) -> Iterator[Line]:
        while self._may_read_logs:
            events, token = self._next_events(name, stream.token)
            for text in events:
                yield Line(text, stream.source)
            # At the end of a stream, the answer has the token that was asked with.
            if token == stream.token:
                return
            stream.token = token

    def _next_events(self, name: str, token: str | None) -> tuple[list[str], str | None]:
        """Return the messages after the token, and the next token."""
        from botocore.exceptions import ClientError

        with aws_errors(f"reading the log of job {self._id}"):
            where = {"logGroupName": self._group, "logStreamName": name, "startFromHead": True}
            if token:
                where["nextToken"] = token
            try:
                answer = self._logs.get_log_events(**where)
            except ClientError as error:
                if is_denied(error):
                    self._may_read_logs = False
                    warn("the log is not shown: these credentials may not read it", log=self._group)
                elif error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                # A stream is made with its first line.
                return [], token
        return [each["message"] for each in answer["events"]], answer["nextForwardToken"]

    def _outcome(self, job: Mapping[str, Any]) -> Outcome:
        if job["status"] == SUCCEEDED:
            return Outcome(ExitCode.DONE, "")
        own = _outcome_of(job)
        if own.code == STOPPED_BY_A_PERSON:
            return own

        ends = {_source_of(child): _outcome_of(child) for child in self._failed_children(job)}
        if not ends:
            return own
        source, code = worst({source: end.code for source, end in ends.items()})
        return Outcome(code, f"{source} of {len(_children_of(job))}: {ends[source].why}")

    def _failed_children(self, job: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the failed workers or nodes, however many there are."""
        parent = {"multiNodeJobId": self._id} if "nodeProperties" in job else {}
        if "arrayProperties" in job:
            parent = {"arrayJobId": self._id}
        if not parent:
            return
        with aws_errors(f"listing the workers of job {self._id}"):
            pages = self._batch.get_paginator("list_jobs").paginate(**parent, jobStatus=FAILED)
            for page in pages:
                yield from page["jobSummaryList"]


def _children_of(job: Mapping[str, Any]) -> list[str]:
    """Return the ids of the job's workers or nodes; none for a job of one container."""
    id = job["jobId"]
    workers = job.get("arrayProperties", {}).get("size", 0)
    nodes = job.get("nodeProperties", {}).get("numNodes", 0)
    return [f"{id}:{index}" for index in range(workers)] or [
        f"{id}#{node}" for node in range(nodes)
    ]


def _source_of(job: Mapping[str, Any]) -> str:
    """Return the name of a worker or node; empty for a job of one container."""
    id = job["jobId"]
    if "#" in id:
        return f"node {id.rpartition('#')[2]}"
    return f"worker {id.rpartition(':')[2]}" if ":" in id else ""


def _why(job: Mapping[str, Any], children: Iterable[Mapping[str, Any]]) -> str:
    """Return what Batch says of the job's state, and of its workers'."""
    reasons = []
    counts = job.get("arrayProperties", {}).get("statusSummary", {})
    workers = [f"{count} {status}" for status, count in counts.items() if count]
    if workers:
        reasons.append(", ".join(workers))

    for each in (job, *children):
        ended = [attempt for attempt in each.get("attempts", ()) if attempt.get("stoppedAt")]
        about = f"{_source_of(each)} " if _source_of(each) else ""
        if ended and each["status"] not in (SUCCEEDED, FAILED):
            last = _outcome_of(ended[-1])
            reasons.append(f"{about}attempt {len(ended) + 1}, after {last.code} ({last.why})")
        if each["status"] in WAITING and each.get("statusReason"):
            reasons.append(f"{about}{each['statusReason']}")
    return "; ".join(reasons)


def _outcome_of(job: Mapping[str, Any]) -> Outcome:
    """Return the outcome of a failed job, worker, node or attempt.

    It is the container's exit code. A job without one could not start, was stopped by Batch or by a
    person, or lost its machine.
    """
    container = job.get("container", {})
    code = container.get("exitCode")
    status_reason = job.get("statusReason", "")
    why = container.get("reason") or status_reason or f"exit code {code}"

    # A container that is stopped may still end with a code of its own: 75, after recap has saved.
    if "MISCONFIGURATION:" in status_reason:
        return Outcome(ExitCode.CONFIG, f"no machine of the queue fits: {status_reason}")
    if "exceeded timeout" in status_reason:
        return Outcome(code or ExitCode.RETRY, f"ran out of time: {status_reason}")
    if job.get("isTerminated") or job.get("isCancelled"):
        return Outcome(STOPPED_BY_A_PERSON, f"terminated: {status_reason}")
    if code:
        return Outcome(code, why)
    if any(text in why for text in NOT_THERE):
        return Outcome(ExitCode.MISSING, f"could not start: {why}")
    return Outcome(ExitCode.RETRY, f"could not start, or lost its machine: {why}")
