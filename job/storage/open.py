"""Open stores by their URI, and list the files of an input.

A URI is a path, `file:///path`, `s3://bucket/prefix`, `hf://org/name` or `hf://datasets/org/name`,
and names a folder or a file.
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
from job.identity import json_digest
from job.printable import visible
from job.storage.folders import MANIFEST, read_manifest_file
from job.storage.hub import HubStore
from job.storage.keys import below, is_unfit, local_path, scheme_of, split_file
from job.storage.local import LocalStore
from job.storage.s3 import S3Store
from job.storage.selection import LeftOut, Selection, log_left_out, table_of
from job.storage.store import Entry, Store

MAX_NEIGHBOURS_READ = 1000  # about a page of a listing, which is cheap in any bucket
MAX_NEIGHBOURS_SHOWN = 5
EVERYTHING = Selection()
SUMMARY_KEYS = {"identity", "counts", "state"}  # in the manifests of summaries


@dataclass(frozen=True)
class InputFile:
    """One file of an input: its URI, its store and key there, its size in bytes, and its version.

    The version changes whenever the content changes.
    """

    uri: str
    store: Store
    key: str
    size: int
    version: str

    def open(self) -> BinaryIO:
        """Return a stream to be read once, front to back."""
        return self.store.open(self.key)


def open_store(uri: str, options: StorageSection | None = None) -> Store:
    """Return the store rooted at `uri`, without a request to it.

    Raise ConfigError if the URI is invalid.
    """
    match scheme_of(uri):
        case "s3":
            return S3Store(uri, options)
        case "hf":
            return HubStore(uri)
        case _:
            return LocalStore(uri)


def read_uri(uri: str, options: StorageSection | None = None) -> bytes:
    """Return the content of one file.

    Raise ConfigError if the URI names no file, and the errors of `Store.read`.
    """
    folder, key = split_file(uri)
    return open_store(folder, options).read(key)


@dataclass(frozen=True)
class Inputs:
    """The files that URIs name, each once, and what is not among them.

    `left_out` has the files below them that are not read, `missing` the URIs that name no file,
    with the reason.
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
    """Return the files that `uris` name, as `find_inputs` does, and log those that are left out.

    Raise MissingError, with the nearest names, for a URI that names no file.
    """
    inputs = find_inputs(uris, options, selection, own_outputs=own_outputs)
    log_left_out(inputs.left_out)
    for why in inputs.missing.values():
        raise MissingError(why)
    return inputs.files


def files_digest(files: Iterable[InputFile]) -> str:
    """Return a digest of names, sizes and versions: another one if the content has changed."""
    return json_digest([[file.uri, file.size, file.version] for file in files])


def find_inputs(
    uris: Iterable[str],
    options: StorageSection | None = None,
    selection: Selection = EVERYTHING,
    *,
    own_outputs: bool = False,
) -> Inputs:
    """Find the files that `uris` name: a file itself, or the files of a folder that are selected.

    If a file and a prefix have the same name, the file is meant, unless it is an empty object,
    which is the prefix's marker. With `own_outputs`, outputs of recap below a folder are read too.
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
    """Chooses the files below one URI, and adds those that are not read to `left_out`."""

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
                uri = below(store.uri, table).rstrip("/")
                self.left_out.tables.add(visible(uri, one_line=True))

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
        # A bucket, a repository, a URI that ends in a slash, or no object of that name: it can only
        # be a folder.
        pass
    except ForbiddenError as error:
        # Without permission to list, S3 answers 403 for a key that does not exist.
        denied = error
    if file is not None and (file.size or scheme_of(uri) != "s3"):
        return [file]
    files = folder.files(open_store(uri, options))
    if file is not None and not files and not folder.left_out.count:
        return [file]  # an empty object with nothing below it: no marker, but an empty file
    if denied and not files:
        raise denied
    return files


def _input_file(store: Store, entry: Entry) -> InputFile:
    return InputFile(below(store.uri, entry.key), store, entry.key, entry.size, entry.version)


def _markers(entries: Iterable[Entry], folders: set[str]) -> dict[str, str]:
    """Return the empty objects with the name of a folder, by key: Hadoop and EMR write them."""
    empty = [entry.key for entry in entries if not entry.size]
    if not empty:
        return {}
    parents: set[str] = set()
    for folder in folders:
        parents.update(_and_above(folder))
    return {key: "an empty marker of the folder of this name" for key in empty if key in parents}


def _and_above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _own_outputs(store: Store, manifests: Iterable[str]) -> dict[str, str]:
    """Return why not to read the outputs of recap below the root, by key.

    They are the files that manifests of summaries and evaluations name. Other folders that recap
    published are data.
    """
    reasons: dict[str, str] = {}
    for key in manifests:
        try:
            manifest = read_manifest_file(store, key)
        except (MissingError, ForbiddenError, DataError):
            continue  # of another program, or damaged
        if not manifest.extra.keys() >= SUMMARY_KEYS and manifest.extra.get("kind") != "evaluation":
            continue
        folder = key.rpartition("/")[0]
        for name in (*manifest.files, key.rpartition("/")[2]):
            reasons[below(folder, name)] = f"an output of recap, by {key}"
    return reasons


def _nothing(uri: str, options: StorageSection | None, left_out: LeftOut) -> str:
    """Return the message for a URI that names no file, although something may be there."""
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
        return (
            f"{uri}: is no regular file (but a pipe, socket or device); give a file, or a folder "
            "of files"
        )
    pattern = ""
    if re.search(r"[*?\[]", uri):
        pattern = " (a pattern is no name: give the folder, and the pattern as data.include)"
    return f"{uri}: there is no such file, and no files below it{pattern}{_nearest(uri, options)}"


def _nearest(uri: str, options: StorageSection | None) -> str:
    """Return what else the folder of `uri` has, for an error message."""
    try:
        folder, name = split_file(uri.rstrip("/"))
        names = _names_in(folder, options)
    except (ConfigError, MissingError, ForbiddenError, OSError):
        return ""
    nearest = difflib.get_close_matches(name, names, MAX_NEIGHBOURS_SHOWN, 0.4)
    shown = nearest or sorted(names)[:MAX_NEIGHBOURS_SHOWN]
    return f"; {folder} has {', '.join(shown)}" if shown else f"; {folder} has no files"


def _names_in(folder: str, options: StorageSection | None) -> set[str]:
    if scheme_of(folder) == "file":
        return set(os.listdir(local_path(folder)))
    listing = open_store(folder, options).list(skip=is_unfit)
    entries = islice(listing, MAX_NEIGHBOURS_READ)
    return {entry.key.partition("/")[0] for entry in entries}
