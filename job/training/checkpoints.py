"""Checkpoints in storage: each committed by its manifest. Runs resume from the newest valid one."""

import json
import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from job.errors import DamagedError, MissingError, OutputError, is_out_of_memory
from job.identity import differences
from job.storage.folders import (
    MANIFEST,
    Manifest,
    delete_folder,
    fetch_folder,
    publish_folder,
    read_manifest,
)
from job.storage.store import Store
from job.telemetry import event, warn

FOLDER = "checkpoints"
LOSS_WINDOW = "loss_window_"  # with the rank behind it
# All pickles that are loaded. training_args.bin is none of them.
PICKLE = re.compile(r"(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)")
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
            check_readable(folder, f"{store.uri}/{_prefix(step)}")
        except (DamagedError, MissingError) as error:
            warn("checkpoint passed over", step=step, reason=str(error))
            continue
        event("resuming", step=step)
        return folder
    return None


def check_readable(folder: Path, uri: str) -> None:
    """Raise DamagedError for a checkpoint that verifies, but has files that nobody could load.

    They may have been written by a process that was broken, or by somebody who means harm: pickles
    of anything but tensors are refused, and no code in them runs. `uri` names the folder in errors.
    """
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".json":
                _check_json(path)
            elif path.suffix == ".safetensors":
                _check_tensors(path)
            elif PICKLE.fullmatch(path.name):
                _check_pickle(path)
        except Exception as error:  # torch.load has no narrower class
            if is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise DamagedError(f"{uri}/{path.name} cannot be read ({why})") from error


def _check_json(path: Path) -> None:
    from transformers.trainer import TRAINER_STATE_NAME
    from transformers.trainer_callback import TrainerState

    content = json.loads(path.read_bytes())
    if path.name.startswith(LOSS_WINDOW):
        float(content["loss_sum"]) + int(content["last_logged_step"])
    if path.name == TRAINER_STATE_NAME:
        TrainerState.load_from_json(str(path))


def _check_tensors(path: Path) -> None:
    from safetensors import safe_open

    # Reads the header, and checks the size by it.
    with safe_open(str(path), framework="numpy") as file:
        file.keys()


def _check_pickle(path: Path) -> None:
    import torch
    from transformers.trainer_pt_utils import safe_globals

    # transformers loads them in the same way. The random state has arrays of numpy.
    with safe_globals():
        content = torch.load(path, map_location="cpu", weights_only=True)
    if path.stem == "optimizer" and not {"state", "param_groups"} <= content.keys():
        raise ValueError("it is no state of an optimizer")


def prune(store: Store, keep_last: int, committed: int) -> None:
    """Delete all checkpoints but the newest `keep_last` up to the step just `committed`.

    Deletes later ones and uncommitted ones, too.
    """
    keys = {entry.key for entry in store.list(FOLDER)}
    # Later ones are left over from before the run was resumed: damaged, or about to be made again.
    # Folders without a manifest are checkpoints that a killed run did not commit.
    complete = [step for step in _complete_steps(keys) if step <= committed]
    for step in set(_steps(keys)) - set(complete[-keep_last:]):
        delete_folder(store, _prefix(step), keys)


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
    there = manifest.extra.get("identity")
    there = there if isinstance(there, dict) else {}
    different = differences(there, identity)
    if not different:
        return

    remedy = "give this one another name (run)"
    # Not --fresh: it looks at run.json, which is not of that run.
    # The same training in another number of processes draws other rows at each step.
    is_same_training = there.get("fingerprint") == identity["fingerprint"]
    if is_same_training and there.get("processes") != identity["processes"]:
        remedy += f", or run it in {there.get('processes')} processes (GPUs) again"
    raise OutputError(f"{uri} is of another run ({'; '.join(different)}): {remedy}")


def _prefix(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"
