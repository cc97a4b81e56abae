"""Claims about guarded replacement, for every kind of store, and for services of S3 that differ."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from job.config.sections import StorageSection
from job.errors import ChangedError, OutputError, RetryError
from job.storage.hub import HubStore
from job.storage.local import LocalStore
from job.storage.s3 import S3Store, Transfer
from job.storage.store import read_or_none
from tests.storage.services import ConditionalS3

KEY = "champions/support.json"


def test_a_file_is_made_and_replaced(guarded):
    guarded.replace(KEY, b"first", None)
    assert guarded.read(KEY) == b"first"
    guarded.replace(KEY, b"second", b"first")
    assert guarded.read(KEY) == b"second"
    assert [entry.key for entry in guarded.list("champions") if ".lock" not in entry.key] == [KEY]


@pytest.mark.parametrize("expected", [None, b"another"])
def test_what_changed_meanwhile_is_not_replaced(guarded, expected):
    guarded.replace(KEY, b"first", None)
    with pytest.raises(ChangedError, match="changed meanwhile"):
        guarded.replace(KEY, b"second", expected)
    assert guarded.read(KEY) == b"first"


def test_what_is_gone_is_not_replaced(guarded):
    with pytest.raises(ChangedError):
        guarded.replace(KEY, b"second", b"first")
    assert read_or_none(guarded, KEY) is None


@pytest.fixture
def at(serve, aws_environment):
    """Return a store at a service."""

    def make(service):
        options = StorageSection(
            endpoint_url=serve(service.answer), addressing_style="path", timeout_seconds=5
        )
        return S3Store("s3://bucket/prefix", options, Transfer(tries=3, connect_seconds=2))

    return make


@pytest.mark.parametrize("honours", ["all", "bare"])
def test_a_service_may_want_versions_without_quotes(at, honours):
    service = ConditionalS3(honours)
    store = at(service)
    store.replace(KEY, b"first", None)
    store.replace(KEY, b"second", b"first")
    with pytest.raises(ChangedError):
        store.replace(KEY, b"third", b"first")
    assert list(service.objects.values()) == [b"second"], "and no probe is left"


@pytest.mark.parametrize("honours", ["all", "bare"])
def test_a_write_between_reading_and_replacing_is_not_lost(at, honours):
    service = ConditionalS3(honours)
    store = at(service)
    store.replace(KEY, b"first", None)
    put = store._put

    def put_late(key, data, *condition):
        if data == b"mine":
            service.objects[f"/bucket/prefix/{KEY}"] = b"somebody else's"
        put(key, data, *condition)

    store._put = put_late
    with pytest.raises(ChangedError):
        store.replace(KEY, b"mine", b"first")
    assert store.read(KEY) == b"somebody else's"


@pytest.mark.parametrize("honours", ["new", "none", "501"])
def test_a_service_that_ignores_conditions_is_refused(at, honours):
    service = ConditionalS3(honours)
    store = at(service)
    store.write(KEY, b"first")
    with pytest.raises(OutputError, match=r"does not (honour conditional writes|have what)"):
        store.replace(KEY, b"second", b"first")
    assert list(service.objects.values()) == [b"first"]


@pytest.mark.parametrize("expected", [None, b"first"])
def test_a_write_whose_answer_is_lost_is_done(at, expected):
    service = ConditionalS3()
    store = at(service)
    if expected:
        store.write(KEY, expected)
    service.lose = 1
    store.replace(KEY, b"second", expected)
    assert service.lose == 0
    assert store.read(KEY) == b"second"


def test_of_many_that_replace_at_once_each_version_has_one_writer(tmp_path):
    store = LocalStore(str(tmp_path))
    store.replace(KEY, b"0", None)

    def add_one(worker):
        won = 0
        for _ in range(20):
            found = store.read(KEY)
            with suppress(ChangedError):
                store.replace(KEY, b"%d" % (int(found) + 1), found)
                won += 1
        return won

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(add_one, range(8)))
    assert store.read(KEY) == b"%d" % won, "none that was told it won has lost"


def test_a_commit_between_reading_and_committing_is_not_lost(hub, monkeypatch):
    hub.add("org/model", {KEY: b"first"})
    store, other = HubStore("hf://org/model"), HubStore("hf://org/model")
    create = store._create_commit

    def create_late(addition):
        if other.read(KEY) == b"first":
            other.replace(KEY, b"somebody else's", b"first")
        return create(addition)

    monkeypatch.setattr(store, "_create_commit", create_late)
    with pytest.raises(ChangedError):
        store.replace(KEY, b"mine", b"first")
    assert HubStore("hf://org/model").read(KEY) == b"somebody else's"


def test_a_commit_whose_answer_is_lost_is_done(hub, monkeypatch):
    hub.add("org/model", {KEY: b"first"})
    store = HubStore("hf://org/model")
    create = store._create_commit

    def lose(addition):
        create(addition)
        raise RetryError("the connection was closed")

    monkeypatch.setattr(store, "_create_commit", lose)
    store.replace(KEY, b"second", b"first")
    assert store.read(KEY) == b"second"


def test_a_commit_of_another_file_does_not_lose_a_replacement(hub, monkeypatch):
    repository = hub.add("org/model", {KEY: b"first"})
    store = HubStore("hf://org/model")
    create = store._create_commit

    def create_late(addition):
        if len(repository.commits) == 1:
            store._resolve_commit()
            repository.commits.append(("another file", ["README.md"]))
        return create(addition)

    monkeypatch.setattr(store, "_create_commit", create_late)
    store.replace(KEY, b"second", b"first")
    assert store.read(KEY) == b"second"
    assert [paths for _, paths in repository.commits[1:]] == [["README.md"], [KEY]]
