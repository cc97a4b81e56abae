"""Run a scheduler's own command-line tool: its logins, plugins and contexts work as always."""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import ConfigError, MissingError, RecapError

ENGLISH = {"LC_ALL": "C"}  # for the tool's environment: the causes match English messages


@dataclass(frozen=True)
class Cause:
    """A pattern of the tool's message, the error it means, and the remedy."""

    pattern: str
    error: type[RecapError]
    remedy: str


def run_tool(command: Sequence[str], causes: Sequence[Cause], stdin: str | None = None) -> str:
    """Run the command and return what it prints.

    If it fails, raise the error of the first cause that matches its message, or else ConfigError.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=os.environ | ENGLISH,
            check=False,
        )
    except FileNotFoundError as error:
        raise no_tool(command[0]) from error
    if done.returncode == 0:
        return done.stdout

    message = done.stderr.strip() or done.stdout.strip()
    message = message or f"nothing (exit code {done.returncode})"
    for cause in causes:
        if re.search(cause.pattern, message, re.IGNORECASE):
            raise cause.error(f"{command[0]} says: {_main_line(message)}: {cause.remedy}")
    raise ConfigError(f"{command[0]} ended with {done.returncode} and says: {message}")


def no_tool(name: str) -> MissingError:
    """Return the error for a tool that is not installed."""
    return MissingError(f"there is no {name} on this machine: install it, or put it on the PATH")


def _main_line(message: str) -> str:
    """Return the line with the error: kubectl prints warnings before it, docker advice after."""
    lines = [line for line in message.splitlines() if line and "--help" not in line]
    return lines[-1].rstrip(".:") if lines else message
