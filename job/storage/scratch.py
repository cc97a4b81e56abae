"""Scratch space on this machine: the cache of downloads, and the work folder of a run.

RECAP_CACHE and RECAP_WORK name them, so that both can be put on one writable mount. The defaults
are the user's cache folder, and a folder below the cache.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from job.errors import OutputError
from job.storage.holder import this_machine

LOCK = ".lock"  # suffix of the lock file beside a work folder; a living run holds it locked
UNTOUCHED_SECONDS = 2 * 24 * 3600  # age at which the work folder of another machine is deleted
PREPARED = "prepared"  # below the cache: a folder of folders of data, and a lock file
UNUSED_SECONDS = 2 * 24 * 3600  # age at which one of these folders is deleted
UNFINISHED = "part-"  # prefix of those that are being filled


def cache_folder() -> Path:
    """Return the folder of downloaded bases and adapters, created if necessary.

    Raise OutputError if it cannot be created.
    """
    return _create(cache_path())


def cache_path() -> Path:
    """Return the name of the cache folder, which need not exist."""
    named = os.environ.get("RECAP_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "recap"


def work_path() -> Path:
    """Return the name of the folder of work folders, which need not exist."""
    named = os.environ.get("RECAP_WORK")
    return Path(named) if named else cache_path() / "work"


def delete_unused(prepared: Path) -> None:
    """Delete what no process used for two days, and what killed processes did not finish.

    The caller holds the lock of `prepared`. A process that has files mapped keeps them.
    """
    oldest = time.time() - UNUSED_SECONDS
    for folder in prepared.iterdir():
        with suppress(OSError):
            is_unfinished = folder.name.startswith((UNFINISHED, "."))
            if folder.is_dir() and (is_unfinished or folder.stat().st_mtime < oldest):
                shutil.rmtree(folder)


@contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """Yield a new folder for one run's files, and delete it however the block ends.

    First deletes the folders of killed runs, whose checkpoints would fill the disk, and prepared
    data that nobody uses any more. Raise OutputError if the folder cannot be created.
    """
    if not os.environ.get("RECAP_WORK"):
        cache_folder()  # mkdir would make it as a parent, for everybody to read
    parent = _create(work_path())
    _sweep(parent)
    _sweep_prepared()

    with _output_errors(parent):
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        _delete(folder)
        lock.close()


def _lock(folder: Path) -> BinaryIO:
    """Create a lock file beside the folder, locked while this process lives; it names the machine.

    On a file system without locks the file is deleted again, and nobody sweeps the folder.
    """
    # The file gets the name that `_sweep` looks for only once it is locked.
    unnamed = folder.with_name(f".{folder.name}.unlocked")
    file = unnamed.open("xb")
    try:
        file.write(this_machine().encode())
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(_lock_of(folder))
    except OSError:
        unnamed.unlink()
    return file


def _sweep(parent: Path) -> None:
    """Delete the work folders of killed runs.

    A free lock proves that its run is dead only on the machine that made it: on a disk that several
    machines share, a lock may merely seem free. The folder of another machine, or of an earlier
    boot of this one, is deleted once nothing in it was touched for two days.
    """
    for lock in parent.glob(f".*{LOCK}"):
        # Errors mean that the lock is held, was deleted meanwhile, or belongs to another user.
        with suppress(OSError), lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = lock.with_name(lock.name.removeprefix(".").removesuffix(LOCK))
            if file.read() == this_machine().encode() or _is_untouched(folder, lock):
                _delete(folder)


def _sweep_prepared() -> None:
    """Delete unused data, which has conversations in plain text, whatever command begins.

    A no-op while a process prepares some: it does the same.
    """
    with suppress(OutputError, OSError):
        folder = cache_folder() / PREPARED
        with (folder / LOCK).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            delete_unused(folder)


def _is_untouched(folder: Path, lock: Path) -> bool:
    newest = max(path.lstat().st_mtime for path in (lock, *folder.rglob("*")))
    return time.time() - newest > UNTOUCHED_SECONDS


def _delete(folder: Path) -> None:
    """Delete the folder, then its lock: an interrupted deletion is repeated by the next sweep."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{LOCK}")


def _create(folder: Path) -> Path:
    with _output_errors(folder):
        # Only its owner may read it: it has customers' conversations and private weights.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    """Raise OSErrors of the block, which creates something in `folder`, as OutputError."""
    try:
        yield
    except OSError as error:
        remedy = "set RECAP_CACHE and RECAP_WORK to a writable folder"
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}): {remedy}",
        ) from error
