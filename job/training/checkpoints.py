"""Checkpoints in storage: each committed by its manifest, the newest that verifies is the one to go on from.

Knows nothing of what a checkpoint's files mean.
"""

import re
from pathlib import Path
from typing import Any

from job.errors import DamagedError, MissingError, OutputError
from job.storage.folders import Manifest, fetch_folder, publish_folder, read_manifest
from job.storage.store import Store
from job.telemetry import event, warn

FOLDER = "checkpoints"
NAME = re.compile(rf"{FOLDER}/(step-(\d{{8}}))/")


def publish_checkpoint(folder: Path, store: Store, step: int, identity: dict[str, Any]) -> None:
    """Upload a checkpoint; nobody sees it before its manifest, the last file, is there."""
    publish_folder(folder, store, _prefix(step), {"step": step, "identity": identity})
    event("checkpoint", step=step, uri=f"{store.uri}/{_prefix(step)}")


def fetch_newest(store: Store, target: Path, identity: dict[str, Any]) -> Path | None:
    """Bring the newest checkpoint that verifies to `target`; damaged ones are passed over, others' are refused."""
    for step in reversed(list_steps(store)):
        try:
            manifest = read_manifest(store, _prefix(step))
            _check_identity(manifest, identity, f"{store.uri}/{_prefix(step)}")
            folder = target / f"checkpoint-{step}"
            fetch_folder(store, _prefix(step), folder)
        except (DamagedError, MissingError) as error:
            warn("checkpoint passed over", step=step, reason=str(error))
            continue
        event("resuming", step=step)
        return folder
    return None


def prune(store: Store, keep_last: int) -> None:
    """Remove all but the newest `keep_last` checkpoints, each manifest first: half a checkpoint is none."""
    for step in list_steps(store)[:-keep_last]:
        prefix = _prefix(step)
        store.delete(f"{prefix}/manifest.json")
        for entry in list(store.list(prefix)):
            store.delete(entry.key)


def list_steps(store: Store) -> list[int]:
    """Steps of the checkpoint folders in storage, complete or not, in order."""
    matches = (NAME.match(entry.key) for entry in store.list(FOLDER))
    return sorted({int(match[2]) for match in matches if match})


def _check_identity(manifest: Manifest, identity: dict[str, Any], uri: str) -> None:
    if manifest.extra.get("identity") != identity:
        raise OutputError(f"{uri} belongs to another run: {manifest.extra.get('identity')} there, {identity} here")


def _prefix(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"
