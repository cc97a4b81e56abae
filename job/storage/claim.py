"""Ownership of an output's files, so that recap overwrites only what it wrote itself.

A finished output has a manifest that names its files. While they are replaced there is no manifest,
so a marker is written before the first change and deleted after the last. Files beside a marker are
the remains of an interrupted run and may be replaced; files without manifest and marker may not.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.errors import DamagedError, MissingError, OutputError
from job.storage.folders import Manifest, publish_folder, read_manifest
from job.storage.keys import local_path, scheme_of
from job.storage.store import Entry, Store

MARKER = "_PUBLISHING"  # file name of a folder's marker; readers skip names that start with _ or .


@contextmanager
def hold_claim(store: Store, marker: str, kind: str) -> Iterator[None]:
    """Write the publishing marker, run the block, and delete the marker.

    The marker stays if the block fails or the process dies. `kind` names the publication. Raise
    OutputError if the marker's key holds something else.
    """
    # Not a guarded write: file systems without hard links have none, and it would not help. Of two
    # runs that publish at once, neither could distinguish the other from an interrupted one.
    if not is_claimed(store, marker, kind):
        store.write(marker, _content(kind))
    yield
    store.delete(marker)


def publish_claimed(
    folder: Path, store: Store, kind: str, files: Collection[str], facts: Mapping[str, Any]
) -> Manifest:
    """Upload the files of `folder` under a claim, the manifest last, with its kind and `facts`.

    Delete those of `files` that an earlier publication left and this one does not have.
    """
    with hold_claim(store, MARKER, kind):
        manifest = publish_folder(folder, store, "", {"kind": kind, **facts})
        for entry in entries_at(store, files):
            if entry.key not in manifest.files:
                store.delete(entry.key)
    return manifest


def read_manifest_of(store: Store, kind: str, name: str) -> Manifest | None:
    """Return the manifest of an earlier publication of this kind, None if there is none.

    Raise OutputError for a damaged one or one of another kind. `name` is the kind for people.
    """
    try:
        manifest = read_manifest(store, "")
    except MissingError:
        return None
    except DamagedError as error:
        remedy = "choose another output, or remove what is there"
        raise OutputError(f"output: {error}; {remedy}") from error
    if manifest.extra.get("kind") != kind:
        names = ", ".join(list(manifest.files)[:3]) or "no files"
        raise OutputError(
            f"output: {store.uri} holds something other than {name} (its manifest names {names}): "
            "choose another output"
        )
    return manifest


def is_claimed(store: Store, marker: str, kind: str) -> bool:
    """Return True if a publication of this kind was begun and not completed.

    Raise OutputError if the marker's key holds something else.
    """
    try:
        found = store.read(marker)
    except MissingError:
        return False
    if found != _content(kind):
        raise OutputError(
            f"{store.uri}/{marker} is there and was left by something other than {kind}: "
            "choose another output, or remove what is there"
        )
    return True


def entries_at(store: Store, keys: Iterable[str]) -> Iterator[Entry]:
    """Yield the entries of those `keys` that exist."""
    for key in keys:
        try:
            yield store.stat(key)
        except MissingError:
            continue


def check_vouched(store: Store, entries: Iterable[Entry], manifest: Manifest | None) -> None:
    """Raise OutputError unless the manifest names each of `entries`, in the size that it has.

    `entries` are the files that would be replaced.
    """
    for entry in entries:
        named = manifest.files.get(entry.key) if manifest else None
        if named is None or named.size != entry.size:
            why = "no manifest names it"
            if named:
                why = f"its manifest says {named.size} bytes, not {entry.size}"
            raise OutputError(
                f"{store.uri}/{entry.key} is there and {why}: recap replaces only what it wrote "
                "itself; choose another output, or move the file away"
            )


def check_unobstructed(store: Store, files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Raise OutputError if a folder has the name of one of `files`, or a file that of `folders`.

    Both are to be written. Only folders of this machine can be obstructed: other stores keep a file
    and a folder of one name.
    """
    if scheme_of(store.uri) != "file":
        return
    root = Path(local_path(store.uri))
    for key in files:
        if (root / key).is_dir():
            raise _obstructed(root / key, "folder", "file")
    for key in folders:
        if (root / key).exists() and not (root / key).is_dir():
            raise _obstructed(root / key, "file", "folder")


def _obstructed(path: Path, found: str, wanted: str) -> OutputError:
    return OutputError(
        f"{path} is a {found}, and recap would write a {wanted} of this name: choose another "
        f"output, or move the {found} away"
    )


def _content(kind: str) -> bytes:
    return (json.dumps({"recap is publishing": kind}) + "\n").encode()
