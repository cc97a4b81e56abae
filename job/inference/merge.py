"""An adapter merged into its base: weights of their own, in 16 or 32 bits, made once and kept in the cache.

Knows nothing of what generates with them.
"""

import gc
import hashlib
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from job.base_files import weights_digest
from job.config.sections import AdapterModelSection
from job.inference.open import FetchedModel, load
from job.model import compute_dtype
from job.storage.atomic import locked
from job.telemetry import event

MERGING = ".merging-"  # how the names of folders begin that are still being written


def merged(model: FetchedModel, section: AdapterModelSection, cache: Path) -> FetchedModel:
    """The same without an adapter: its base is the merged one. What was merged is told by the digests of both."""
    if model.adapter is None:
        return model
    name = f"{model.adapter_digest} {model.base.digest} {compute_dtype(section.dtype)}"
    folder = cache / f"merged-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    with locked(cache):  # of several processes one merges while the others wait
        _sweep(cache)
        if not folder.is_dir():
            part = cache / f"{MERGING}{uuid.uuid4().hex}"
            try:
                _merge(model, section, part)
                part.rename(folder)
            finally:
                _sweep(cache)
    digest = weights_digest(folder, str(folder))
    event("merged", adapter=model.adapter_digest, base=model.base.digest, digest=digest)
    return replace(model, adapter=None, base=replace(model.base, path=folder))


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
