"""Checkpoints in storage: each committed by its manifest. Runs resume from the newest valid one."""

import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from job.errors import DamagedError, MissingError, OutputError
from job.identity import differences
from job.storage.folders import (
    MANIFEST,
    Manifest,
    fetch_folder,
    publish_folder,
    read_manifest,
)
from job.storage.store import Store
from job.telemetry import event, warn

FOLDER = "checkpoints"
NAME = re.compile(rf"{FOLDER}/(step-(\d{{8}}))/")


def publish_checkpoint(folder: Path, store: Store, step: int, identity: dict[str, Any]) -> None:
    """Upload a checkpoint. No reader sees it before its manifest, which is uploaded last."""
    publish_folder(folder, store, _prefix(step), {"step": step, "identity": identity})
    event("checkpoint", step=step, uri=f"{store.uri}/{_prefix(step)}")


def fetch_newest(store: Store, target: Path, identity: dict[str, Any]) -> Path | None:
    """Download the newest valid checkpoint to a folder in `target` and return it; None without any.

    Damaged checkpoints are skipped with a warning. Raise OutputError if a checkpoint belongs to a
    run with another identity.
    """
    for step in reversed(list_steps(store)):
        try:
            manifest = read_manifest(store, _prefix(step))
            # Not passed over like damage: resumed from an older checkpoint, this run would delete
            # the other's when it prunes.
            _check_identity(manifest, identity, f"{store.uri}/{_prefix(step)}")
            # transformers' own name for it; `step_of` reads the step from it.
            folder = target / f"checkpoint-{step}"
            fetch_folder(store, _prefix(step), folder)
        except (DamagedError, MissingError) as error:
            warn("checkpoint passed over", step=step, reason=str(error))
            continue
        event("resuming", step=step)
        return folder
    return None


def prune(store: Store, keep_last: int, committed: int) -> None:
    """Delete all checkpoints but the newest `keep_last` up to the step just `committed`.

    Deletes later ones and uncommitted ones, too.
    """
    keys = {entry.key for entry in store.list(FOLDER)}
    # Later ones are left over from before the run was resumed: damaged, or about to be made again.
    # Folders without a manifest are checkpoints that a killed run did not commit.
    complete = [step for step in _complete_steps(keys) if step <= committed]
    for step in set(_steps(keys)) - set(complete[-keep_last:]):
        # The manifest first: an interrupted deletion leaves no checkpoint that looks complete.
        store.delete(f"{_prefix(step)}/{MANIFEST}")
        for key in sorted(key for key in keys if key.startswith(f"{_prefix(step)}/")):
            store.delete(key)


def list_steps(store: Store) -> list[int]:
    """Return the steps of all checkpoint folders in storage, complete or not, in order."""
    return _steps({entry.key for entry in store.list(FOLDER)})


def newest_step(store: Store) -> int | None:
    """Return the step of the newest checkpoint that has a manifest. Its files are not verified."""
    return max(_complete_steps({entry.key for entry in store.list(FOLDER)}), default=None)


def _steps(keys: Set[str]) -> list[int]:
    return sorted({int(match[2]) for match in map(NAME.match, keys) if match})


def _complete_steps(keys: Set[str]) -> list[int]:
    return [step for step in _steps(keys) if f"{_prefix(step)}/{MANIFEST}" in keys]


def _check_identity(manifest: Manifest, identity: dict[str, Any], uri: str) -> None:
    """Raise OutputError, with differences and remedy, unless the checkpoint has this identity."""
    # A manifest without an identity is nobody's: it differs in every part.
    there = manifest.extra.get("identity") or {}
    different = differences(there, identity)
    if not different:
        return

    remedy = "give this one another name (run)"
    if there.get("fingerprint") != identity["fingerprint"]:
        remedy += ", or start beside it with --fresh"
    # The same training in another number of processes draws other rows at each step.
    elif there.get("processes") != identity["processes"]:
        remedy += f", or run it in {there.get('processes')} processes (GPUs) again"
    raise OutputError(f"{uri} is of another run ({'; '.join(different)}): {remedy}")


def _prefix(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"
