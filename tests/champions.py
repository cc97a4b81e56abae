"""Adapters by their manifests alone, and pointers to them, for tests that load no weights."""

from pathlib import Path

from job.config.sections import StorageSection
from job.model.champion import Pointer, Promotion, find_pointer, now, switch
from job.model.fetch import BASE_KEY, read_adapter
from job.storage.folders import publish_folder
from job.storage.open import open_store

STORAGE = StorageSection()


def put_adapter(uri: str, work: Path, content: str | None = None) -> str:
    """Publish an adapter without weights; its content is by default its URI. Return its digest."""
    folder = work / f"adapter-of-{uri.rpartition('/')[2]}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(content or uri)
    publish_folder(folder, open_store(uri), "", {BASE_KEY: {"uri": "base", "digest": "b" * 64}})
    return read_adapter(uri, STORAGE).digest


def promote(pointer: str, adapter: str, storage: StorageSection = STORAGE) -> Pointer:
    """Make the adapter the champion, whoever was it before."""
    digest = read_adapter(adapter, storage).digest
    promotion = Promotion(adapter, digest, now(), "a test")
    return switch(pointer, storage, promotion, find_pointer(pointer, storage))
