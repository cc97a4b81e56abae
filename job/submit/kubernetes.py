"""Submit to Kubernetes: a Job, copied from a template that the cluster holds.

The template is a CronJob of infra/kubernetes. It decides on image, exit-code rules, deadlines and
volumes. Arguments, environment and the number of pods come from the submission. `kubectl` reads the
template and creates the Job.

An evaluation is a Job by the rules of a training and with its rights, in a pod of a night: it is to
judge with what serves. So it takes both templates, and a cluster needs no third one.
"""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from job.errors import ConfigError, ForbiddenError, MissingError, RetryError
from job.preflight.checks import Check
from job.submit.kubernetes_job import CONTAINER, JOB_NAME, KubernetesJob, end_of
from job.submit.submission import Receipt, Submission, own_job
from job.submit.tool import Cause, run_tool

# Labels by which a run that is under way is found, and costs are told apart.
RUN_LABEL = "recap/run"
COMMAND_LABEL = "recap/command"
DIGEST_LABEL = "recap/config"
COMPONENT_LABEL = "app.kubernetes.io/component"

OF_A_NIGHT = ("RECAP_SHARDS", "RECAP_VAR_DATE")  # variables that an evaluation does without

# Conditions for `kubectl wait`: a job has all its pods, and a pod's container runs or ran. Earlier,
# `kubectl logs` ends at once and prints nothing. There is one condition in each wait, because
# kubectl before 1.36 takes the last of several. There are two waits, because kubectl before 1.33
# does not wait for the creation of pods that it knows only by a label.
HAS_PODS = "jsonpath={.status.startTime}"
STARTED = "jsonpath={.status.containerStatuses[0].state.*.startedAt}"

CAUSES = (
    Cause(
        r"getting credentials|Unauthorized|must be logged in",
        ForbiddenError,
        "log in to the cluster again",
    ),
    Cause(
        r"\(Forbidden\)|is forbidden",
        ForbiddenError,
        "allow it to this user (docs/operations.md, Permissions)",
    ),
    Cause(
        r"connection to the server localhost:8080 was refused",  # kubectl's server without a config
        ConfigError,
        "kubectl has no cluster here: set KUBECONFIG, or log in to one; --template FILE with "
        "--dry-run needs none",
    ),
    Cause(
        r"context .* does not exist|context was not found|no context exists",
        MissingError,
        "`kubectl config get-contexts` lists them; name one with --context",
    ),
    Cause(
        r"\(NotFound\)|not found",
        MissingError,
        "is recap installed there (infra/kubernetes), and is --namespace right? --template takes a "
        "file instead",
    ),
    Cause(
        r"unable to connect|connection to the server|refused|timed? ?out|"
        r"\((ServiceUnavailable|TooManyRequests|InternalError|Timeout|ServerTimeout)\)",
        RetryError,
        "the cluster cannot be reached: check --context and the network, or run again later",
    ),
)


@dataclass(frozen=True)
class Kubernetes:
    """Cluster and namespace, a file with the template if not the cluster's, and the kubectl."""

    cluster: ClassVar[str | None] = "Kubernetes"

    context: str | None = None
    namespace: str = "recap"
    template: Path | None = None
    kubectl: str = "kubectl"

    def check(self, submission: Submission, strict: bool) -> None:
        """Check nothing: the template is read for the request, and the Job checked on creation."""

    def rights(self, submission: Submission) -> list[Check]:
        """Return that nobody was asked: what a service account may do, its own cloud knows."""
        text = "not checked: this machine's rights were used, and the pod has those of its account"
        return [Check("role", text, is_known=False)]

    def request(self, submission: Submission) -> dict[str, Any]:
        """Return the Job.

        Raise MissingError if there is no template, ConfigError if it is not one of recap's.
        """
        is_evaluation = submission.command == "evaluate"
        command = "train" if is_evaluation else submission.command
        name = f"recap-{command}{'-nodes' if submission.nodes > 1 else ''}"
        found = self._template(name)

        job = copy.deepcopy(found["spec"]["jobTemplate"])
        if is_evaluation:
            night = self._template("recap-summarize")["spec"]["jobTemplate"]["spec"]["template"]
            job["spec"]["template"] = _evaluating(job["spec"]["template"], copy.deepcopy(night))
        metadata = job.get("metadata", {})
        if not self.template:  # a file may be of another cluster
            metadata["ownerReferences"] = [_owned_by(found)]
        labels = {
            RUN_LABEL: submission.name,
            COMMAND_LABEL: submission.command,
            DIGEST_LABEL: submission.short_digest,
        }
        metadata["generateName"] = f"{submission.name}-"
        metadata["namespace"] = self.namespace
        metadata["labels"] = metadata.get("labels", {}) | labels

        spec = job["spec"]
        pod = spec["template"]
        pod["metadata"] = pod.get("metadata", {})
        pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | labels
        _fill_in(_container(pod, name), submission)
        if submission.nodes > 1:
            _set_nodes(spec, submission.nodes)
        elif submission.command == "summarize":
            _set_workers(spec, submission.workers)
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}

    def running(self, submission: Submission) -> str | None:
        """Return the name of a Job of the same config that has not ended; warn of another's."""
        label = f"{RUN_LABEL}={submission.name}"
        get = [*self._kubectl(), "get", "jobs", "--selector", label, "-o", "json"]
        jobs = json.loads(run_tool(get, CAUSES))["items"]
        digests = {}
        for job in jobs:
            if end_of(job) is None:
                digests[str(job["metadata"]["name"])] = job["metadata"]["labels"].get(DIGEST_LABEL)
        return own_job({name: each == submission.short_digest for name, each in digests.items()})

    def submit(self, submission: Submission, request: Any) -> str:
        """Create the Job."""
        create = [*self._kubectl(), "create", "-f", "-", "-o", "json"]
        created = run_tool(create, CAUSES, json.dumps(request))
        return str(json.loads(created)["metadata"]["name"])

    def receipt(self, submission: Submission, id: str) -> Receipt:
        """Return kubectl's commands for a Job."""
        pods = ["--selector", f"{JOB_NAME}={id}"]
        pod_count = max(submission.workers, submission.nodes)
        follow = [*self._kubectl(), "logs", "--follow"]
        if pod_count > 1:
            # With a selector kubectl would show the last ten lines, of at most five pods.
            follow += ["--prefix", "--tail=-1", *pods, "--max-log-requests", str(pod_count)]
        else:
            follow.append(f"job/{id}")

        wait = [*self._kubectl(), "wait"]
        commands = {
            "state": [[*self._kubectl(), "describe", "job", id]],
            "wait": [
                [*wait, f"job/{id}", f"--for={HAS_PODS}", "--timeout=1h"],
                [*wait, "pod", *pods, f"--for={STARTED}", "--timeout=1h"],
            ],
            "follow": [follow],
            "stop": [[*self._kubectl(), "delete", "job", id]],
        }
        return Receipt(id, f"of the pods of job {id} in namespace {self.namespace}", commands)

    def watch(self, submission: Submission, id: str) -> KubernetesJob:
        """Return what follows a Job."""
        kind = ""
        if submission.nodes > 1:
            kind = "node"
        elif submission.command == "summarize":
            kind = "worker"
        selector = f"{RUN_LABEL}={submission.name},{DIGEST_LABEL}={submission.short_digest}"
        return KubernetesJob(id, selector, self._kubectl(), CAUSES, kind)

    def _kubectl(self) -> list[str]:
        context = ["--context", self.context] if self.context else []
        return [self.kubectl, *context, "--namespace", self.namespace]

    def _template(self, name: str) -> dict[str, Any]:
        if self.template:
            return _template_from_file(self.template, name)
        return self._template_from_cluster(name)

    def _template_from_cluster(self, name: str) -> dict[str, Any]:
        output = run_tool([*self._kubectl(), "get", "cronjob", name, "-o", "json"], CAUSES)
        return _checked_template(json.loads(output), f"cronjob {name}")


def _owned_by(cron_job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reference with which a Job counts as one of the CronJob, when it succeeds too.

    It does not keep the CronJob from running the next night. A reference that blocks the deletion
    of its owner would need more rights.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron_job["metadata"]["name"],
        "uid": cron_job["metadata"]["uid"],
        "controller": True,
    }


def _template_from_file(path: Path, name: str) -> dict[str, Any]:
    """Return the CronJob of this name from a file of manifests."""
    # In C, ten times as fast, where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
    except (OSError, UnicodeDecodeError) as error:
        raise MissingError(f"--template {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--template {path}: is no YAML: {error}") from error

    for document in documents:
        if not isinstance(document, dict):
            continue
        # `kubectl get -o yaml` writes one list of all manifests.
        for found in document.get("items", [document]):
            if found.get("kind") == "CronJob" and found.get("metadata", {}).get("name") == name:
                return _checked_template(found, f"--template {path}")
    raise MissingError(
        f"--template {path}: has no CronJob {name}: `kubectl kustomize OVERLAY` writes one that has"
    )


def _checked_template(found: Any, where: str) -> dict[str, Any]:
    """Return the template. Raise ConfigError if it lacks what the submission fills in."""
    try:
        containers = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        if not isinstance(containers, list):
            raise TypeError("no list of containers")
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{where}: is no CronJob with a pod: see infra/kubernetes") from error
    template: dict[str, Any] = found
    return template


def _evaluating(training: Mapping[str, Any], night: dict[str, Any]) -> dict[str, Any]:
    """Return the night's pod as one that evaluates with the account and keys of the training."""
    labels = night.get("metadata", {}).get("labels", {})
    if COMPONENT_LABEL in labels:
        labels[COMPONENT_LABEL] = "evaluate"
    for key in ("serviceAccountName", "securityContext"):
        night["spec"].pop(key, None)
        if key in training["spec"]:
            night["spec"][key] = training["spec"][key]

    container = _container(night, "recap-summarize")
    container["command"] = ["recap", "evaluate"]
    container["envFrom"] = _container(training, "recap-train").get("envFrom", [])
    container["env"] = [each for each in container.get("env", ()) if each["name"] not in OF_A_NIGHT]
    return night


def _container(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    for container in pod["spec"]["containers"]:
        if container.get("name") == CONTAINER:
            found: dict[str, Any] = container
            return found
    raise ConfigError(f"template {name} has no container '{CONTAINER}': see infra/kubernetes")


def _fill_in(container: dict[str, Any], submission: Submission) -> None:
    """Set the container's arguments, and add to its environment or override it."""
    container["args"] = [submission.config, *submission.arguments]
    environment = dict(submission.environment)
    if submission.nodes > 1:
        environment["RECAP_NODES"] = str(submission.nodes)
    kept = [each for each in container.get("env", ()) if each["name"] not in environment]
    added = [{"name": name, "value": value} for name, value in environment.items()]
    container["env"] = kept + added


def _set_nodes(spec: dict[str, Any], nodes: int) -> None:
    # An interruption of one node ends all, and each end counts: the limit grows with the nodes.
    if "backoffLimit" in spec and "completions" in spec:
        spec["backoffLimit"] = math.ceil(spec["backoffLimit"] * nodes / spec["completions"])
    spec["completions"] = nodes
    spec["parallelism"] = nodes


def _set_workers(spec: dict[str, Any], workers: int) -> None:
    spec["completions"] = workers
    spec["parallelism"] = workers

    # Kubernetes refuses a limit above the number of indexes.
    if "maxFailedIndexes" in spec:
        spec["maxFailedIndexes"] = min(spec["maxFailedIndexes"], workers)
