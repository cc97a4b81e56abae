"""A job to submit, the receipt for it, and the interface of a scheduler."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from job.config.commands import Command
from job.preflight.checks import Check
from job.storage.keys import scheme_of
from job.submit.follow import Watch
from job.telemetry import warn

# The strictest scheduler allows 63, with what it appends.
MAX_NAME_CHARACTERS = 40

# The time from a scheduler's stop signal to its kill, unless the config decides.
GRACE_SECONDS = 30

DIGEST_DIGITS = 16  # in labels and tags


@dataclass(frozen=True)
class Place:
    """A path or URI, and the key of the config that names it."""

    key: str
    uri: str

    @property
    def is_local(self) -> bool:
        """True for a path on this machine."""
        return scheme_of(self.uri) == "file"


@dataclass(frozen=True)
class Submission:
    """One job: `recap COMMAND CONFIG ARGUMENTS…` on `nodes` machines, or shared by `workers`.

    `config` is its location where the job runs, `digest` (hex) that of the config with every
    override and default. The job reads and writes no other places than `reads` and `writes`, and
    models of the Hub, whose ids are in `hub`;
    those on s3:// are in the store at `endpoint_url`, or in that of the environment.
    """

    command: Command
    run: str
    config: str
    digest: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    nodes: int = 1
    grace_seconds: float = GRACE_SECONDS
    reads: Sequence[Place] = ()
    writes: Sequence[Place] = ()
    hub: Sequence[Place] = ()
    endpoint_url: str | None = None

    @property
    def name(self) -> str:
        """A name that every scheduler accepts: lower case letters, digits, hyphens."""
        words = re.sub(r"[^a-z0-9]+", "-", f"recap-{self.command}-{self.run}".lower())
        return words[:MAX_NAME_CHARACTERS].strip("-")

    @property
    def short_digest(self) -> str:
        """The digest's first digits, for labels and tags."""
        return self.digest[:DIGEST_DIGITS]


@dataclass(frozen=True)
class Receipt:
    """The job's id, the location of its logs, and command lines for the user by their purpose.

    A purpose may need several command lines, one after the other.
    """

    id: str
    logs: str
    commands: Mapping[str, Sequence[Sequence[str]]]

    def text(self, event: str = "submitted") -> str:
        """Return the receipt as text; its commands can be pasted into a shell."""
        rows = {event: self.id, "logs": self.logs}
        for purpose in self.commands:
            rows[purpose] = self.command(purpose)
        return "\n".join(f"{name:11}{text}" for name, text in rows.items())

    def command(self, purpose: str) -> str:
        """Return the command line for a purpose."""
        return " && ".join(map(shlex.join, self.commands[purpose]))


class Target(Protocol):
    """A scheduler that runs jobs, with the options that the user gave for it."""

    # Its name if it runs jobs on other machines: then local paths are refused, the config is
    # uploaded, and a night may have workers. None if it runs them on this machine.
    cluster: ClassVar[str | None]

    def check(self, submission: Submission, strict: bool) -> None:
        """Ask the scheduler if it can run the job. Raise the error that the job would meet there.

        What the scheduler does not know for sure is an error if `strict`, else a warning.
        """

    def rights(self, submission: Submission) -> list[Check]:
        """Return checks of what the job itself may read and write there: it has its own rights."""

    def request(self, submission: Submission) -> Any:
        """Return what would be sent: JSON values, or the words of a command line.

        May query the scheduler, but changes nothing there. Raise ConfigError for a submission that
        the scheduler cannot run as it is, for example one of more nodes than it can start.
        """

    def running(self, submission: Submission) -> str | None:
        """Return the id of a job with the same config that has not ended, or None.

        Warn if a run of the same name with another config has not ended.
        """

    def submit(self, submission: Submission, request: Any) -> str:
        """Send the request, and return the job's id."""

    def receipt(self, submission: Submission, id: str) -> Receipt:
        """Return the receipt for a job of this submission."""

    def watch(self, submission: Submission, id: str) -> Watch:
        """Return what follows a job of this submission."""


def own_job(under_way: Mapping[str, bool]) -> str | None:
    """Return the id of the job of the same config among those of a run, None if there is none.

    `under_way` has the jobs of the run that have not ended, and True for one of the same config.
    Warn if there are only others.
    """
    for id, is_same in under_way.items():
        if is_same:
            return id
    if under_way:
        warn("a run of this name with another config is under way", jobs=list(under_way))
    return None


def request_text(request: Any) -> str:
    """Return a request as text that can be read, kept, and sent without recap."""
    if isinstance(request, list):
        return shlex.join(request)
    return json.dumps(request, indent=2, ensure_ascii=False)
