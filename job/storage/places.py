"""Where this machine keeps what can be fetched again, and what a run needs only while it runs.

Both can be put on one writable mount: RECAP_CACHE and RECAP_WORK (else the user's cache folder, and a folder below it).
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

LOCK = ".lock"  # how the name ends of the file beside a work folder that its run holds locked
UNTOUCHED_SECONDS = 2 * 24 * 3600


def cache_folder() -> Path:
    """The folder of fetched bases and adapters, made if need be; OutputError if it cannot be."""
    named = os.environ.get("RECAP_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return _made(Path(named) if named else home / "recap")


@contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """A new folder for one run's files, removed at the end however it ends; OutputError if it cannot be made.

    Those that killed runs left are removed before, or the disk would fill up with their checkpoints.
    """
    named = os.environ.get("RECAP_WORK")
    parent = _made(Path(named) if named else cache_folder() / "work")
    _sweep(parent)
    with _writable(parent):
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        lock = _locked(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        lock.close()


def _locked(folder: Path) -> BinaryIO:
    """A file beside the folder that is locked while this process lives, and says on which machine that is.

    It gets its name when it is locked. Without locks it gets none, and the folder is nobody's to remove.
    """
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
    """Remove the work folders of runs that were killed.

    A lock that is free says so on the machine that made it. On a disk that several share it may only seem free, so
    that one of another machine, or from before this one's start, must have been left alone for two days.
    """
    for lock in parent.glob(f".*{LOCK}"):
        with suppress(OSError), lock.open("r+b") as file:  # held, gone already, another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = lock.with_name(lock.name.removeprefix(".").removesuffix(LOCK))
            if file.read() == this_machine().encode() or _is_untouched(folder, lock):
                _remove(folder)


def _is_untouched(folder: Path, lock: Path) -> bool:
    newest = max(path.lstat().st_mtime for path in (lock, *folder.rglob("*")))
    return time.time() - newest > UNTOUCHED_SECONDS


def _remove(folder: Path) -> None:
    """The lock goes last: a removal that is cut short is taken up again."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{LOCK}")


def _made(folder: Path) -> Path:
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """OSErrors of the block, which makes `folder` or something in it, as OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}): set RECAP_CACHE and RECAP_WORK to a writable folder"
        ) from error
