"""The watchdog of one training process: it ends it when the training stands still, a write outlives the right to it,
or the supervisor is gone.

Runs in a thread, as whatever hangs cannot look at the time itself. Knows nothing of what is being done.
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
from job.launch.orphans import lives
from job.launch.outcome import SUPERVISOR, Outcome, write_outcome

SECONDS_BETWEEN_LOOKS = 0.1


class Watch:
    """Looks after the process from its creation on; at the training's pace only within `training`."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._supervisor = _supervisor()
        self._limit: float | None = None
        self._last = time.monotonic()
        self._writes_allowed: Callable[[], None] = lambda: None
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def beat(self) -> None:
        """The training has moved."""
        self._last = time.monotonic()

    @contextmanager
    def writing(self, allowed: Callable[[], None]) -> Iterator[None]:
        """Within the block, a RecapError of `allowed` ends the process: what it writes cannot be called back."""
        self._writes_allowed = allowed
        try:
            yield
        finally:
            self._writes_allowed = lambda: None

    @contextmanager
    def training(self, stall_seconds: float) -> Iterator[None]:
        """From now to the end of the block, so many seconds without a beat end the process."""
        self.beat()
        self._limit = stall_seconds
        try:
            yield
        finally:
            self._limit = None

    def _look(self) -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            limit, still = self._limit, time.monotonic() - self._last
            if limit is not None and still > limit:
                self._end_hung(f"no training step within {still / 60:.1f} minutes (limits.stall_minutes)")
            try:
                self._writes_allowed()
            except RecapError as error:
                self._end(Outcome(error.exit_code, str(error)))
            if self._supervisor is not None and not lives(self._supervisor):
                os._exit(ExitCode.RETRY)  # nobody is left to read an outcome

    def _end_hung(self, why: str) -> None:
        print(f"{why}; what each thread was doing:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        self._end(Outcome(ExitCode.RETRY, f"{why}: the log says where; run the same command again"))

    def _end(self, outcome: Outcome) -> None:
        try:
            write_outcome(self._work, outcome)
        finally:
            os._exit(outcome.exit_code)


def _supervisor() -> psutil.Process | None:
    """The process above the launcher; it is known by number and start, as numbers are used again."""
    named = os.environ.get(SUPERVISOR)
    if not named:
        return None
    try:
        return psutil.Process(int(named))
    except psutil.NoSuchProcess:
        os._exit(ExitCode.RETRY)
