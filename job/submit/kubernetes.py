"""`recap submit kubernetes`: a Submission → a Job, copied from the template that the cluster holds.

The template is a CronJob (infra/kubernetes), which decides on image, exit-code rules, deadlines and volumes; args,
environment and the number of pods come from here. `kubectl` asks and creates. Knows nothing of who made the template.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from job.errors import ConfigError, ForbiddenError, MissingError, RetryError
from job.submit.submission import Receipt, Submission
from job.submit.tool import Causes, run_tool
from job.telemetry import warn

CONTAINER = "recap"
RUN, DIGEST = "recap/run", "recap/config"  # labels, by which a run that is under way is found
DIGITS = 16
# For `kubectl wait`: a job has all its pods, and a pod's container runs or ran. Before, `kubectl logs` ends at once
# and says nothing. One condition a wait: of several, kubectl before 1.36 takes the last; and before 1.33 it does not
# wait for pods to be created that it knows by a label only.
HAS_PODS = "jsonpath={.status.startTime}"
STARTED = "jsonpath={.status.containerStatuses[0].state.*.startedAt}"
CAUSES: Causes = (
    (
        r"getting credentials|Unauthorized|must be logged in",
        ForbiddenError,
        "log in to the cluster again",
    ),
    (
        r"\(Forbidden\)|is forbidden",
        ForbiddenError,
        "allow it to this user (docs/operations.md, Permissions)",
    ),
    (
        r"context .* does not exist|context was not found|no context exists",
        MissingError,
        "`kubectl config get-contexts` lists them; name one with --context",
    ),
    (
        r"\(NotFound\)|not found",
        MissingError,
        "is recap installed there (infra/kubernetes), and is --namespace right? --template takes a file instead",
    ),
    (
        r"unable to connect|connection to the server|refused|timed? ?out|\((ServiceUnavailable|TooManyRequests|"
        r"InternalError|Timeout|ServerTimeout)\)",
        RetryError,
        "the cluster cannot be reached: check --context and the network, or run again later",
    ),
)


@dataclass(frozen=True)
class Kubernetes:
    """Which cluster and namespace, the template's file where it is not the cluster's, and the kubectl that asks."""

    context: str | None = None
    namespace: str = "recap"
    template: Path | None = None
    kubectl: str = "kubectl"

    def request(self, submission: Submission) -> dict[str, Any]:
        """The Job; MissingError where there is no template, ConfigError for one that is none."""
        name = f"recap-{submission.command}{'-nodes' if submission.nodes > 1 else ''}"
        found = _in_file(self.template, name) if self.template else self._in_cluster(name)
        job = copy.deepcopy(found["spec"]["jobTemplate"])
        metadata, spec = job.get("metadata", {}), job["spec"]
        labels = {RUN: submission.name, DIGEST: submission.digest[:DIGITS]}
        metadata |= {
            "generateName": f"{submission.name}-",
            "namespace": self.namespace,
            "labels": metadata.get("labels", {}) | labels,
        }
        pod = spec["template"]
        pod["metadata"] = pod.get("metadata", {})
        pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | labels
        _tell(_container(pod, name), submission)
        if submission.nodes > 1:
            _spread(spec, submission.nodes)
        elif submission.command == "summarize":
            spec["completions"] = spec["parallelism"] = submission.workers
            if "maxFailedIndexes" in spec:
                spec["maxFailedIndexes"] = min(spec["maxFailedIndexes"], submission.workers)
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}

    def submit(self, submission: Submission, request: Any) -> Receipt:
        """Create the Job; RetryError if one of the same config is under way in this namespace."""
        self._check_alone(submission)
        created = run_tool(
            [*self._kubectl(), "create", "-f", "-", "-o", "json"], CAUSES, json.dumps(request)
        )
        name = json.loads(created)["metadata"]["name"]
        pods = ["--selector", f"batch.kubernetes.io/job-name={name}"]
        several = max(submission.workers, submission.nodes)
        all_of_them = ["--prefix", "--tail=-1", *pods, "--max-log-requests", str(several)]
        commands = {
            "state": [[*self._kubectl(), "describe", "job", name]],
            "wait": [
                [*self._kubectl(), "wait", f"job/{name}", f"--for={HAS_PODS}", "--timeout=1h"],
                [*self._kubectl(), "wait", "pod", *pods, f"--for={STARTED}", "--timeout=1h"],
            ],
            "follow": [
                [
                    *self._kubectl(),
                    "logs",
                    "--follow",
                    *(all_of_them if several > 1 else [f"job/{name}"]),
                ]
            ],
            "stop": [[*self._kubectl(), "delete", "job", name]],
        }
        return Receipt(name, f"of the pods of job {name} in namespace {self.namespace}", commands)

    def _kubectl(self) -> list[str]:
        context = ["--context", self.context] if self.context else []
        return [self.kubectl, *context, "--namespace", self.namespace]

    def _in_cluster(self, name: str) -> dict[str, Any]:
        found = json.loads(
            run_tool([*self._kubectl(), "get", "cronjob", name, "-o", "json"], CAUSES)
        )
        return _checked(found, f"cronjob {name}")

    def _check_alone(self, submission: Submission) -> None:
        label = f"{RUN}={submission.name}"
        jobs = json.loads(
            run_tool([*self._kubectl(), "get", "jobs", "--selector", label, "-o", "json"], CAUSES)
        )
        under_way = [job["metadata"] for job in jobs["items"] if not _has_ended(job)]
        for job in under_way:
            if job["labels"].get(DIGEST) == submission.digest[:DIGITS]:
                raise RetryError(
                    f"job {job['name']} of the same config is under way already: wait for it, or stop it and run "
                    f"again: {' '.join(self._kubectl())} delete job {job['name']}"
                )
        if under_way:
            warn(
                "a run of this name with another config is under way",
                jobs=[job["name"] for job in under_way],
            )


def _in_file(path: Path, name: str) -> dict[str, Any]:
    """The CronJob of this name in a file of manifests."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise MissingError(f"--template {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--template {path}: is no YAML: {error}") from error
    lists = [
        document.get("items", [document]) for document in documents if isinstance(document, dict)
    ]
    for found in (each for items in lists for each in items):
        if found.get("kind") == "CronJob" and found.get("metadata", {}).get("name") == name:
            return _checked(found, f"--template {path}")
    raise MissingError(
        f"--template {path}: has no CronJob {name}: `kubectl kustomize OVERLAY` writes one that has"
    )


def _checked(found: Any, where: str) -> dict[str, Any]:
    """The template, if it has what is filled in."""
    try:
        containers = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert isinstance(containers, list)
    except (KeyError, TypeError, AssertionError) as error:
        raise ConfigError(f"{where}: is no CronJob with a pod: see infra/kubernetes") from error
    template: dict[str, Any] = found
    return template


def _container(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: Sequence[dict[str, Any]] = [
        each for each in pod["spec"]["containers"] if each.get("name") == CONTAINER
    ]
    if not found:
        raise ConfigError(f"template {name} has no container '{CONTAINER}': see infra/kubernetes")
    return found[0]


def _tell(container: dict[str, Any], submission: Submission) -> None:
    """What the job does, in the container's own words: args, and the environment where it is not the template's."""
    container["args"] = [submission.config, *submission.arguments]
    environment = dict(submission.environment)
    if submission.nodes > 1:
        environment["RECAP_NODES"] = str(submission.nodes)
    kept = [each for each in container.get("env", ()) if each["name"] not in environment]
    container["env"] = kept + [
        {"name": name, "value": value} for name, value in environment.items()
    ]


def _spread(spec: dict[str, Any], nodes: int) -> None:
    """As many pods as nodes; an interruption of one ends them all, and each counts, so the limit is one for each."""
    if "backoffLimit" in spec and "completions" in spec:
        spec["backoffLimit"] = math.ceil(spec["backoffLimit"] * nodes / spec["completions"])
    spec["completions"] = spec["parallelism"] = nodes


def _has_ended(job: Mapping[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(
        each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions
    )
