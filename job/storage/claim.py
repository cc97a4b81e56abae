"""Whose the files of an output are, so that nothing is overwritten that recap did not write.

A manifest vouches for the files that it names. While they are replaced there is none, so a marker stands there from
before the first change until after the last one: it tells what an interrupted run left, which may be replaced, from
what somebody keeps there, which may not. Knows nothing of what the files mean.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from job.errors import MissingError, OutputError
from job.storage.folders import Manifest
from job.storage.store import Entry, Store

MARKER = "_PUBLISHING"  # of a folder; names that start with _ or . are no input of anything


@contextmanager
def claimed(store: Store, marker: str, kind: str) -> Iterator[None]:
    """Whatever the block replaces is marked as recap's until it ends well; where it does not, the marker stays.

    The marker is no guarded write: file systems without hard links have none, and of two runs that publish at once
    neither could tell the other from an interrupted one.
    """
    if not is_claimed(store, marker, kind):
        store.write(marker, _content(kind))
    yield
    store.delete(marker)


def is_claimed(store: Store, marker: str, kind: str) -> bool:
    """Whether a publication of this kind did not come to its end; OutputError if the marker is something else's."""
    try:
        found = store.read(marker)
    except MissingError:
        return False
    if found != _content(kind):
        raise OutputError(
            f"{store.uri}/{marker} is there and was left by something other than {kind}: choose another output, or "
            "remove what is there"
        )
    return True


def entries_at(store: Store, keys: Iterable[str]) -> Iterator[Entry]:
    """What is there of these keys."""
    for key in keys:
        try:
            yield store.stat(key)
        except MissingError:
            continue


def check_vouched(store: Store, entries: Iterable[Entry], manifest: Manifest | None) -> None:
    """OutputError if one of these entries, which would be replaced, is not what the manifest says."""
    for entry in entries:
        named = manifest.files.get(entry.key) if manifest else None
        if named is None or named.size != entry.size:
            why = f"its manifest says {named.size} bytes, not {entry.size}" if named else "no manifest names it"
            raise OutputError(
                f"{store.uri}/{entry.key} is there and {why}: recap replaces only what it wrote itself; choose another "
                "output, or move the file away"
            )


def _content(kind: str) -> bytes:
    return (json.dumps({"recap is publishing": kind}) + "\n").encode()
