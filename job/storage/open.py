"""URIs → stores and files: the way in for everything above.

A URI is a path, `file:///path`, `s3://bucket/prefix`, `hf://org/name` or `hf://datasets/org/name`, and names a folder
or a file. Knows nothing of what the bytes mean.
"""

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from job.config.sections import StorageSection
from job.errors import ConfigError, ForbiddenError, MissingError
from job.storage.hub import HubStore
from job.storage.keys import below, local_path, scheme_of, split_file
from job.storage.local import LocalStore
from job.storage.s3 import S3Store
from job.storage.store import Store

NEIGHBOURS_READ, NEIGHBOURS_SHOWN = 1000, 5


@dataclass(frozen=True)
class InputFile:
    """One file of an input: its whole URI, where to read it, its size in bytes, and a version that changes with it."""

    uri: str
    store: Store
    key: str
    size: int
    version: str

    def open(self) -> BinaryIO:
        """The file as a stream that is read once, front to back."""
        return self.store.open(self.key)


def open_store(uri: str, options: StorageSection | None = None) -> Store:
    """The store rooted at `uri`; nothing is asked of it yet. ConfigError if the URI names no place."""
    match scheme_of(uri):
        case "s3":
            return S3Store(uri, options)
        case "hf":
            return HubStore(uri)
        case _:
            return LocalStore(uri)


def read_uri(uri: str, options: StorageSection | None = None) -> bytes:
    """The whole content of one file; errors as of `Store.read`, and ConfigError if the URI names no file."""
    folder, key = split_file(uri)
    return open_store(folder, options).read(key)


def list_inputs(
    uris: Iterable[str], options: StorageSection | None = None, *, allow_empty: bool = False
) -> list[InputFile]:
    """The files that `uris` name, each once: a file itself, a folder or prefix all files below it in order of key.

    Where a file and a prefix have the same name, it is the file. Names that start with `.` or `_` are skipped below a
    folder. MissingError, with the nearest names, where nothing is; with `allow_empty` that is no file.
    """
    files: dict[str, InputFile] = {}
    for uri in uris:
        found = _files(uri, options)
        if not found and not allow_empty:
            raise MissingError(_nothing(uri, options))
        files |= {file.uri: file for file in found}
    return list(files.values())


def _files(uri: str, options: StorageSection | None) -> list[InputFile]:
    denied: ForbiddenError | None = None
    try:
        folder, key = split_file(uri)
        store = open_store(folder, options)
        entry = store.stat(key)
        return [InputFile(local_path(uri), store, key, entry.size, entry.version)]
    except (ConfigError, MissingError):
        pass  # a bucket, a repository, a URI that ends in a slash, or nothing of that name: a folder, if anything
    except ForbiddenError as error:
        denied = error  # without the permission to list, S3 says so of a key that is not there
    below_it = list(_files_below(open_store(uri, options)))
    if denied and not below_it:
        raise denied
    return below_it


def _files_below(store: Store) -> Iterator[InputFile]:
    for entry in store.list():
        hidden = any(part.startswith((".", "_")) for part in entry.key.split("/"))
        # A repository's front page is not data, though it lies beside it.
        if not hidden and not (isinstance(store, HubStore) and entry.key == "README.md"):
            yield InputFile(below(store.uri, entry.key), store, entry.key, entry.size, entry.version)


def _nothing(uri: str, options: StorageSection | None) -> str:
    """The message for a URI that names no file: on this machine something else may well be there."""
    path = Path(local_path(uri)) if scheme_of(uri) == "file" else None
    if path and path.is_dir():
        return f"{uri}: is a folder without files (names that start with . or _ do not count); name one that has some"
    if path and path.exists() and not path.is_file():
        return f"{uri}: is no regular file (but a pipe, socket or device); give a file, or a folder of files"
    return f"{uri}: there is no such file, and no files below it{_nearest(uri, options)}"


def _nearest(uri: str, options: StorageSection | None) -> str:
    """What else is at the same place, for an error message."""
    try:
        folder, name = split_file(uri.rstrip("/"))
        names = _names_in(folder, options)
    except (ConfigError, MissingError, ForbiddenError, OSError):
        return ""
    nearest = difflib.get_close_matches(name, names, NEIGHBOURS_SHOWN, 0.4) or sorted(names)[:NEIGHBOURS_SHOWN]
    return f"; {folder} has {', '.join(nearest)}" if nearest else f"; {folder} has no files"


def _names_in(folder: str, options: StorageSection | None) -> set[str]:
    if scheme_of(folder) == "file":
        return set(os.listdir(local_path(folder)))
    entries = islice(open_store(folder, options).list(), NEIGHBOURS_READ)  # a page or so: cheap in any bucket
    return {entry.key.partition("/")[0] for entry in entries}
