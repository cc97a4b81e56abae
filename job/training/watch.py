"""The watchdog of a training process. It ends the process when that can no longer end itself.

That is so if the training stands still, if a write outlives the right to it, or if the supervisor
is gone. The watchdog is a thread, since code that hangs cannot look at the clock.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from job.errors import ExitCode, RecapError
from job.launch.outcome import SUPERVISOR, Outcome, write_outcome
from job.launch.processes import is_alive

SECONDS_BETWEEN_LOOKS = 0.1


class Watch:
    """A watchdog that starts when it is created; the limit on steps holds only in `training`."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._supervisor = _find_supervisor()
        self._stall_seconds: float | None = None
        self._last_beat = time.monotonic()
        self._check_writes: Callable[[], None] = lambda: None
        # A daemon: it must not keep a process alive whose work has ended.
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def beat(self) -> None:
        """Record that the training has advanced."""
        self._last_beat = time.monotonic()

    @contextmanager
    def writing(self, allowed: Callable[[], None]) -> Iterator[None]:
        """Call `allowed` all the time in the block. End the process if it raises a RecapError."""
        # A write that is in progress in a library cannot be cancelled in another way.
        self._check_writes = allowed
        try:
            yield
        finally:
            self._check_writes = lambda: None

    @contextmanager
    def training(self, stall_seconds: float) -> Iterator[None]:
        """End the process if there is no beat for `stall_seconds` during the block."""
        # The beat before the limit: `_run` must not compare the new limit with an old beat.
        self.beat()
        self._stall_seconds = stall_seconds
        try:
            yield
        finally:
            self._stall_seconds = None

    def _run(self) -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)

            # Read in the opposite order to that in which `training` sets them.
            limit = self._stall_seconds
            still = time.monotonic() - self._last_beat
            if limit is not None and still > limit:
                minutes = f"{still / 60:.1f} minutes"
                self._end_stalled(f"no training step within {minutes} (limits.stall_minutes)")

            try:
                self._check_writes()
            except RecapError as error:
                self._end(Outcome(error.exit_code, str(error)))

            if self._supervisor is not None and not is_alive(self._supervisor):
                os._exit(ExitCode.RETRY)  # nobody is left to read an outcome

    def _end_stalled(self, why: str) -> None:
        """Print the stack of every thread, and end the process."""
        print(f"{why}; what each thread was doing:", file=sys.stderr, flush=True)
        # Shows also threads that hang in C code, which hold no Python error to print.
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        remedy = "the log says where; run the same command again"
        self._end(Outcome(ExitCode.RETRY, f"{why}: {remedy}", silent=True))

    def _end(self, outcome: Outcome) -> None:
        """Write the outcome, and end the process without any cleanup, which could hang as well."""
        try:
            write_outcome(self._work, outcome)
        finally:
            # Not `sys.exit`, which would end only this thread.
            os._exit(outcome.exit_code)


def _find_supervisor() -> psutil.Process | None:
    """Return the supervisor's process, None if there is none. Ends this process if it is gone."""
    pid = os.environ.get(SUPERVISOR)
    if not pid:
        return None
    try:
        # Not the bare number, which the system reuses: psutil compares the time of the start, too.
        return psutil.Process(int(pid))
    except psutil.NoSuchProcess:
        os._exit(ExitCode.RETRY)
