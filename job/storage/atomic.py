"""Files and folders on this machine that appear whole or not at all.

Each is written beside its target, under a name that no listing shows, flushed to disk and renamed. Errors of the file
system come out as those of `job.errors`. Knows nothing of stores.
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

from job.errors import AlreadyExistsError, ForbiddenError, MissingError, OutputError, RetryError, unwritable

UNFINISHED = ".recap-part"  # how the names of files and folders end that are still being written
TRIES = 20  # a folder can be removed, as its last file goes, just before a file is made in it


@contextmanager
def writing(where: object) -> Iterator[None]:
    """OSErrors of the block, which writes at `where`, as OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            why = f"it is read-only for this user ({error.strerror}): choose a writable output, or mount it writable"
        elif isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            why = f"something else is in the way ({error.strerror}): remove it, or choose another output"
        else:
            why = unwritable(error) or f"{error.strerror or error}: choose another output"
        raise OutputError(f"{where} cannot be written: {why}") from error


@contextmanager
def reading(where: object) -> Iterator[None]:
    """OSErrors of the block, which reads `where`, as MissingError, ForbiddenError or RetryError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MissingError(f"{where}: there is no such file") from error
    except PermissionError as error:
        raise ForbiddenError(f"{where} may not be read by this user: change its permissions") from error
    except OSError as error:
        raise RetryError(f"{where} cannot be read: {error.strerror or error}") from error


@contextmanager
def new_file(target: Path, *, if_absent: bool = False) -> Iterator[BinaryIO]:
    """A file to write that becomes `target` when the block ends well, and is gone when it does not.

    It replaces what is there; with `if_absent` it raises AlreadyExistsError instead. Errors: OutputError.
    """
    with writing(target):
        file = _made_beside(target)
    part = Path(file.name)
    try:
        yield file
        with writing(target):
            file.flush()
            os.fsync(file.fileno())
            _settle(part, target, if_absent)  # before the file is closed, and its lock gone that keeps `sweep` away
            file.close()
            sync_folder(target.parent)
    finally:
        with suppress(OSError):  # closing writes what is buffered, which fails again where writing has failed
            file.close()
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, removed at the end unless the block has renamed it. Errors: OutputError."""
    part = target.parent / f".{uuid.uuid4().hex}{UNFINISHED}"
    with writing(target):
        part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_file(target: Path, data: bytes, *, if_absent: bool = False) -> None:
    """Put `data` at `target`, whole or not at all."""
    with new_file(target, if_absent=if_absent) as file, writing(target):
        file.write(data)


def replace_folder(folder: Path, target: Path) -> None:
    """Rename `folder`, of `new_folder`, to `target`; what is there steps aside first and is removed.

    A full folder cannot be replaced in one step: for a moment there is none, but never a mixture.
    """
    with new_folder(target) as aside, writing(target):
        if target.is_dir():
            os.rename(target, aside / "old")
        os.rename(folder, target)
        sync_folder(target.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process of this machine is in the block for `folder`, which is made if need be; the others wait."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
    with file:
        with writing(folder):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to disk, without which a rename may not outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network and FUSE mounts that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _made_beside(target: Path) -> BinaryIO:
    part = target.parent / f".{uuid.uuid4().hex}{UNFINISHED}"
    for attempt in range(TRIES):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)  # FileExistsError too where it goes at this moment
            file = part.open("xb")  # not by tempfile, whose files are closed to others whatever the umask says
        except (FileNotFoundError, FileExistsError):
            if attempt == TRIES - 1:
                raise
            continue
        with suppress(OSError):  # a file system without locks, where `sweep` removes nothing
            fcntl.flock(file, fcntl.LOCK_SH)  # tells `sweep` that who writes it is alive
        if part.exists():  # else a sweep has come in between
            return file
        file.close()
    raise FileNotFoundError(errno.ENOENT, "removed again and again as it is made", str(part))


def sweep(folder: Path) -> None:
    """Remove the unfinished files of writers that were killed."""
    try:
        parts = list(folder.glob(f".*{UNFINISHED}"))
    except FileNotFoundError:
        return  # somebody else has removed it, with its last file
    for part in parts:
        with suppress(OSError), part.open("rb") as file:  # a folder, gone already, or somebody else's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _settle(part: Path, target: Path, if_absent: bool) -> None:
    if not if_absent:
        os.replace(part, target)
        return
    try:
        os.link(part, target)  # the one step that is atomic, refuses a taken name, and has the whole content
    except FileExistsError as error:
        raise AlreadyExistsError(f"{target} is there already") from error
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise OutputError(f"{target}: this file system has no hard links, which a guarded write needs") from error
        raise
