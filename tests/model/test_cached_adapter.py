"""Claims about cached adapters and merged weights: they are verified at each use."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from job.config.commands import SummarizeConfig
from job.config.sections import AdapterModelSection, StorageSection
from job.errors import DataError, ExitCode
from job.inference.open import FetchedModel, fetch_with_adapter, merge
from job.model.fetch import fetch_adapter, read_adapter
from job.preflight.plan import plan
from job.storage.folders import MANIFEST, verify_folder, write_manifest
from job.summarization.summarize import summarize
from tests.adapters import publish_adapter
from tests.summarization.conftest import conversation, write_lines
from tests.summarization.nights import never

STORAGE = StorageSection()
SECTION = AdapterModelSection(dtype="float32")


@pytest.fixture(autouse=True)
def alone(places: Path, one_thread: None) -> None:
    """Every test here has a cache of its own."""


@pytest.fixture
def published(base_folder: Path, tmp_path: Path) -> str:
    publish_adapter(base_folder, tmp_path / "made", str(tmp_path / "published"))
    return str(tmp_path / "published")


def tamper(folder: Path, how: str) -> None:
    path = folder / how.partition(":")[0]
    if how == "gone":
        (folder / "prompt.json").unlink()
    elif how == "extra":
        (folder / "chat_template.jinja").write_text("{{ 'something else' }}")
    elif how == "manifest too":
        (folder / "prompt.json").write_text((folder / "prompt.json").read_text() + " ")
        write_manifest(folder, json.loads((folder / MANIFEST).read_text())["extra"])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize(
    "how", ["prompt.json", "adapter_model.safetensors", MANIFEST, "gone", "extra", "manifest too"]
)
def test_cached_adapter_that_was_changed_is_fetched_again(published, tmp_path, how):
    folder = fetch_adapter(read_adapter(published, STORAGE), tmp_path / "cache")
    tamper(folder, how)
    again = fetch_adapter(read_adapter(published, STORAGE), tmp_path / "cache")
    assert again == folder
    assert verify_folder(again).to_json() == Path(published, MANIFEST).read_bytes()
    assert not (again / "chat_template.jinja").exists()


def test_cached_adapter_that_verifies_is_not_fetched_again(published, tmp_path):
    folder = fetch_adapter(read_adapter(published, STORAGE), tmp_path / "cache")
    before = (folder / "prompt.json").stat().st_ino
    Path(published, "adapter_model.safetensors").unlink()
    again = fetch_adapter(read_adapter(published, STORAGE), tmp_path / "cache")
    assert (again / "prompt.json").stat().st_ino == before


@pytest.fixture
def fetched(published, tmp_path: Path) -> FetchedModel:
    return fetch_with_adapter(published, SECTION, STORAGE, tmp_path / "fetched")


@pytest.mark.parametrize("how", ["model.safetensors", "config.json", MANIFEST, "no manifest"])
def test_merged_weights_that_were_changed_are_merged_again(fetched, tmp_path, how):
    cache = tmp_path / "cache"
    folder = merge(fetched, SECTION, cache).base.path
    before = verify_folder(folder)
    if how == "no manifest":
        (folder / MANIFEST).unlink()  # as an earlier version left it
    else:
        tamper(folder, how)
    assert merge(fetched, SECTION, cache).base.path == folder
    assert verify_folder(folder) == before


def test_merged_weights_that_verify_are_merged_once(fetched, tmp_path):
    cache = tmp_path / "cache"
    folder = merge(fetched, SECTION, cache).base.path
    before = (folder / "config.json").stat().st_ino
    assert (merge(fetched, SECTION, cache).base.path / "config.json").stat().st_ino == before


def test_a_night_runs_only_with_the_adapter_of_its_digest(published, tmp_path):
    digest = read_adapter(published, STORAGE).digest
    write_lines(tmp_path / "in.jsonl", [conversation("a")])
    content = {
        "run": "r",
        "input": f"{tmp_path}/in.jsonl",
        "output": f"{tmp_path}/out",
        "adapter": published,
        "generation": {"max_new_tokens": 4},
        "limits": {"max_reject_fraction": 1},
    }

    def config(adapter_digest: str) -> SummarizeConfig:
        return SummarizeConfig.model_validate(content | {"adapter_digest": adapter_digest})

    other = config("0" * 64)
    message = f"has digest {digest}, and adapter_digest .* wants 000"
    with pytest.raises(DataError, match=message) as caught:
        summarize(other, never)
    assert caught.value.exit_code == ExitCode.DATA
    found = plan(other)
    assert found.error is not None
    assert found.error.exit_code == ExitCode.DATA
    assert summarize(config(digest[:12])).records == 1
    assert plan(config(digest)).error is None


class CountedStore:
    """A store that counts what is downloaded, and takes its time."""

    def __init__(self, store):
        self._store = store
        self.downloads = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def download(self, key, *rest):
        self.downloads.append(key)
        time.sleep(0.05)
        return self._store.download(key, *rest)


def test_of_a_machines_workers_one_fetches_the_adapter(published, tmp_path):
    adapter = read_adapter(published, STORAGE)
    store = CountedStore(adapter.store)
    counted = replace(adapter, store=store)
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: fetch_adapter(counted, tmp_path / "cache"), range(3)))
    assert len(folders) == 1
    assert sorted(store.downloads) == sorted(adapter.manifest.files)
