"""`recap submit docker`: a Submission → a container of the image on this machine, detached.

The root is read-only and nothing is allowed beyond an ordinary user's rights; the container runs as who submits it, and
writes to one folder, and to the output where that is a folder here. Credentials are named and never told: docker takes
their values from the environment itself. Knows nothing of how the image is made.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import ConfigError, ForbiddenError, MissingError, RecapError, RetryError
from job.storage.atomic import writing
from job.storage.keys import local_path, scheme_of
from job.submit.submission import Receipt, Submission
from job.submit.tool import Causes, run_tool
from job.telemetry import warn

# The AWS credential chain, the services, and the Hub: what a config cannot say.
PASSED_ON = (
    *(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
CERTIFICATES = (
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
)  # name files, which go along: of S3 and of the Hub
WORK = "/work"  # the image's one writable folder: home, caches, the run's own files
DIGEST = "recap.config"
DIGITS = 16
CAUSES: Causes = (
    (
        r"permission denied",
        ForbiddenError,
        "this user may not use docker: join its group, or use rootless docker",
    ),
    (
        r"cannot connect to the docker daemon|is the docker daemon running",
        RetryError,
        "start it, or check DOCKER_HOST",
    ),
    (
        r"could not select device driver|unknown or invalid runtime|nvidia-container",
        MissingError,
        "docker has no GPU here: install the NVIDIA container toolkit, or run with --no-gpu",
    ),
    (
        r"unable to find image|pull access denied|manifest unknown|no such image",
        MissingError,
        "build the image, or name one with --image",
    ),
)


@dataclass(frozen=True)
class Docker:
    """Image, folder, GPU and network of the container, the docker that runs it, and who submits."""

    work: Path
    image: str | None = None
    gpu: bool = True
    network: str | None = None
    docker: str = "docker"
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: str = field(default_factory=lambda: f"{os.getuid()}:{os.getgid()}")

    def request(self, submission: Submission) -> list[str]:
        """The command line of `docker run`."""
        if self.environment.get("AWS_PROFILE") and not self.environment.get("AWS_ACCESS_KEY_ID"):
            warn(
                "the container does not see AWS_PROFILE: put its credentials into the environment first",
                command='eval "$(aws configure export-credentials --format env)"',
            )
        grace = str(
            round(submission.grace_seconds) + 10
        )  # docker's own ten seconds are less than a checkpoint takes
        # --init: another process 1, which hands signals on. From a process 1 that has no handler the kernel keeps them,
        # and Python takes a moment to set one.
        command = [
            self.docker,
            "run",
            "--detach",
            "--init",
            "--label",
            _label(submission),
            "--stop-timeout",
            grace,
        ]
        command += [
            "--read-only",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--shm-size",
            "1g",
        ]
        command += ["--user", "0:0" if self._is_rootless() else self.user]
        paths = [submission.config, *submission.reads, *submission.writes]
        command += ["--workdir", os.getcwd()] if any(map(_is_relative, paths)) else []
        command += ["--gpus", "all"] if self.gpu else []
        command += ["--network", self.network] if self.network else []
        told = [name for name in (*PASSED_ON, *CERTIFICATES) if self.environment.get(name)]
        command += [word for name in told for word in ("--env", name)]
        command += [
            word
            for name, value in submission.environment.items()
            for word in ("--env", f"{name}={value}")
        ]
        command += [word for mount in self._mounts(submission) for word in ("--mount", mount)]
        return [
            *command,
            self.image or f"recap:{submission.command}",
            submission.config,
            *submission.arguments,
        ]

    def submit(self, submission: Submission, request: Any) -> Receipt:
        """Start the container; RetryError if one of the same config runs here."""
        filters = ["--filter", f"label={_label(submission)}"]
        running = run_tool([self.docker, "ps", "--quiet", *filters], CAUSES).split()
        if running:
            raise RetryError(
                f"container {running[0]} of the same config runs already: wait for it, or stop it and run again: "
                f"{self.docker} stop {running[0]}"
            )
        for folder in (self.work, *submission.writes):  # docker mounts only what is there
            with writing(folder):
                Path(local_path(str(folder))).mkdir(parents=True, exist_ok=True)
        id = run_tool(request, CAUSES).split()[-1][:12]
        commands = {
            "state": [[self.docker, "ps", "--all", "--filter", f"id={id}"]],
            "follow": [[self.docker, "logs", "--follow", id]],
            "stop": [[self.docker, "stop", id]],
        }
        return Receipt(id, f"of container {id}, until `{self.docker} rm {id}`", commands)

    def _is_rootless(self) -> bool:
        """Whether the container's root is who submits, and every other id is nobody on this machine."""
        asked = [self.docker, "info", "--format", "{{.SecurityOptions}}"]
        with suppress(RecapError):  # what is wrong with docker is told when it is to run something
            return "name=rootless" in run_tool(asked, CAUSES)
        return False

    def _mounts(self, submission: Submission) -> Iterator[str]:
        """What the container sees of this machine: the same paths as here, so that the config's names are right."""
        yield _bind(self.work, WORK)
        certificates = [path for name in CERTIFICATES if (path := self.environment.get(name))]
        for path in dict.fromkeys([*submission.reads, *certificates]):
            yield _bind(_absolute(path)) + ",readonly"
        for path in dict.fromkeys(submission.writes):
            yield _bind(_absolute(path))


def _label(submission: Submission) -> str:
    return f"{DIGEST}={submission.digest[:DIGITS]}"


def _bind(source: Path, target: str | None = None) -> str:
    if "," in str(source):
        raise ConfigError(f"{source}: docker cannot mount a path with a comma: rename it")
    return f"type=bind,source={source},target={target or source}"


def _is_relative(path: str) -> bool:
    return scheme_of(path) == "file" and not Path(local_path(path)).is_absolute()


def _absolute(path: str) -> Path:
    return Path(local_path(path)).absolute()
