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


def test_of_several_that_merge_at_once_one_does_and_all_have_it_and_what_killed_ones_left_goes(
    fetched, tmp_path
):
    cache = tmp_path / "cache"
    (cache / ".merging-of-one-that-was-killed" / "model").mkdir(parents=True)
    with ThreadPoolExecutor(3) as pool:  # a lock keeps threads apart as it does processes
        found = list(pool.map(lambda _: merge(fetched, SECTION, cache), range(3)))
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert {model.base.path for model in found} == {folder}
    assert folder.name.startswith("merged-")
