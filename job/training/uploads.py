"""Upload checkpoints and event files to storage in a thread, while the training continues.

Complete folders are committed in order and then deleted here. At most one waits while another is
uploaded: a store that is slower than the training slows it down, and the disk does not fill up.
"""

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from job.errors import OutputError, RetryError
from job.telemetry import warn
from job.training.ranks import anywhere

# The size of a checkpoint, in multiples of the trained weights: themselves, the two moments of the
# optimizer, and one to spare; and the bytes of the tokenizer and small files.
COPIES_OF_TRAINED_WEIGHTS = 4
OTHER_FILES_BYTES = 32 << 20


@dataclass(frozen=True)
class Upload:
    """A complete checkpoint: its local folder, and the step after which it was written."""

    folder: Path
    step: int


@dataclass(frozen=True)
class Patience:
    """Limits of the uploads, and their intervals."""

    seconds: float = 600  # for one checkpoint, with all its tries
    tries: int = 4  # for one checkpoint
    pause_seconds: float = 2  # before the second try; doubles after each
    sync_seconds: float = 60  # between two copies of the event files


class Uploads:
    """A thread that commits checkpoints with `commit`, and copies the event files with `sync`.

    It runs within a `with` block, which ends once everything is committed and copied: also if the
    training failed, since a later attempt resumes from what is committed. A stop that raises at
    once (an error that is no Exception) does not wait.
    """

    def __init__(
        self,
        commit: Callable[[Path, int], None],
        sync: Callable[[], None],
        patience: Patience | None = None,
    ) -> None:
        self._commit = commit
        self._sync = sync
        self._patience = patience or Patience()
        self._waiting: queue.Queue[Upload | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._began: float | None = None  # the start of the upload in progress
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)

    def __enter__(self) -> "Uploads":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, Exception):
            self._finish()

    def put(self, folder: Path, step: int) -> None:
        """Queue a checkpoint. Block while an earlier one is waiting.

        Raise the error of an earlier upload, RetryError if one takes too long.
        """
        self._enqueue(Upload(folder, step))

    def check(self) -> None:
        """Raise the error of an earlier upload, or RetryError if the present one takes too long."""
        if self._error is not None:
            raise self._error
        began = self._began
        if began is not None and time.monotonic() - began > self._patience.seconds:
            raise self._record_timeout()

    def wait(self) -> None:
        """Block until every queued checkpoint is committed, and deleted here. Raise as `check`."""
        deadline = time.monotonic() + self._patience.seconds
        while self._waiting.unfinished_tasks:
            self.check()
            if time.monotonic() > deadline:
                raise self._record_timeout()
            time.sleep(0.1)

    def _finish(self) -> None:
        """Block until everything is committed and copied, and end the thread. Raise as `check`."""
        self._enqueue(None)
        self._thread.join(timeout=self._patience.seconds)
        self.check()
        if self._thread.is_alive():
            raise self._record_timeout()

    def _enqueue(self, upload: Upload | None) -> None:
        """Queue a checkpoint, or None to end the thread."""
        deadline = time.monotonic() + self._patience.seconds
        while True:
            # Again in each round: a thread that fails meanwhile takes nothing more.
            self.check()
            try:
                self._waiting.put(upload, timeout=0.2)
                return
            except queue.Full:
                if time.monotonic() > deadline:
                    raise self._record_timeout() from None

    def _record_timeout(self) -> RetryError:
        """Return the error of an upload that takes too long.

        Records it as well, so that no later call waits for the same upload again.
        """
        error = RetryError(
            f"a checkpoint did not reach storage within {self._patience.seconds:.0f} s "
            "(limits.upload_minutes): run the same command again to resume"
        )
        self._error = error
        return error

    def _run(self) -> None:
        try:
            while True:
                try:
                    upload = self._waiting.get(timeout=self._patience.sync_seconds)
                except queue.Empty:
                    self._try_to_sync()
                    continue
                if upload is None:
                    self._try_to_sync()
                    return

                self._began = time.monotonic()
                # The event files first: a run that resumes from this checkpoint then finds the
                # curves up to it.
                self._try_to_sync()
                self._commit_with_retries(upload)
                self._began = None
                self._waiting.task_done()
        except BaseException as error:
            self._error = error

    def _commit_with_retries(self, upload: Upload) -> None:
        for attempt in range(1, self._patience.tries + 1):
            try:
                self._commit(upload.folder, upload.step)
                shutil.rmtree(upload.folder, ignore_errors=True)
                return
            except RetryError as error:
                if attempt == self._patience.tries:
                    raise
                warn(
                    "a checkpoint was not uploaded: trying again",
                    step=upload.step,
                    attempt=attempt,
                    why=str(error),
                )
                time.sleep(self._patience.pause_seconds * 2 ** (attempt - 1))

    def _try_to_sync(self) -> None:
        """Copy the event files. A failure is only logged: the next copy has everything."""
        try:
            self._sync()
        except RetryError as error:
            warn("the TensorBoard files were not copied: trying again later", why=str(error))


def checkpoint_bytes(trainable_bytes: int) -> int:
    """Return the room that a checkpoint of trained weights of so many bytes takes on a disk."""
    return COPIES_OF_TRAINED_WEIGHTS * trainable_bytes + OTHER_FILES_BYTES


def make_room(folder: Path, trainable_bytes: int, wait: Callable[[], None]) -> None:
    """Collective: make sure that the disk of every rank has room for a checkpoint.

    If one has not, call `wait`, which returns once earlier checkpoints are in storage and deleted
    here. Raise OutputError on every rank if it still has not.
    """
    needed = checkpoint_bytes(trainable_bytes)
    if not anywhere(shutil.disk_usage(folder).free < needed):
        return

    wait()
    free = shutil.disk_usage(folder).free
    if not anywhere(free < needed):
        return

    found = "too little free on another machine"
    if free < needed:
        found = f"{free / 2**20:,.0f} MiB free"
    raise OutputError(
        f"{folder}: {found}, and a checkpoint needs about {needed / 2**20:,.0f} MiB: make room or "
        "set RECAP_WORK to a larger disk, and run the same command again"
    )
