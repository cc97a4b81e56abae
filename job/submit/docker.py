"""Submit to docker: a container of the image on this machine, detached.

Its root is read-only, and it has no rights beyond an ordinary user's. It runs as the user who
submits it, and writes to one folder, and to the output if that is a folder of this machine.
Credentials are passed by name: docker reads their values from its own environment.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from job.errors import ConfigError, ForbiddenError, MissingError, RecapError, RetryError
from job.preflight.checks import Check
from job.storage.atomic import writing
from job.storage.keys import local_path
from job.submit.docker_container import DockerContainer
from job.submit.submission import Place, Receipt, Submission
from job.submit.tool import Cause, run_tool
from job.telemetry import warn

# The AWS credential chain, the services, the Hub and proxies: what a config cannot contain.
PASSED_ON = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)

# These name files of certificates, of S3 and of the Hub. The files are mounted too.
CERTIFICATES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")

# The image's one writable folder: home, caches, the run's own files.
WORK = "/work"

DIGEST_LABEL = "recap.config"
STOP_MARGIN_SECONDS = 10  # between the end of the grace period and docker's kill

CAUSES = (
    Cause(
        r"permission denied",
        ForbiddenError,
        "this user may not use docker: join its group, or use rootless docker",
    ),
    Cause(
        r"cannot connect to the docker daemon|is the docker daemon running",
        RetryError,
        "start it, or check DOCKER_HOST",
    ),
    Cause(
        r"could not select device driver|unknown or invalid runtime|nvidia-container",
        MissingError,
        "docker has no GPU here: install the NVIDIA container toolkit, or run with --no-gpu",
    ),
    Cause(
        r"unable to find image|pull access denied|manifest unknown|no such image",
        MissingError,
        "build the image, or name one with --image",
    ),
)


@dataclass(frozen=True)
class Docker:
    """Image, folder, GPU and network of the container, the docker that runs it, and its user."""

    cluster: ClassVar[str | None] = None

    work: Path
    image: str | None = None
    gpu: bool = True
    network: str | None = None
    docker: str = "docker"
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: str = field(default_factory=lambda: f"{os.getuid()}:{os.getgid()}")

    def check(self, submission: Submission, strict: bool) -> None:
        """Check nothing: docker checks what it is given when it starts the container."""

    def rights(self, submission: Submission) -> list[Check]:
        """Return none: the container has the credentials of this environment."""
        return []

    def request(self, submission: Submission) -> list[str]:
        """Return the command line of `docker run`. Asks docker whether it is rootless."""
        if self.environment.get("AWS_PROFILE") and not self.environment.get("AWS_ACCESS_KEY_ID"):
            warn(
                "the container does not see AWS_PROFILE: put its credentials into the "
                "environment first",
                command='eval "$(aws configure export-credentials --format env)"',
            )

        command = [self.docker, "run", "--detach"]
        labels = [_label(submission), f"recap.run={submission.run}"]
        for label in (*labels, f"recap.command={submission.command}"):
            command += ["--label", label]
        command += self._signal_options(submission)
        command += self._security_options()
        paths = [*_local_paths(submission.reads), *_local_paths(submission.writes)]
        if not all(Path(path).is_absolute() for path in paths):
            command += ["--workdir", os.getcwd()]
        if self.gpu:
            # The job ends if torch sees none, instead of computing on the CPU.
            command += ["--gpus", "all", "--env", "RECAP_GPUS=required"]
        if self.network:
            command += ["--network", self.network]

        # Without a value: docker takes it from its own environment, and no command line shows it.
        for name in (*PASSED_ON, *CERTIFICATES):
            if self.environment.get(name):
                command += ["--env", name]
        for name, value in submission.environment.items():
            command += ["--env", f"{name}={value}"]
        for mount in self._mounts(submission):
            command += ["--mount", mount]

        if submission.command == "evaluate":
            # What serves judges: the image of nights has vLLM, and starts `recap summarize`.
            command += ["--entrypoint", "recap"]
            arguments = ["evaluate", submission.config, *submission.arguments]
            return [*command, self.image or "recap:summarize", *arguments]
        image = self.image or f"recap:{submission.command}"
        return [*command, image, submission.config, *submission.arguments]

    def running(self, submission: Submission) -> str | None:
        """Return the id of a container of the same config that runs here."""
        filters = ["--filter", f"label={_label(submission)}"]
        found = run_tool([self.docker, "ps", "--quiet", *filters], CAUSES).split()
        return found[0] if found else None

    def submit(self, submission: Submission, request: Any) -> str:
        """Start the container."""
        # docker mounts only folders that exist.
        for folder in (str(self.work), *_local_paths(submission.writes)):
            with writing(folder):
                Path(folder).mkdir(parents=True, exist_ok=True)
        return run_tool(request, CAUSES).split()[-1][:12]

    def receipt(self, submission: Submission, id: str) -> Receipt:
        """Return docker's commands for a container."""
        commands = {
            "state": [[self.docker, "ps", "--all", "--filter", f"id={id}"]],
            "follow": [[self.docker, "logs", "--follow", id]],
            "stop": [[self.docker, "stop", id]],
        }
        return Receipt(id, f"of container {id}, until `{self.docker} rm {id}`", commands)

    def watch(self, submission: Submission, id: str) -> DockerContainer:
        """Return what follows a container."""
        return DockerContainer(id, self.docker, CAUSES)

    def _signal_options(self, submission: Submission) -> list[str]:
        # By default docker kills after ten seconds, which is less than a checkpoint takes.
        seconds = round(submission.grace_seconds) + STOP_MARGIN_SECONDS

        # --init makes another process 1, which forwards signals. The kernel drops signals to a
        # process 1 without a handler, and Python takes a moment to set one.
        return ["--init", "--stop-timeout", str(seconds)]

    def _security_options(self) -> list[str]:
        # In a rootless docker the container's root is the user who runs docker, and every other id
        # is nobody on this machine.
        user = "0:0" if self._is_rootless() else self.user
        return [
            "--read-only",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--shm-size",
            "1g",
            "--user",
            user,
        ]

    def _is_rootless(self) -> bool:
        """Return True if docker says so. Errors count as no: `submit` reports them."""
        info = [self.docker, "info", "--format", "{{.SecurityOptions}}"]
        with suppress(RecapError):
            return "name=rootless" in run_tool(info, CAUSES)
        return False

    def _mounts(self, submission: Submission) -> Iterator[str]:
        """Yield the mounts: paths are the same in the container, so that the config holds there."""
        yield _bind(self.work, WORK)
        reads = _local_paths(submission.reads)
        for name in CERTIFICATES:
            path = self.environment.get(name)
            if path:
                reads.append(path)

        # docker refuses to mount a path twice.
        for path in dict.fromkeys(reads):
            yield _bind(Path(path).absolute()) + ",readonly"
        for path in dict.fromkeys(_local_paths(submission.writes)):
            yield _bind(Path(path).absolute())


def _label(submission: Submission) -> str:
    return f"{DIGEST_LABEL}={submission.short_digest}"


def _bind(source: Path, target: str | None = None) -> str:
    if "," in str(source):
        raise ConfigError(f"{source}: docker cannot mount a path with a comma: rename it")
    return f"type=bind,source={source},target={target or source}"


def _local_paths(places: Sequence[Place]) -> list[str]:
    return [local_path(place.uri) for place in places if place.is_local]
