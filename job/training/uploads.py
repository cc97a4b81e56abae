"""Checkpoints and event files on their way to storage, in a thread of its own, while the training goes on.

Folders that are complete here → committed in storage, in their order, then removed here. Knows nothing of what they
hold. At most one waits while one is on its way: a store that is slower than the training slows it down, and nothing
piles up on the disk.
"""

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.errors import RetryError
from job.telemetry import warn


@dataclass(frozen=True)
class Patience:
    """How long and how often: seconds for one upload to end, tries for each, seconds before the next try and syncs."""

    seconds: float = 600
    tries: int = 4
    pause_seconds: float = 2
    sync_seconds: float = 60


class Uploads:
    """A thread that commits checkpoints (`commit`) and now and then copies the event files (`sync`)."""

    def __init__(
        self, commit: Callable[[Path, int], None], sync: Callable[[], None], patience: Patience | None = None
    ) -> None:
        self._commit, self._sync, self._patience = commit, sync, patience or Patience()
        self._waiting: queue.Queue[tuple[Path, int] | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._began: float | None = None  # the upload that is under way
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def put(self, folder: Path, step: int) -> None:
        """Hand over a checkpoint; waits while an earlier one is waiting too. Raises what an earlier one failed with."""
        self._hand_over((folder, step))

    def check(self) -> None:
        """Raise what the thread failed with, or RetryError where it has been at one checkpoint for too long."""
        if self._error is not None:
            raise self._error
        began = self._began
        if began is not None and time.monotonic() - began > self._patience.seconds:
            raise self._too_slow()

    def wait(self) -> None:
        """Wait until what was handed over is committed, and gone here; raises as `finish` does."""
        deadline = time.monotonic() + self._patience.seconds
        while self._waiting.unfinished_tasks:
            self.check()
            if time.monotonic() > deadline:
                raise self._too_slow()
            time.sleep(0.1)

    def finish(self) -> None:
        """Wait until everything is committed; raises what failed, or RetryError when it takes too long."""
        self._hand_over(None)
        self._thread.join(timeout=self._patience.seconds)
        self.check()
        if self._thread.is_alive():
            raise self._too_slow()

    def _hand_over(self, item: tuple[Path, int] | None) -> None:
        deadline = time.monotonic() + self._patience.seconds
        while True:
            self.check()
            try:
                self._waiting.put(item, timeout=0.2)
                return
            except queue.Full:
                if time.monotonic() > deadline:
                    raise self._too_slow() from None

    def _too_slow(self) -> RetryError:
        """The error of it; nobody waits again for what was waited for in vain."""
        error = RetryError(
            f"a checkpoint did not reach storage within {self._patience.seconds:.0f} s (limits.upload_minutes): run "
            "the same command again to go on"
        )
        self._error = error
        return error

    def _run(self) -> None:
        try:
            while True:
                try:
                    item = self._waiting.get(timeout=self._patience.sync_seconds)
                except queue.Empty:
                    self._try_to_sync()
                    continue
                if item is None:
                    self._try_to_sync()
                    return
                self._began = time.monotonic()
                self._try_to_sync()  # first: who goes on from this checkpoint finds the curves up to it
                self._upload(*item)
                self._began = None
                self._waiting.task_done()
        except BaseException as error:
            self._error = error

    def _upload(self, folder: Path, step: int) -> None:
        for attempt in range(1, self._patience.tries + 1):
            try:
                self._commit(folder, step)
                shutil.rmtree(folder, ignore_errors=True)
                return
            except RetryError as error:
                if attempt == self._patience.tries:
                    raise
                warn("a checkpoint was not uploaded: trying again", step=step, attempt=attempt, why=str(error))
                time.sleep(self._patience.pause_seconds * 2 ** (attempt - 1))

    def _try_to_sync(self) -> None:
        try:
            self._sync()
        except RetryError as error:
            warn("the TensorBoard files were not copied: trying again later", why=str(error))
