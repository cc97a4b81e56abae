"""SHA-256 of large files: several at once, and once for each file as long as nobody changes it.

A digest is remembered under the file's device, inode, size, and times of modification and of
change. The last is set by the system: no program can reset it as it can the first.
"""

import os
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from job.errors import OutputError
from job.identity import sha256_of
from job.storage.atomic import reading, write_file
from job.storage.folders import sha256_file

MAX_THREADS = 8  # hashing frees Python's lock; a disk gives no more than so many read
# A file that was changed less than this before it is read may change again without another time.
MIN_AGE_SECONDS = 3.0
MIN_REMEMBERED_BYTES = 32 << 20  # smaller ones are read in less than a tenth of a second
HUB_BLOBS = "blobs"
SHA256 = re.compile("[0-9a-f]{64}")


def sha256_files(paths: Sequence[Path], cache: Path | None = None) -> list[str]:
    """Return the SHA-256 of each file, remembered in the folder `cache` if one is given."""
    threads = min(len(os.sched_getaffinity(0)), MAX_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(partial(_sha256, cache=cache), paths))


def hub_digests(snapshot: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the large files of a snapshot in the Hub's cache, without reading them.

    A snapshot has links to files that the cache names by the digest that the Hub gave. Small files
    have another kind of name, and are left out.
    """
    digests = {}
    for name in names:
        blob = (snapshot / name).resolve()
        if blob.parent.name == HUB_BLOBS and SHA256.fullmatch(blob.name):
            digests[name] = blob.name
    return digests


def _sha256(path: Path, cache: Path | None) -> str:
    before = _state(path)
    if cache is None or before.size < MIN_REMEMBERED_BYTES:
        return sha256_file(path)
    started = time.time()
    remembered = cache / "digests" / sha256_of(str(before))[:32]
    with suppress(OSError, UnicodeDecodeError):
        known = remembered.read_text(encoding="ascii")
        if SHA256.fullmatch(known):
            return known
    digest = sha256_file(path)
    is_settled = before.last_change < started - MIN_AGE_SECONDS
    if is_settled and _state(path) == before:
        with suppress(OutputError):  # a cache that is read-only
            write_file(remembered, digest.encode())
    return digest


class _State(NamedTuple):
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @property
    def last_change(self) -> float:
        """In seconds since the epoch."""
        return max(self.modified_ns, self.changed_ns) / 1e9


def _state(path: Path) -> _State:
    with reading(path):
        found = path.stat()
    return _State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
