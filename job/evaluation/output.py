"""The output location of an evaluation: free, or an earlier evaluation's, which is replaced."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.storage.claim import (
    MARKER,
    check_unobstructed,
    check_vouched,
    entries_at,
    is_claimed,
    publish_claimed,
    read_manifest_of,
)
from job.storage.folders import MANIFEST
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
    manifest = read_manifest_of(store, KIND, "an evaluation")
    if not is_interrupted:
        check_vouched(store, taken, manifest)


def publish_evaluation(folder: Path, store: Store, facts: Mapping[str, Any]) -> None:
    """Upload FILES from `folder`, the manifest last. Replaces what an evaluation left there."""
    publish_claimed(folder, store, KIND, FILES, facts)
