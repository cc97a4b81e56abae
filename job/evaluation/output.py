"""The output location of an evaluation: free, or an earlier evaluation's, which is replaced."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import DamagedError, MissingError, OutputError
from job.storage.claim import (
    MARKER,
    check_unobstructed,
    check_vouched,
    entries_at,
    hold_claim,
    is_claimed,
)
from job.storage.folders import MANIFEST, Manifest, publish_folder, read_manifest
from job.storage.store import Store

KIND = "evaluation"
FILES = ("evaluation.json", "gate.json", "report.html", "summaries.jsonl")


def check_output(store: Store) -> None:
    """Raise OutputError if anything would be replaced that no evaluation wrote.

    What an evaluation left may be replaced, be it whole or interrupted.
    """
    check_unobstructed(store, (*FILES, MANIFEST, MARKER))
    taken = list(entries_at(store, FILES))
    is_interrupted = is_claimed(store, MARKER, KIND)

    # Read last: an evaluation that ends meanwhile writes it before it deletes its marker.
    manifest = _read_manifest(store)
    if not is_interrupted:
        check_vouched(store, taken, manifest)


def publish_evaluation(folder: Path, store: Store, facts: Mapping[str, Any]) -> None:
    """Upload FILES from `folder`, the manifest last. Replaces what an evaluation left there."""
    with hold_claim(store, MARKER, KIND):
        manifest = publish_folder(folder, store, "", {"kind": KIND, **facts})
        for entry in entries_at(store, FILES):
            if entry.key not in manifest.files:
                store.delete(entry.key)  # of an evaluation that had a gate


def _read_manifest(store: Store) -> Manifest | None:
    """Return the manifest of an earlier evaluation, if there is one; else raise OutputError."""
    try:
        manifest = read_manifest(store, "")
    except MissingError:
        return None
    except DamagedError as error:
        remedy = "choose another output, or remove what is there"
        raise OutputError(f"output: {error}; {remedy}") from error
    if manifest.extra.get("kind") != KIND:
        names = ", ".join(list(manifest.files)[:3]) or "no files"
        raise OutputError(
            f"output: {store.uri} holds something other than an evaluation (its manifest names "
            f"{names}): choose another output"
        )
    return manifest
