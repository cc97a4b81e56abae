"""Follow a job to its end: show its states and its log, and return its exit code.

A `Watch` asks one scheduler. `follow` is the loop that all share: it asks, waits and asks again.
The job never depends on it: it goes on if the loop is stopped or cannot ask any more.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar, Protocol

from job.errors import CRASHED_OR_KILLED, ExitCode, RecapError, RetryError, Stopped
from job.telemetry import copy_line, event, status_line, warn

# The job was stopped by a person: a terminated job of Batch, a deleted Job or container. Shells use
# this code for Ctrl-C. No scheduler and no orchestrator should run the job again by itself.
STOPPED_BY_A_PERSON = 130

# Codes that may be other ones at the next attempt. Every other code but 0 is final.
RUN_AGAIN = frozenset([ExitCode.RETRY, 128, *CRASHED_OR_KILLED])  # 128: it was not started

# Workers or nodes whose logs are shown: each is one more request or process.
MAX_FOLLOWED = 20

# A network that is gone for an hour may come back; nobody waits for longer.
FIRST_WAIT_SECONDS = 5.0
MAX_WAIT_SECONDS = 60.0
MAX_FAILED_LOOKS = 60

# CI systems end a job that prints nothing, some of them after ten minutes.
MAX_QUIET_SECONDS = 300.0


@dataclass(frozen=True)
class Outcome:
    """The exit code of a job, and where it comes from."""

    code: int
    why: str


@dataclass(frozen=True)
class Look:
    """The state of a job, in its scheduler's words, with the reason if it waits."""

    state: str
    why: str = ""
    outcome: Outcome | None = None  # once the job has ended and `lines` has yielded its whole log


@dataclass(frozen=True)
class Line:
    """A line of the job's log. `source` names the worker or node, if there are several."""

    text: str
    source: str = ""


class Watch(Protocol):
    """A job that is followed."""

    seconds_between_looks: ClassVar[float]

    def look(self) -> Look:
        """Ask for the job's state. Raise RetryError if the scheduler cannot be reached."""

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the log that no earlier call has yielded.

        A log that cannot be read is a warning: it must not hide the job's end.
        """

    def close(self) -> None:
        """End what was started to follow the job; the job itself goes on."""


def worst(codes: Mapping[str, int]) -> tuple[str, int]:
    """Return the code that decides for a job of several, and whose it is.

    A final code goes before one that may pass: running the job again would not help. There must be
    a code other than 0.
    """
    failed = {source: code for source, code in codes.items() if code != ExitCode.DONE}
    final = {source: code for source, code in failed.items() if code not in RUN_AGAIN}
    deciding = final or failed
    source = max(deciding, key=deciding.__getitem__)
    return source, deciding[source]


def follow(watch: Watch, stop: str, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Show the job's states and log until it ends, and return its outcome.

    `stop` is the command line that stops the job. Ctrl-C and SIGTERM end with RetryError: the same
    command follows the job again. So do errors of the scheduler that last.
    """
    goes_on = f"the job goes on\nfollow it again: the same command\nstop it (it saves): {stop}"
    try:
        with closing(watch), status_line() as show_status:
            return _follow(watch, show_status, sleep)
    except (KeyboardInterrupt, Stopped) as signal:
        raise RetryError(f"stopped following: {goes_on}") from signal
    except RecapError as error:
        raise type(error)(f"{error}\n{goes_on}") from error


def _follow(
    watch: Watch, show_status: Callable[[str], None], sleep: Callable[[float], None]
) -> Outcome:
    shown = None
    quiet_seconds = 0.0
    failed_looks = 0
    while True:
        for line in watch.lines():
            copy_line(line.text, line.source)
            quiet_seconds = 0
        try:
            look = watch.look()
        except RetryError as error:
            failed_looks += 1
            if failed_looks > MAX_FAILED_LOOKS:
                raise
            if failed_looks == 1:
                warn("the job's state is unknown: asking again", why=str(error))
            sleep(min(FIRST_WAIT_SECONDS * failed_looks, MAX_WAIT_SECONDS))
            continue

        failed_looks = 0
        if (look.state, look.why) != shown or quiet_seconds >= MAX_QUIET_SECONDS:
            shown = (look.state, look.why)
            quiet_seconds = 0
            event("job", state=look.state, **({"why": look.why} if look.why else {}))
        if look.outcome:
            return look.outcome
        show_status(f"{look.state}  {look.why}")
        sleep(watch.seconds_between_looks)
        quiet_seconds += watch.seconds_between_looks
