"""The place of an evaluation: free, or an earlier evaluation's to be replaced; anything else is refused.

Knows nothing of scores.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import DamagedError, MissingError, OutputError
from job.storage.claim import (
    MARKER,
    check_unobstructed,
    check_vouched,
    claimed,
    entries_at,
    is_claimed,
)
from job.storage.folders import MANIFEST, Manifest, publish_folder, read_manifest
from job.storage.store import Store

KIND = "evaluation"
FILES = ("evaluation.json", "report.html", "summaries.jsonl")


def check_place(store: Store) -> None:
    """OutputError unless nothing that would be replaced is there, or an evaluation left it, whole or interrupted."""
    check_unobstructed(store, (*FILES, MANIFEST, MARKER))
    taken = list(entries_at(store, FILES))
    interrupted = is_claimed(store, MARKER, KIND)
    manifest = _read_manifest(store)  # last: it is written before the marker goes
    if not interrupted:
        check_vouched(store, taken, manifest)


def publish(folder: Path, store: Store, facts: Mapping[str, Any]) -> None:
    """Put FILES, which lie in `folder`, into the store, the manifest last."""
    with claimed(store, MARKER, KIND):
        publish_folder(folder, store, "", {"kind": KIND, **facts})


def _read_manifest(store: Store) -> Manifest | None:
    try:
        manifest = read_manifest(store, "")
    except MissingError:
        return None
    except DamagedError as error:
        raise OutputError(
            f"output: {error}; choose another output, or remove what is there"
        ) from error
    if manifest.extra.get("kind") != KIND:
        raise OutputError(
            f"output: {store.uri} holds something other than an evaluation (its manifest names "
            f"{', '.join(list(manifest.files)[:3]) or 'no files'}): choose another output"
        )
    return manifest
