"""The note of an attempt of several processes, between rank 0 and the supervisor above it.

Rank 0 cannot know why it has to end: another process may have failed and said so, or was killed, or
lost its machine. So it hands its note over, and the supervisor, who learns the outcome of the run,
keeps the note if the attempt was silent.
"""

from collections.abc import Iterable
from pathlib import Path

from job.config.sections import StorageSection
from job.errors import RecapError
from job.launch.outcome import Outcome
from job.storage.store import Store
from job.telemetry import warn

FILE = "attempt-note"


def hand_over(work: Path, key: str) -> None:
    """Leave the key of this attempt's note to the supervisor."""
    (work / FILE).write_text(key, encoding="utf-8")


def settle(work: Path, outcome: Outcome, folder: str, storage: StorageSection) -> None:
    """Delete the note that rank 0 handed over, if it did, unless the attempt was silent.

    `folder` is the run's. An attempt without such a note ends without a request.
    """
    file = work / FILE
    if file.exists() and not outcome.silent:
        from job.storage.open import open_store

        delete_notes(open_store(folder, storage), [file.read_text(encoding="utf-8")])


def delete_notes(store: Store, keys: Iterable[str]) -> None:
    """Delete notes. Only log a warning if that fails: what ended the attempt matters more."""
    try:
        for key in keys:
            store.delete(key)
    except RecapError as error:
        warn("the note of this attempt stays: it will count as killed", why=str(error))
