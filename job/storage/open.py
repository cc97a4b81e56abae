"""URIs → stores and files: the way in for everything above.

A URI is a path, `file:///path`, `s3://bucket/prefix`, `hf://org/name` or `hf://datasets/org/name`,
and names a folder or a file. Knows nothing of what the bytes mean, but for the manifests that recap
leaves beside its own.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from job.config.sections import StorageSection
from job.errors import ConfigError, DataError, ForbiddenError, MissingError
from job.printable import visible
from job.storage.folders import MANIFEST, read_manifest_file
from job.storage.hub import HubStore
from job.storage.keys import below, is_unfit, local_path, scheme_of, split_file
from job.storage.local import LocalStore
from job.storage.s3 import S3Store
from job.storage.selection import LeftOut, Selection, log_left_out, table_of
from job.storage.store import Entry, Store

NEIGHBOURS_READ = 1000
NEIGHBOURS_SHOWN = 5
EVERYTHING = Selection()
OF_SUMMARIES = {"identity", "counts", "state"}  # in the manifest of a night, among others


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


@dataclass(frozen=True)
class Inputs:
    """The files that some URIs name, each once; what is left out below them; the URIs that name no
    file, with the reason.
    """

    files: list[InputFile]
    left_out: LeftOut
    missing: dict[str, str]


def list_inputs(
    uris: Iterable[str],
    options: StorageSection | None = None,
    selection: Selection = EVERYTHING,
    *,
    own_outputs: bool = False,
) -> list[InputFile]:
    """Return the files that `uris` name, as `find_inputs` does; log those that are left out.

    Raises MissingError, with the nearest names, for a URI that names no file.
    """
    inputs = find_inputs(uris, options, selection, own_outputs=own_outputs)
    log_left_out(inputs.left_out)
    for why in inputs.missing.values():
        raise MissingError(why)
    return inputs.files


def find_inputs(
    uris: Iterable[str],
    options: StorageSection | None = None,
    selection: Selection = EVERYTHING,
    *,
    own_outputs: bool = False,
) -> Inputs:
    """Return the files that `uris` name: a file itself, of a folder what `selection` takes, by key.

    Where a file and a prefix have the same name, the file is meant; but an empty object is only the
    prefix's marker. With `own_outputs`, what recap published below a folder counts too.
    """
    files: dict[str, InputFile] = {}
    left_out = LeftOut()
    missing: dict[str, str] = {}
    for uri in uris:
        here = LeftOut()
        found = _files(uri, options, _Folder(selection, here, own_outputs))
        if not found:
            missing[uri] = _nothing(uri, options, here)
        files |= {file.uri: file for file in found}
        left_out.extend(here)
    return Inputs(list(files.values()), left_out, missing)


@dataclass(frozen=True)
class _Folder:
    """How the files below one URI are chosen, and where those are noted that are not."""

    selection: Selection
    left_out: LeftOut
    own_outputs: bool

    def files(self, store: Store) -> list[InputFile]:
        """Return the files below the store's root that are data."""
        folders: set[str] = set()
        manifests: list[str] = []

        def skip(key: str) -> bool:
            folders.add(key.rpartition("/")[0])
            if key.endswith(MANIFEST):
                manifests.append(key)
            table = table_of(key)
            if table is not None:
                self.left_out.tables.add(
                    visible(below(store.uri, table).rstrip("/"), one_line=True)
                )
            why = self.selection.why_not(key)
            if why is not None:
                self.left_out.add(below(store.uri, key), why)
            elif is_unfit(key):
                self.left_out.add_odd(key, below(store.uri, key))
            return why is not None or is_unfit(key)

        entries = list(store.list(skip=skip))
        reasons = _markers(entries, folders)
        if entries and not self.own_outputs:
            reasons |= _own_outputs(store, manifests)
        files = []
        for entry in entries:
            if entry.key in reasons:
                self.left_out.add(below(store.uri, entry.key), reasons[entry.key])
            else:
                files.append(_input_file(store, entry))
        return files


def _files(uri: str, options: StorageSection | None, folder: _Folder) -> list[InputFile]:
    denied: ForbiddenError | None = None
    file: InputFile | None = None
    try:
        parent, key = split_file(uri)
        store = open_store(parent, options)
        entry = store.stat(key)
        file = InputFile(local_path(uri), store, key, entry.size, entry.version)
    except (ConfigError, MissingError):
        # A bucket, a repository, a URI that ends in a slash, or nothing of that name: a folder, if
        # anything.
        pass
    except ForbiddenError as error:
        denied = error  # without the permission to list, S3 says so of a key that is not there
    if file is not None and (file.size or scheme_of(uri) != "s3"):
        return [file]
    files = folder.files(open_store(uri, options))
    if file is not None and not files and not folder.left_out.count:
        return [file]  # empty, and nothing below it
    if denied and not files:
        raise denied
    return files


def _input_file(store: Store, entry: Entry) -> InputFile:
    return InputFile(below(store.uri, entry.key), store, entry.key, entry.size, entry.version)


def _markers(entries: Iterable[Entry], folders: set[str]) -> dict[str, str]:
    """Empty objects with the name of a folder, by key: Hadoop and EMR write them."""
    empty = [entry.key for entry in entries if not entry.size]
    if not empty:
        return {}
    parents = {parent for folder in folders for parent in _and_above(folder)}
    return {key: "an empty marker of the folder of this name" for key in empty if key in parents}


def _and_above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _own_outputs(store: Store, manifests: Iterable[str]) -> dict[str, str]:
    """Return why not to read what recap made of an input below the root, by key, as its manifests
    name it. Data that recap published is data.
    """
    reasons: dict[str, str] = {}
    for key in manifests:
        try:
            manifest = read_manifest_file(store, key)
        except (MissingError, ForbiddenError, DataError):
            continue  # somebody else's, or damaged
        if not manifest.extra.keys() >= OF_SUMMARIES and manifest.extra.get("kind") != "evaluation":
            continue
        folder = key.rpartition("/")[0]
        for name in (*manifest.files, key.rpartition("/")[2]):
            reasons[below(folder, name)] = f"an output of recap, by {key}"
    return reasons


def _nothing(uri: str, options: StorageSection | None, left_out: LeftOut) -> str:
    """Return the message for a URI that names no file; here, something else may well be there."""
    if left_out.count:
        return (
            f"{uri}: none of the {left_out.count} files below it is read, first "
            f"{left_out.first[0]}; correct data.include and data.exclude, or name the files "
            "themselves"
        )
    path = Path(local_path(uri)) if scheme_of(uri) == "file" else None
    if path and path.is_dir():
        return f"{uri}: is a folder without files; name one that has some"
    if path and path.exists() and not path.is_file():
        return f"{uri}: is no regular file (but a pipe, socket or device); give a file, or a folder of files"
    pattern = ""
    if re.search(r"[*?\[]", uri):
        pattern = " (a pattern is no name: give the folder, and the pattern as data.include)"
    return f"{uri}: there is no such file, and no files below it{pattern}{_nearest(uri, options)}"


def _nearest(uri: str, options: StorageSection | None) -> str:
    """What else is at the same place, for an error message."""
    try:
        folder, name = split_file(uri.rstrip("/"))
        names = _names_in(folder, options)
    except (ConfigError, MissingError, ForbiddenError, OSError):
        return ""
    nearest = (
        difflib.get_close_matches(name, names, NEIGHBOURS_SHOWN, 0.4)
        or sorted(names)[:NEIGHBOURS_SHOWN]
    )
    return f"; {folder} has {', '.join(nearest)}" if nearest else f"; {folder} has no files"


def _names_in(folder: str, options: StorageSection | None) -> set[str]:
    if scheme_of(folder) == "file":
        return set(os.listdir(local_path(folder)))
    entries = islice(
        open_store(folder, options).list(skip=is_unfit), NEIGHBOURS_READ
    )  # a page or so: cheap in any bucket
    return {entry.key.partition("/")[0] for entry in entries}
