"""A Job of Kubernetes that is followed, through the pods that replace each other.

Its pods are deleted when the Job fails as a whole, so how each one ended is noted at every look.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from job.errors import ExitCode, RecapError
from job.submit.follow import MAX_FOLLOWED, STOPPED_BY_A_PERSON, Line, Look, Outcome, worst
from job.submit.log_process import LogProcess
from job.submit.tool import Cause, run_tool

CONTAINER = "recap"
JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"
KUEUE_JOB = "kueue.x-k8s.io/job-uid"
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"

# A log that cannot be read to its end, of a node that is gone, is not waited for.
MAX_LOOKS_AFTER_THE_END = 5

# A pod that waits so was given a machine, and does not fail: the Job's deadline ends it.
CANNOT_START = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
)


class KubernetesJob:
    """A Job by its name, the selector of it and its pods, and the kubectl with its options.

    `kind` is what several pods are called: workers or nodes. It is empty for one pod.
    """

    seconds_between_looks: ClassVar[float] = 3.0

    def __init__(
        self,
        name: str,
        selector: str,
        kubectl: Sequence[str],
        causes: Sequence[Cause],
        kind: str = "",
    ) -> None:
        self._name = name
        self._selector = selector
        self._kubectl = kubectl
        self._causes = causes
        self._kind = kind
        self._logs: dict[str, tuple[str, LogProcess]] = {}
        self._ends: dict[str, Outcome] = {}  # of the newest pod of each index that has ended
        self._cannot_start = ""
        self._looks_after_the_end = 0

    def look(self) -> Look:
        """Ask for the Job and its pods."""
        job, pods = self._job_and_pods()
        if job is None:
            why = f"job {self._name} was deleted, or ended so long ago that it was removed"
            return Look("Deleted", why, Outcome(STOPPED_BY_A_PERSON, why))

        for pod in pods:
            self._note_end(pod)
        unread = self._deleted_but_unread(pods)
        for pod in pods[-MAX_FOLLOWED:]:
            if not self._is_log_read(pod):
                unread.append(pod["metadata"]["name"])

        condition = end_of(job)
        if condition is None:
            return self._state(job, pods)
        outcome = self._outcome(condition)
        self._looks_after_the_end += 1
        if unread and self._looks_after_the_end <= MAX_LOOKS_AFTER_THE_END:
            return Look(condition["type"], outcome.why)
        return Look(condition["type"], outcome.why, outcome)

    def lines(self) -> Iterator[Line]:
        """Yield the new lines of every pod."""
        for source, log in self._logs.values():
            for text in log.lines():
                yield Line(text, source)

    def close(self) -> None:
        """End every `kubectl logs`."""
        for _, log in self._logs.values():
            log.close()

    def _job_and_pods(self) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
        """Return the Job, None if it does not exist, and its pods, the oldest first."""
        get = [*self._kubectl, "get", "jobs,pods", "--selector", self._selector, "-o", "json"]
        items = json.loads(run_tool(get, self._causes))["items"]
        job = None
        pods = []
        for each in items:
            if each["kind"] == "Job" and each["metadata"]["name"] == self._name:
                job = each
            elif each["metadata"].get("labels", {}).get(JOB_NAME) == self._name:
                pods.append(each)
        return job, sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def _source(self, pod: Mapping[str, Any]) -> str:
        index = pod["metadata"].get("annotations", {}).get(INDEX, "")
        return f"{self._kind} {index}" if self._kind else ""

    def _note_end(self, pod: Mapping[str, Any]) -> None:
        """Note how the pod ended, or why it cannot start."""
        status = pod.get("status", {})
        state = _state_of(pod)
        ended = state.get("terminated")
        if ended:
            code = ended["exitCode"]
            why = f"exit code {code}"
            if ended.get("reason", "Error") != "Error":
                why += f", {_reason_of(ended)}"
            self._ends[self._source(pod)] = Outcome(code, why)
        elif status.get("phase") == "Failed":
            self._ends[self._source(pod)] = Outcome(ExitCode.RETRY, _reason_of(status))

        waiting = state.get("waiting", {})
        if waiting.get("reason") in CANNOT_START:
            self._cannot_start = _reason_of(waiting)

    def _is_log_read(self, pod: Mapping[str, Any]) -> bool:
        """Return True if the pod has no log, or it was read to its end; else follow it."""
        name = pod["metadata"]["name"]
        is_running = "running" in _state_of(pod)
        if not is_running and "terminated" not in _state_of(pod):
            return True
        if name not in self._logs:
            logs = [*self._kubectl, "logs", "--follow", "--timestamps", "-c", CONTAINER, name]
            self._logs[name] = (self._source(pod), LogProcess(logs, "--since-time"))

        _, log = self._logs[name]
        return log.is_complete(is_running)

    def _deleted_but_unread(self, pods: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the deleted pods whose logs still come."""
        listed = {pod["metadata"]["name"] for pod in pods}
        unread = []
        for name, (_, log) in self._logs.items():
            if name not in listed and not log.has_ended:
                unread.append(name)
        return unread

    def _state(self, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Look:
        if job["spec"].get("suspend"):
            return Look("Suspended", self._why_suspended(job["metadata"]))

        newest = {self._source(pod): pod for pod in pods}
        counts: dict[str, int] = {}
        reasons = []
        for source, pod in newest.items():
            phase = pod.get("status", {}).get("phase", "Pending")
            counts[phase] = counts.get(phase, 0) + 1
            last = self._ends.get(source)
            if last and phase != "Succeeded":
                how = "ended with" if phase == "Failed" else "was replaced after"
                reasons.append(f"{source} {how} {last.why}".strip())
            why = _why_waiting(pod)
            if why:
                reasons.append(f"{source} {why}".strip())

        several = ", ".join(f"{count} {phase}" for phase, count in counts.items())
        state = several if self._kind else "".join(counts)
        return Look(state or "Created", "; ".join(dict.fromkeys(reasons)))

    def _why_suspended(self, metadata: Mapping[str, Any]) -> str:
        """Return why the Job waits, in the words of Kueue if it decides, and may be asked."""
        queue = metadata.get("labels", {}).get(KUEUE_QUEUE)
        if not queue:
            return "spec.suspend is set"

        selector = f"{KUEUE_JOB}={metadata.get('uid')}"
        get = [*self._kubectl, "get", "workloads.kueue.x-k8s.io", "-l", selector, "-o", "json"]
        with suppress(RecapError):
            for workload in json.loads(run_tool(get, self._causes))["items"]:
                for condition in workload.get("status", {}).get("conditions", ()):
                    if condition["type"] == "QuotaReserved" and condition["status"] == "False":
                        return f"in Kueue's queue {queue}: {condition.get('message', '')}"
        return f"in Kueue's queue {queue}"

    def _outcome(self, condition: Mapping[str, Any]) -> Outcome:
        if condition["type"] == "Complete":
            return Outcome(ExitCode.DONE, "")
        why = _reason_of(condition)
        codes = {source: end.code for source, end in self._ends.items()}
        if any(codes.values()):
            source, code = worst(codes)
            return Outcome(code, f"{source} {self._ends[source].why}; {why}".strip())
        if self._cannot_start:
            return Outcome(ExitCode.MISSING, f"could not start: {self._cannot_start}")
        return Outcome(ExitCode.RETRY, why)


def _state_of(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of recap's container; empty before the pod has a machine."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container["name"] == CONTAINER:
            state: Mapping[str, Any] = container["state"]
            return state
    return {}


def _reason_of(found: Mapping[str, Any]) -> str:
    """Return reason and message of a state or a condition, as far as it has them."""
    return ": ".join(filter(None, [found.get("reason"), found.get("message")]))


def _why_waiting(pod: Mapping[str, Any]) -> str:
    """Return why a pod does not run: it has no machine, or its container does not start."""
    waiting = _state_of(pod).get("waiting")
    if waiting:
        return _reason_of(waiting)
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", condition.get("reason", "")))
    return ""


def end_of(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the condition with which the Job has ended, None if it has not."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            found: Mapping[str, Any] = condition
            return found
    return None
