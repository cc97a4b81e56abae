"""What is submitted, the same for every target, and what a person gets for it.

Plain data. Knows nothing of schedulers, nor of how the numbers were found.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

MANY_CHARACTERS = 40  # of a name: the strictest scheduler takes 63, with its own endings
GRACE_SECONDS = 30  # what a scheduler leaves a job that is told to stop


@dataclass(frozen=True)
class Submission:
    """One job: `recap COMMAND CONFIG ARGUMENTS…` on `nodes` machines, or shared by `workers` of them.

    `config` is the config's name where the job runs, `digest` (hex) that of the config with every override and default,
    `reads` and `writes` are paths of this machine that the job needs.
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
        """A name for people that every scheduler takes: lower case letters, digits, hyphens."""
        words = re.sub(r"[^a-z0-9]+", "-", f"recap-{self.command}-{self.run}".lower())
        return words[:MANY_CHARACTERS].strip("-")


@dataclass(frozen=True)
class Receipt:
    """The job's id, where its logs are, and what a person types next: by what it does, one command line or several."""

    id: str
    logs: str
    commands: Mapping[str, Sequence[Sequence[str]]]

    def text(self) -> str:
        """The receipt for a person; the commands can be pasted."""
        rows = {"submitted": self.id, "logs": self.logs}
        rows |= {what: " && ".join(map(shlex.join, lines)) for what, lines in self.commands.items()}
        return "\n".join(f"{what:11}{text}" for what, text in rows.items())


class Target(Protocol):
    """A place that runs jobs, with the options that a person gave for it."""

    def request(self, submission: Submission) -> Any:
        """What would be sent: JSON values, or the words of a command line. Asks the target, changes nothing there."""

    def submit(self, submission: Submission, request: Any) -> Receipt:
        """Send it; RetryError where the same submission is under way already."""


def shown(request: Any) -> str:
    """A request as a person can read it, keep it, and send it without recap."""
    return (
        shlex.join(request)
        if isinstance(request, list)
        else json.dumps(request, indent=2, ensure_ascii=False)
    )
