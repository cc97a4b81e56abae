"""A job to submit, the receipt for it, and the interface of a scheduler."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

# The strictest scheduler allows 63, with what it appends.
MAX_NAME_CHARACTERS = 40

# The time from a scheduler's stop signal to its kill, unless the config decides.
GRACE_SECONDS = 30


@dataclass(frozen=True)
class Submission:
    """One job: `recap COMMAND CONFIG ARGUMENTS…` on `nodes` machines, or shared by `workers`.

    `config` is its location where the job runs, `digest` (hex) that of the config with every
    override and default. `reads` and `writes` are paths of this machine that the job needs.
    """

    command: Literal["train", "summarize"]
    run: str
    config: str
    digest: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    nodes: int = 1
    grace_seconds: float = GRACE_SECONDS
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()

    @property
    def name(self) -> str:
        """A name that every scheduler accepts: lower case letters, digits, hyphens."""
        words = re.sub(r"[^a-z0-9]+", "-", f"recap-{self.command}-{self.run}".lower())
        return words[:MAX_NAME_CHARACTERS].strip("-")


@dataclass(frozen=True)
class Receipt:
    """The job's id, the location of its logs, and command lines for the user by their purpose.

    A purpose may need several command lines, one after the other.
    """

    id: str
    logs: str
    commands: Mapping[str, Sequence[Sequence[str]]]

    def text(self) -> str:
        """Return the receipt as text; its commands can be pasted into a shell."""
        rows = {"submitted": self.id, "logs": self.logs}
        for purpose, lines in self.commands.items():
            rows[purpose] = " && ".join(map(shlex.join, lines))
        return "\n".join(f"{name:11}{text}" for name, text in rows.items())


class Target(Protocol):
    """A scheduler that runs jobs, with the options that the user gave for it."""

    # Its name if it runs jobs on other machines: then local paths are refused, the config is
    # uploaded, and a night may have workers. None if it runs them on this machine.
    cluster: ClassVar[str | None]

    def request(self, submission: Submission) -> Any:
        """Return what would be sent: JSON values, or the words of a command line.

        May query the scheduler, but changes nothing there. Raise ConfigError for a submission that
        the scheduler cannot run as it is, for example one of more nodes than it can start.
        """

    def submit(self, submission: Submission, request: Any) -> Receipt:
        """Send the request. Raise RetryError if a job with the same config runs already."""


def request_text(request: Any) -> str:
    """Return a request as text that can be read, kept, and sent without recap."""
    if isinstance(request, list):
        return shlex.join(request)
    return json.dumps(request, indent=2, ensure_ascii=False)
