"""The storage contract.

Purpose: the few operations that recap asks of any place that holds bytes. A store is rooted at a URI; keys below it are
relative, `/`-separated, and checked by `check_key`. Errors are those of `job.errors`: MissingError, ForbiddenError,
RetryError, OutputError, AlreadyExistsError. Knows nothing of what the bytes mean.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

Progress = Callable[[int], None]  # called with the bytes moved since the last call; negative for bytes sent again


def one_at_a_time(progress: Progress) -> Progress:
    """`progress` for several threads: a transfer in parts tells of each from a thread of its own."""
    lock = threading.Lock()

    def tell(count: int) -> None:
        with lock:
            progress(count)

    return tell


@dataclass(frozen=True)
class Entry:
    """One object of a store: its key relative to the root, its size in bytes, and a version that changes with it."""

    key: str
    size: int
    version: str


class Store(Protocol):
    """Bytes under keys, rooted at `uri` (which never ends in a slash)."""

    uri: str

    def stat(self, key: str) -> Entry:
        """The entry at `key`; MissingError if there is none."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every entry below the folder `prefix` (never `prefix2`), in order of key; nothing if there is none."""

    def read(self, key: str) -> bytes:
        """The whole object: for small ones (configs, manifests)."""

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """The object as a stream that is read once, front to back, from byte `start` on (one that it has)."""

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Put the object at `target`, whole or not at all."""

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Put the file at `key`, whole or not at all, replacing what was there."""

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Put `data` at `key`, whole or not at all; with `if_absent`, AlreadyExistsError if something is there."""

    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""
