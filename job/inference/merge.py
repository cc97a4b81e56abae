"""An adapter merged into its base: weights of their own, in 16 or 32 bits, made once and cached.

The folder in the cache has a manifest, by which it is verified each time that it is used. Knows
nothing of what generates with it.
"""

import gc
import hashlib
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from job.config.sections import AdapterModelSection
from job.errors import DamagedError, MissingError
from job.inference.open import FetchedModel, load
from job.model.files import weights_digest
from job.model.load import compute_dtype
from job.storage.atomic import locked, replace_folder
from job.storage.folders import Manifest, is_folder_of, read_manifest, write_manifest
from job.storage.local import LocalStore
from job.telemetry import event, warn

DIGEST_KEY = "weights_digest"  # in the manifest's extra
MERGING = ".merging-"  # how the names of folders begin that are still being written


def merged(model: FetchedModel, section: AdapterModelSection, cache: Path) -> FetchedModel:
    """Return the model without an adapter: its base is the merged one.

    What was merged is identified by the digests of both. A folder in the cache that is not what its
    manifest says is made anew.
    """
    if model.adapter is None:
        return model
    name = f"{model.adapter_digest} {model.base.digest} {compute_dtype(section.dtype)}"
    folder = cache / f"merged-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    with locked(cache):  # of several processes one merges while the others wait
        _sweep(cache)
        manifest = _read_merged(folder)
        if manifest is None:
            part = cache / f"{MERGING}{uuid.uuid4().hex}"
            try:
                _merge(model, section, part)
                manifest = write_manifest(part, {DIGEST_KEY: weights_digest(part, str(part))})
                replace_folder(part, folder)
            finally:
                _sweep(cache)
    digest = manifest.extra[DIGEST_KEY]
    event("merged", adapter=model.adapter_digest, base=model.base.digest, digest=digest)
    return replace(model, adapter=None, base=replace(model.base, path=folder))


def _read_merged(folder: Path) -> Manifest | None:
    """Return the manifest of a folder in the cache that is as it says; None for any other."""
    if not folder.is_dir():
        return None
    try:
        manifest = read_manifest(LocalStore(str(folder)), "")
    except (MissingError, DamagedError):
        manifest = None
    if manifest is not None and DIGEST_KEY in manifest.extra and is_folder_of(folder, manifest):
        return manifest
    warn(
        "the cached merged weights are not as their manifest says: merging anew", folder=str(folder)
    )
    return None


def _sweep(cache: Path) -> None:
    """Remove what was not finished, of processes that were killed too: whoever holds the lock is alone."""
    for part in cache.glob(f"{MERGING}*"):
        shutil.rmtree(part, ignore_errors=True)


def _merge(model: FetchedModel, section: AdapterModelSection, folder: Path) -> None:
    import torch

    # Sums are in the dtype of the weights; ones that are no numbers are refused.
    load(model, section).merge_and_unload(safe_merge=True).save_pretrained(str(folder))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # an engine takes what is free
