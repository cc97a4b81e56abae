"""The store in a folder of this machine: `Store` over files. Knows nothing of other places."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from job.errors import DataError, MissingError, RetryError
from job.storage.atomic import UNFINISHED, new_file, reading, sweep, write_file, writing
from job.storage.keys import below, check_key, local_path
from job.storage.store import Entry, Progress, Skip

CHUNK_BYTES = 1 << 20
LOST_AND_FOUND = "lost+found"  # of every ext4 volume, and closed to all but root


class LocalStore:
    """Files below one folder, which need not exist yet. A link that leads out of the folder is refused."""

    def __init__(self, uri: str) -> None:
        self._root = Path(local_path(uri))
        self.uri = str(self._root)

    def stat(self, key: str) -> Entry:
        """The entry at `key`; its version is modification time, size and inode."""
        path = self._path(key)
        with reading(path):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MissingError(f"{path}: is no file")
        return _entry(key, found)

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        """Yield every file below `prefix`, sorted by key.

        Raise DataError for a link to a folder, which may lead in circles, unless `skip` leaves it out.
        """
        folder = self._path(prefix) if prefix else self._root
        with reading(folder):
            there = folder.is_dir()
        if there:
            yield from self._below(folder, prefix, skip)

    def read(self, key: str) -> bytes:
        """The whole file."""
        path = self._path(key)
        with reading(path):
            return path.read_bytes()

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """The file as a stream."""
        path = self._path(key)
        with reading(path):
            file = path.open("rb")
            file.seek(start)
            return file

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Copy the file to `target`."""
        size = self.stat(key).size
        with self.open(key) as source, new_file(target) as file:
            copied = _copy(source, file, (self._path(key), target), progress)
            if copied != size:
                raise RetryError(
                    f"{self._path(key)} changed while it was read: {copied} bytes, wanted {size}"
                )

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Copy the file `source` to `key`."""
        target = self._path(key)
        with reading(source):
            opened = source.open("rb")
        with opened, new_file(target) as file:
            _copy(opened, file, (source, target), progress)

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Put `data` at `key`; with `if_absent` by a hard link, which only one of several writers gets."""
        write_file(self._path(key), data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        """Remove the file, and the folders that it leaves empty but for what killed writers left."""
        path = self._path(key)
        with writing(path):
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                return  # a part of the key is a file: there is nothing at the key
        for folder in path.relative_to(self._root).parents[:-1]:
            sweep(self._root / folder)
            try:
                (self._root / folder).rmdir()
            except OSError:
                break  # not empty, gone already, or not ours to remove: an empty folder is no entry anyway

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key, self.uri)
        root = Path(os.path.realpath(self._root))
        for place in (path.parent, path):  # where a new file would be made, and what an old one is
            real = Path(os.path.realpath(place))
            if not real.is_relative_to(root):
                raise DataError(
                    f"{path} leads out of {self.uri}, to {real}; name that place itself in the config"
                )
        return path

    def _below(self, folder: Path, prefix: str, skip: Skip | None) -> Iterator[Entry]:
        with reading(folder):
            try:
                found = list(os.scandir(folder))
            except FileNotFoundError:
                return  # removed, with its last file, since it was listed
        # A folder sorts as its name with a slash: "a-b" before "a/b", as whole keys do.
        for item in sorted(
            found, key=lambda item: item.name + "/" * item.is_dir(follow_symlinks=False)
        ):
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
                    f"{item.path}: is a link to {os.readlink(item.path)}, which is no file; remove the "
                    f"link, or leave it out of an input: data.exclude: '{key}'"
                )
            if item.is_file():
                try:
                    yield _entry(key, item.stat())
                except FileNotFoundError:
                    continue  # removed since the folder was read


def _entry(key: str, found: os.stat_result) -> Entry:
    return Entry(key, found.st_size, f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}")


def _copy(
    source: BinaryIO, target: BinaryIO, names: tuple[Path, Path], progress: Progress | None
) -> int:
    """Copy to the end; the bytes copied."""
    copied = 0
    while True:
        with reading(names[0]):
            chunk = source.read(CHUNK_BYTES)
        if not chunk:
            return copied
        with writing(names[1]):
            target.write(chunk)
        copied += len(chunk)
        if progress:
            progress(len(chunk))
