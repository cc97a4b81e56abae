"""A store in a folder of this machine."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from job.errors import ChangedError, DataError, MissingError, RetryError
from job.storage.atomic import (
    UNFINISHED,
    locked,
    new_file,
    reading,
    sweep,
    write_file,
    writing,
)
from job.storage.keys import below, check_key, local_path
from job.storage.store import Entry, Progress, Skip, read_or_none

CHUNK_BYTES = 1 << 20
LOST_AND_FOUND = "lost+found"  # in the root of every ext4 volume; only root may read it


class LocalStore:
    """Files below one folder, which need not exist yet.

    A link that leads out of the folder is an error.
    """

    def __init__(self, uri: str) -> None:
        self._root = Path(local_path(uri))
        self.uri = str(self._root)

    def stat(self, key: str) -> Entry:
        """Return the entry at `key`; its version is modification time, size and inode."""
        path = self._path(key)
        with reading(path):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MissingError(f"{path}: is no file")
        return _entry(key, found)

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        """Yield every file below `prefix`, sorted by key.

        Raise DataError for a link to a folder, which may lead in circles, unless `skip` leaves it
        out.
        """
        folder = self._path(prefix) if prefix else self._root
        with reading(folder):
            is_there = folder.is_dir()
        if is_there:
            yield from self._below(folder, prefix, skip)

    def read(self, key: str) -> bytes:
        """Return the whole file."""
        path = self._path(key)
        with reading(path):
            return path.read_bytes()

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """Return the file as a stream from byte `start` on."""
        path = self._path(key)
        with reading(path):
            file = path.open("rb")
            file.seek(start)
            return file

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Copy the file to `target`, atomically. Raise RetryError if it changes meanwhile."""
        size = self.stat(key).size
        with self.open(key) as source, new_file(target) as file:
            path = self._path(key)
            copied = 0
            for chunk in _chunks(source, path):
                with writing(target):
                    file.write(chunk)
                copied += len(chunk)
                if progress:
                    progress(len(chunk))
            if copied != size:
                raise RetryError(f"{path} changed while it was read: {copied} bytes, wanted {size}")

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Copy the file `source` to `key`, atomically."""
        target = self._path(key)
        with reading(source):
            opened = source.open("rb")
        with opened, new_file(target) as file:
            for chunk in _chunks(opened, source):
                with writing(target):
                    file.write(chunk)
                if progress:
                    progress(len(chunk))

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write `data` to `key`, atomically.

        With `if_absent` it is by a hard link, which only one of several writers can make.
        """
        write_file(self._path(key), data, if_absent=if_absent)

    def replace(self, key: str, data: bytes, expected: bytes | None) -> None:
        """Write `data` to `key` under the lock of its folder if the content is still `expected`.

        On a network mount, that holds between machines as far as the mount shares its locks.
        """
        path = self._path(key)
        with locked(path.parent):
            if read_or_none(self, key) != expected:
                raise ChangedError(f"{path} changed meanwhile")
            write_file(path, data)

    def delete(self, key: str) -> None:
        """Delete the file, and the folders above that are then empty.

        Unfinished files of killed writers do not count, and are deleted too.
        """
        path = self._path(key)
        with writing(path):
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                return  # a part of the key is a file, so there is nothing at the key
        for folder in path.relative_to(self._root).parents[:-1]:
            sweep(self._root / folder)
            try:
                (self._root / folder).rmdir()
            except OSError:
                # Not empty, deleted meanwhile, or not ours. An empty folder is no entry anyway.
                break

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key, self.uri)
        # Only a link below the root can lead out of it. Resolving whole paths asks the file system
        # for each folder above the root, too.
        inside = path.relative_to(self._root)
        if any(os.path.islink(self._root / part) for part in (inside, *inside.parents[:-1])):
            self._refuse_outside(path)
        return path

    def _refuse_outside(self, path: Path) -> None:
        """Raise DataError if a link leads out of the root."""
        root = Path(os.path.realpath(self._root))
        # The folder is where a new file would be created, the path is what an old one links to.
        for checked in (path.parent, path):
            real = Path(os.path.realpath(checked))
            if not real.is_relative_to(root):
                raise DataError(
                    f"{path} leads out of {self.uri}, to {real}; name the target itself in the "
                    "config"
                )

    def _below(self, folder: Path, prefix: str, skip: Skip | None) -> Iterator[Entry]:
        with reading(folder):
            try:
                found = list(os.scandir(folder))
            except FileNotFoundError:
                return  # deleted, with its last file, since the folder above was listed

        for item in sorted(found, key=_sort_key):
            key = below(prefix, item.name)
            if item.name.endswith(UNFINISHED) or item.name == LOST_AND_FOUND:
                continue
            if item.is_dir(follow_symlinks=False):
                yield from self._below(Path(item.path), key, skip)
                continue
            if skip is not None and (item.is_symlink() or item.is_file()) and skip(key):
                continue
            check_key(key, self.uri)
            if item.is_symlink() and not item.is_file():
                raise DataError(
                    f"{item.path}: is a link to {os.readlink(item.path)}, which is no file; remove "
                    f"the link, or leave it out of an input: data.exclude: '{key}'"
                )
            if item.is_file():
                try:
                    yield _entry(key, item.stat())
                except FileNotFoundError:
                    continue  # deleted since the folder was listed


def _entry(key: str, found: os.stat_result) -> Entry:
    return Entry(key, found.st_size, f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}")


def _sort_key(item: "os.DirEntry[str]") -> str:
    """Return the name, with a slash if it is a folder: whole keys sort "a-b" before "a/b"."""
    return item.name + "/" if item.is_dir(follow_symlinks=False) else item.name


def _chunks(source: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the content of an open file; `path` is for error messages."""
    while True:
        with reading(path):
            chunk = source.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
