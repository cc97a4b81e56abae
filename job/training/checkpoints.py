"""Checkpoints in storage: each committed by its manifest, the newest that verifies is the one to go on from.

Knows nothing of what a checkpoint's files mean.
"""

import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from job.differences import differences
from job.errors import DamagedError, MissingError, OutputError
from job.storage.folders import MANIFEST, Manifest, fetch_folder, publish_folder, read_manifest
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


def prune(store: Store, keep_last: int, committed: int) -> None:
    """Keep the newest `keep_last` checkpoints up to the one just committed; of the others each manifest goes first.

    Later ones are what a run left that was resumed from before them: damaged, or about to be made again. Folders
    without a manifest are what a killed run was about to commit.
    """
    keys = {entry.key for entry in store.list(FOLDER)}
    complete = [step for step in _complete(keys) if step <= committed]
    for step in set(_steps(keys)) - set(complete[-keep_last:]):
        store.delete(f"{_prefix(step)}/{MANIFEST}")
        for key in sorted(key for key in keys if key.startswith(f"{_prefix(step)}/")):
            store.delete(key)


def list_steps(store: Store) -> list[int]:
    """Steps of the checkpoint folders in storage, complete or not, in order."""
    return _steps({entry.key for entry in store.list(FOLDER)})


def newest_step(store: Store) -> int | None:
    """The step of the newest checkpoint that is complete, by its manifest's being there."""
    return max(_complete({entry.key for entry in store.list(FOLDER)}), default=None)


def _steps(keys: Set[str]) -> list[int]:
    return sorted({int(match[2]) for match in map(NAME.match, keys) if match})


def _complete(keys: Set[str]) -> list[int]:
    return [step for step in _steps(keys) if f"{_prefix(step)}/{MANIFEST}" in keys]


def _check_identity(manifest: Manifest, identity: dict[str, Any], uri: str) -> None:
    there = manifest.extra.get("identity") or {}
    different = differences(there, identity)
    if not different:
        return
    remedy = "give this one another name (run)"
    if there.get("fingerprint") != identity["fingerprint"]:
        remedy += ", or start beside it with --fresh"
    elif there.get("processes") != identity["processes"]:
        remedy += f", or run it in {there.get('processes')} processes (GPUs) again"
    raise OutputError(f"{uri} is of another run ({'; '.join(different)}): {remedy}")


def _prefix(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"
