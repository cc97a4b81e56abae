"""Claims about adapters that are merged into their base by processes that share a cache."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job.config.sections import AdapterModelSection, StorageSection
from job.inference.open import FetchedModel, fetch_with_adapter, merge
from tests.adapters import publish_adapter

SECTION = AdapterModelSection(dtype="float32")


@pytest.fixture
def fetched(base_folder: Path, tmp_path: Path) -> FetchedModel:
    publish_adapter(base_folder, tmp_path / "work", str(tmp_path / "published"))
    return fetch_with_adapter(
        str(tmp_path / "published"), SECTION, StorageSection(), tmp_path / "fetched"
    )


def test_several_that_merge_at_once_share_one_merge(fetched, tmp_path):
    cache = tmp_path / "cache"
    left_by_a_killed_one = cache / ".merging-of-one-that-was-killed" / "model"
    left_by_a_killed_one.mkdir(parents=True)

    # A lock excludes threads as it does processes.
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: merge(fetched, SECTION, cache), range(3)))
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert {model.base.path for model in found} == {folder}
    assert folder.name.startswith("merged-")
