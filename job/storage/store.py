"""The storage contract: the few operations that recap needs of whatever holds its bytes.

A store is rooted at a URI; the keys below it are relative, `/`-separated, and checked by
`check_key`. Every store raises the same errors, all from `job.errors`: MissingError,
ForbiddenError, RetryError, OutputError, AlreadyExistsError, ChangedError.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from job.errors import MissingError

# Called with the bytes moved since the last call: a negative number if some are sent again.
Progress = Callable[[int], None]
# Called with a key of a listing, which may be unfit to be a path: True leaves it out.
Skip = Callable[[str], bool]


def one_at_a_time(progress: Progress) -> Progress:
    """Return `progress` behind a lock: multipart transfers report each part from its own thread."""
    lock = threading.Lock()

    def report(count: int) -> None:
        with lock:
            progress(count)

    return report


@dataclass(frozen=True)
class Entry:
    """One object: its key relative to the store's root, its size in bytes, and its version.

    The version is opaque. It changes whenever the content changes.
    """

    key: str
    size: int
    version: str


class Store(Protocol):
    """Bytes under keys, rooted at `uri` (which never ends in a slash)."""

    uri: str

    def stat(self, key: str) -> Entry:
        """Return the entry at `key`. Raise MissingError if there is none."""

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        """Yield every entry below the folder `prefix`, sorted by key; nothing if it has none.

        `prefix` is a whole folder name: "a" never matches "a2". Raise DataError for a key that must
        not become a path, unless `skip` leaves it out.
        """

    def read(self, key: str) -> bytes:
        """Return the whole object. Meant for small ones: configs, manifests."""

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """Return a stream to be read once, front to back, from byte `start` on.

        `start` must be less than the object's size.
        """

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Write the object to the file `target`, atomically."""

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Write the file `source` to `key`, atomically, replacing what is there."""

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write `data` to `key`, atomically, replacing what is there.

        With `if_absent`, the write is guarded: raise AlreadyExistsError if the key is taken.
        """

    def replace(self, key: str, data: bytes, expected: bytes | None) -> None:
        """Write `data` to `key` if its content is still `expected`, in one step.

        None expects that there is nothing. Meant for small objects that several may write. Raise
        ChangedError if the content is another one, OutputError if the store cannot guard the write.
        A write whose answer was lost counts as done if the content is `data`.
        """

    def delete(self, key: str) -> None:
        """Delete the object. Deleting a key that has none is not an error."""


def read_or_none(store: Store, key: str) -> bytes | None:
    """Return the whole object, or None if there is none."""
    try:
        return store.read(key)
    except MissingError:
        return None
