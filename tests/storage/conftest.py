"""Stores of every kind, and services on loopback."""

import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.storage.hub import HubStore
from job.storage.local import LocalStore
from job.storage.s3 import S3Store, Transfer
from job.storage.store import Store

# The smallest parts that S3 takes, and pages that a test fills soon.
SMALL = Transfer(part_bytes=5 << 20, parts_at_once=4, keys_per_page=50, tries=2)
NAMED = "RECAP_TEST_S3_URI"

Answer = tuple[int, dict[str, str], bytes]


WRITABLE = ["local", "s3", "named"]
Fill = Callable[[dict[str, bytes]], Store]


@pytest.fixture(params=WRITABLE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store: a folder, S3 on loopback, and a prefix of RECAP_TEST_S3_URI, if it is set."""
    with empty_store(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture(params=[*WRITABLE, "hub"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fill]:
    """Make a store with objects: as `store` is, or a Hub repository on loopback."""
    if request.param == "hub":
        hub = request.getfixturevalue("hub")

        def fill_hub(objects: dict[str, bytes]) -> Store:
            hub.add("org/model", objects)
            return HubStore("hf://org/model")

        yield fill_hub
        return
    with empty_store(request.param, request, tmp_path) as made:

        def fill(objects: dict[str, bytes]) -> Store:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda key: made.write(key, objects[key]), objects))
            return made

        yield fill


@pytest.fixture(params=[*WRITABLE, "hub"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store where one object may be replaced under a guard: as `store` is, or a repository."""
    if request.param == "hub":
        request.getfixturevalue("hub").add("org/model", {"README.md": b"read me"})
        yield HubStore("hf://org/model")
        return
    with empty_store(request.param, request, tmp_path) as made:
        yield made


@contextmanager
def empty_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Yield a store that can be written."""
    if kind == "local":
        yield LocalStore(str(tmp_path / "store"))
    elif kind == "s3":
        yield S3Store(f"{request.getfixturevalue('s3').uri}/some/prefix", transfer=SMALL)
    elif NAMED not in os.environ:
        pytest.skip(f"{NAMED} names no store")
    else:
        named = S3Store(
            f"{os.environ[NAMED].rstrip('/')}/recap-contract-{uuid.uuid4().hex}", transfer=SMALL
        )
        yield named
        for entry in list(named.list()):
            named.delete(entry.key)
