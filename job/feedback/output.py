"""The output of feedback: whole and of one identity, or not there.

Files are uploaded first and the manifest last. A finished output is kept as it is, also if verdicts
or nights were added or changed since: a training may have read it, and resumes from it. One of
other keys is never replaced.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.config.commands import FeedbackConfig
from job.config.data_sections import reading_identity
from job.config.sections import to_plain
from job.errors import MissingError, OutputError
from job.feedback.datasets import KINDS, SIDES
from job.feedback.nights import Night
from job.identity import differences, json_digest
from job.storage.claim import (
    MARKER,
    check_unobstructed,
    check_vouched,
    entries_at,
    is_claimed,
    publish_claimed,
    read_manifest_of,
)
from job.storage.folders import MANIFEST, Manifest
from job.storage.open import InputFile
from job.storage.store import Store
from job.telemetry import warn

KIND = "feedback"
NUMBERS = "feedback.json"
REPORT = "report.html"
UNMATCHED = "unmatched.jsonl"
DATA = tuple(f"{kind}/{side}.jsonl" for kind in KINDS for side in SIDES)
FILES = (*DATA, NUMBERS, REPORT, UNMATCHED)
VERSION_DIGITS = 12
MAX_DIFFERENCES_SHOWN = 5

# Keys that decide what is joined, split or left out.
DECIDING = ("fields", "evaluation_sets", "champion", "split")
# What is added to from day to day.
GROWING = ("verdicts", "nights")


def identity_of(
    config: FeedbackConfig, files: Sequence[InputFile], nights: Sequence[Night]
) -> dict[str, Any]:
    """Return what decides the output: the files of verdicts, the nights, and the keys.

    What a pointer named is no part of it: a job that runs again after a promotion is still done.
    """
    plain = to_plain(config)
    return {
        "verdicts": {file.uri: f"{file.size} bytes, version {file.version}" for file in files},
        "nights": {night.output.uri: night.digest for night in nights},
        "data": reading_identity(config.data),
        **{key: plain[key] for key in DECIDING},
    }


def version_of(identity: Mapping[str, Any]) -> str:
    """Return the version of the data: it is another one wherever the identity is."""
    return json_digest(identity)[:VERSION_DIGITS]


def find_finished(store: Store, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the numbers of an earlier output of this identity, None if it must be written.

    Files and nights that were added or changed since are logged, and it is still done. Raise
    OutputError if something else is there.
    """
    check_unobstructed(store, (*FILES, MANIFEST, MARKER), KINDS)
    taken = list(entries_at(store, FILES))
    is_interrupted = is_claimed(store, MARKER, KIND)

    # Read last: a run that ends meanwhile writes it before it deletes its marker.
    manifest = read_manifest_of(store, KIND, "feedback")
    if manifest is None:
        if not is_interrupted:
            check_vouched(store, taken, None)
        return None
    finished = manifest.extra["identity"]
    late = _late(finished, identity)
    different = differences(_without(late, finished), _without(late, identity), " ")
    is_whole = is_interrupted or _has_all_files(store, manifest)
    if different or (late and not is_whole):
        shown = "; ".join(different[:MAX_DIFFERENCES_SHOWN]) or f"{late[0]} changed since"
        raise OutputError(
            f"output: {store.uri} holds the feedback of something else ({shown}), which a training "
            "may have read: choose another output, such as one with {date} in its name"
        )
    if late:
        warn(
            "verdicts or nights were added or changed after this output was finished: it is kept "
            "as it is, and another output will have them",
            count=len(late),
            first=late[:MAX_DIFFERENCES_SHOWN],
        )
    if not is_interrupted:
        check_vouched(store, taken, manifest)
    if is_interrupted or not is_whole:
        return None
    numbers: dict[str, Any] = json.loads(store.read(NUMBERS))
    return numbers


def _late(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return the files and nights that only the second identity has, or has with other content."""
    late = []
    for key in GROWING:
        late += [uri for uri, what in here[key].items() if there[key].get(uri) != what]
    return late


def _without(uris: Sequence[str], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity without these files and nights."""
    rest = dict(identity)
    for key in GROWING:
        rest[key] = {uri: what for uri, what in identity[key].items() if uri not in uris}
    return rest


def publish(folder: Path, store: Store, facts: Mapping[str, Any]) -> Manifest:
    """Upload the files of `folder`, the manifest last."""
    return publish_claimed(folder, store, KIND, FILES, facts)


def _has_all_files(store: Store, manifest: Manifest) -> bool:
    """Return True if every file is there in its full size."""
    try:
        sizes = {key: store.stat(key).size for key in manifest.files}
    except MissingError:
        return False
    return all(sizes[key] == entry.size for key, entry in manifest.files.items())
