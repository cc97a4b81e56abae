"""A person's own command-line tool, run for them: its logins, plugins and contexts work as they always do.

Knows nothing of what the tools do.
"""

import os
import re
import subprocess
from collections.abc import Sequence

from job.errors import ConfigError, MissingError, RecapError

Causes = Sequence[
    tuple[str, type[RecapError], str]
]  # a pattern of what the tool says, what it means, the remedy


def run_tool(command: Sequence[str], causes: Causes, stdin: str | None = None) -> str:
    """What the tool prints; what it says when it fails as the first error of `causes` that fits, else ConfigError."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingError(
            f"there is no {command[0]} on this machine: install it, or put it on the PATH"
        ) from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip() or done.stdout.strip() or f"nothing (exit code {done.returncode})"
    for pattern, kind, remedy in causes:
        if re.search(pattern, said, re.IGNORECASE):
            raise kind(f"{command[0]} says: {_last(said)}: {remedy}")
    raise ConfigError(f"{command[0]} ended with {done.returncode} and says: {said}")


def _last(said: str) -> str:
    """The line that says it: kubectl warns first, docker gives advice after."""
    lines = [line for line in said.splitlines() if line and "--help" not in line]
    return lines[-1].rstrip(".:") if lines else said
