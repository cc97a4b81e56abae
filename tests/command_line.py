"""The command line of recap, called in this process. The fixture `recap` runs it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """The exit code of a command, and what it printed."""

    code: int
    out: str
    err: str


Recap = Callable[..., Ended]
