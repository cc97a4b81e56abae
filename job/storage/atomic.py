"""Atomic writes of files and folders on this machine.

Each is written beside its target under a name that no listing shows, flushed to disk, and then
renamed. Errors of the file system are raised as those of `job.errors`.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from job.errors import (
    AlreadyExistsError,
    ForbiddenError,
    MissingError,
    OutputError,
    RetryError,
    unwritable,
)

UNFINISHED = ".recap-part"  # suffix of files and folders that are still being written
TRIES = 20  # another process may remove an empty folder just before this one creates a file in it


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Raise OSErrors of the block, which writes to `where`, as OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "choose a writable output, or mount it writable"
            why = f"it is read-only for this user ({error.strerror}): {remedy}"
        elif isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            remedy = "remove it, or choose another output"
            why = f"something else is in the way ({error.strerror}): {remedy}"
        else:
            why = unwritable(error) or f"{error.strerror or error}: choose another output"
        raise OutputError(f"{where} cannot be written: {why}") from error


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Raise OSErrors of the block, which reads `where`, as errors of `job.errors`.

    These are MissingError, ForbiddenError and, for all others, RetryError.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MissingError(f"{where}: there is no such file") from error
    except PermissionError as error:
        raise ForbiddenError(
            f"{where} may not be read by this user: change its permissions",
        ) from error
    except OSError as error:
        raise RetryError(f"{where} cannot be read: {error.strerror or error}") from error


@contextmanager
def new_file(target: Path, *, if_absent: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write. It becomes `target` if the block succeeds and is deleted if it fails.

    Replaces what is there. With `if_absent`, raises AlreadyExistsError instead. Other errors of the
    file system are raised as OutputError.
    """
    with writing(target):
        file = _create_beside(target)
    part = Path(file.name)

    try:
        yield file
        with writing(target):
            file.flush()
            os.fsync(file.fileno())
            # Rename before closing: closing drops the lock that protects the file from `sweep`.
            _move_into_place(part, target, if_absent)
            file.close()
            sync_folder(target.parent)
    finally:
        # Closing flushes the buffer, which fails a second time if writing has failed.
        with suppress(OSError):
            file.close()
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill, beside `target`. Delete it afterwards unless the block renamed it.

    Raise OutputError if it cannot be created.
    """
    part = target.parent / f".{uuid.uuid4().hex}{UNFINISHED}"
    with writing(target):
        part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_file(target: Path, data: bytes, *, if_absent: bool = False) -> None:
    """Write `data` to `target`, atomically. Raise as `new_file` does."""
    with new_file(target, if_absent=if_absent) as file, writing(target):
        file.write(data)


def replace_folder(folder: Path, target: Path) -> None:
    """Rename `folder`, made by `new_folder`, to `target`, and delete the folder that was there.

    No system call replaces a full folder in one step, so for a moment there is none. A mixture of
    the two never exists.
    """
    with new_folder(target) as aside, writing(target):
        if target.is_dir():
            os.rename(target, aside / "old")
        os.rename(folder, target)
        sync_folder(target.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on `folder` for the block. Other processes of this machine wait.

    Creates the folder if there is none.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
    with file:
        with writing(folder):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to disk: without it, a rename may not survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE mounts cannot flush a folder. Nothing more can be done there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _create_beside(target: Path) -> BinaryIO:
    """Create and open an unfinished file next to `target`, locked so that `sweep` spares it."""
    part = target.parent / f".{uuid.uuid4().hex}{UNFINISHED}"
    for attempt in range(TRIES):
        try:
            # mkdir raises FileExistsError, too, if the folder disappears at this very moment.
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not `tempfile`: its files are readable by their owner alone, whatever the umask says.
            file = part.open("xb")
        except (FileNotFoundError, FileExistsError):
            if attempt == TRIES - 1:
                raise
            continue

        # A shared lock marks the writer as alive. On a file system without locks `sweep` gets none
        # either, and deletes nothing.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        if part.exists():  # no sweep ran between creating the file and locking it
            return file
        file.close()
    raise FileNotFoundError(errno.ENOENT, "removed again and again as it is made", str(part))


def sweep(folder: Path) -> None:
    """Delete the unfinished files that killed writers left in `folder`."""
    try:
        parts = list(folder.glob(f".*{UNFINISHED}"))
    except FileNotFoundError:
        return  # another process deleted the folder together with its last file

    for part in parts:
        # Errors mean that it is a folder, was deleted meanwhile, or belongs to another user.
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _move_into_place(part: Path, target: Path, if_absent: bool) -> None:
    if not if_absent:
        os.replace(part, target)
        return
    try:
        # A hard link is the one atomic step that refuses a taken name and shows the whole content.
        os.link(part, target)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{target} is there already") from error
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise OutputError(
                f"{target}: this file system has no hard links, which a guarded write needs",
            ) from error
        raise
