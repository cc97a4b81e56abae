"""Merge an adapter into its base: new weights of 16 or 32 bits, made once and kept in the cache.

The folder in the cache has a manifest, by which it is verified each time that it is used.
"""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from job.config.sections import AdapterModelSection
from job.errors import ConfigError, DamagedError, MissingError, is_out_of_memory
from job.identity import sha256_of
from job.model.attach import attach_adapter
from job.model.fetch import Base
from job.model.files import weights_digest
from job.model.load import compute_dtype, device, free_memory, load_base
from job.storage.atomic import locked, replace_folder
from job.storage.folders import Manifest, is_folder_of, read_manifest, write_manifest
from job.storage.local import LocalStore
from job.telemetry import event, warn

DIGEST_KEY = "weights_digest"  # in the manifest's extra
UNFINISHED = ".merging-"  # prefix of a folder that is still being written


def merge_adapter(
    base: Base,
    adapter: Path,
    adapter_digest: str,
    section: AdapterModelSection,
    cache: Path,
) -> Base:
    """Merge the adapter in a folder into its base, and return the base with the merged weights.

    Merges only if the cache has no merged weights of this pair and dtype, or their folder is not
    what its manifest says. The base returned keeps the identity of the original one. Raise
    ConfigError if memory is too small to merge.
    """
    name = f"{adapter_digest} {base.digest} {compute_dtype(section.dtype)}"
    folder = cache / f"merged-{sha256_of(name)[:16]}"

    # Of several processes with one cache, the first merges while the others wait for the lock.
    with locked(cache):
        _remove_unfinished(cache)
        manifest = _read_merged(folder)
        if manifest is None:
            part = cache / f"{UNFINISHED}{uuid.uuid4().hex}"
            try:
                merge = partial(_merge, base, adapter, section, part)
                merge_where_it_fits(merge, has_gpu=device().type == "cuda")
                manifest = write_manifest(part, {DIGEST_KEY: weights_digest(part, str(part))})
                replace_folder(part, folder)
            finally:
                _remove_unfinished(cache)

    digest = manifest.extra[DIGEST_KEY]
    event("merged", adapter=adapter_digest, base=base.digest, digest=digest)
    return replace(base, path=folder)


def _read_merged(folder: Path) -> Manifest | None:
    """Return the manifest of a merged folder that verifies; None for any other."""
    if not folder.is_dir():
        return None
    try:
        manifest = read_manifest(LocalStore(str(folder)), "")
    except (MissingError, DamagedError):
        manifest = None
    if manifest is not None and DIGEST_KEY in manifest.extra and is_folder_of(folder, manifest):
        return manifest
    warn(
        "the cached merged weights are not as their manifest says: merging anew",
        folder=str(folder),
    )
    return None


def _remove_unfinished(cache: Path) -> None:
    """Delete folders that a killed process left. Only for the holder of the cache's lock."""
    for part in cache.glob(f"{UNFINISHED}*"):
        shutil.rmtree(part, ignore_errors=True)


def merge_where_it_fits(merge: Callable[[bool], None], has_gpu: bool) -> None:
    """Merge on the GPU, or on the CPU where there is none or its memory is too small.

    `merge` is called with True for the CPU. Raise ConfigError if the host's memory is too small.
    """
    why = ""
    for on_cpu in (False, True) if has_gpu else (True,):
        try:
            merge(on_cpu)
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {error}"
        # Only here is the memory of the failed merge free: the exception held its frames.
        free_memory()
        if not on_cpu:
            warn("the GPU has no memory to merge: merging on the CPU, which is slower", why=why)
    raise ConfigError(
        f"adapter_weights: the base with its adapter does not fit into memory ({why}): set "
        "adapter_weights: separate, or take a larger machine"
    )


def _merge(
    base: Base,
    adapter: Path,
    section: AdapterModelSection,
    folder: Path,
    on_cpu: bool,
) -> None:
    loaded = load_base(base, section, is_merging=True, on_cpu=on_cpu)
    # The sums are rounded to the dtype of the weights. `safe_merge` refuses NaN and infinity.
    model = attach_adapter(loaded, adapter)
    model.merge_and_unload(safe_merge=True).save_pretrained(str(folder))

    # An engine such as vLLM takes all GPU memory that is free when it starts.
    del loaded, model
    free_memory()
