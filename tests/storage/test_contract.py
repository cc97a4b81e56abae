"""Claims that hold for every kind of store.

docs/storage.md describes how to test a store of your own.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job.errors import AlreadyExistsError, DamagedError, DataError, ExitCode, MissingError
from job.storage.folders import fetch_folder, publish_folder
from job.storage.local import LocalStore
from job.storage.store import Store

MORE_THAN_TWO_PAGES = 101
HOSTILE = [
    "../x",
    "a/../../x",
    "/etc/x",
    "a//b",
    "a/",
    "",
    "./a",
    "a\0b",
    "a\\b",
    "a/..",
    "bad\udcff",
]
HOSTILE += [
    "a\nerror: b",
    "a\rb",
    "a\x1b[2J",
    "a\x7f",
    "a\x9b",
    "a\u2028b",
]  # what a terminal obeys


def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


def test_an_object_is_read_in_every_way(filled, tmp_path):
    store = filled({"deep/down/a.txt": b"content"})
    received: list[int] = []
    target = tmp_path / "new folder" / "a.txt"
    store.download("deep/down/a.txt", target, received.append)
    with store.open("deep/down/a.txt") as stream:
        assert stream.read(3) == b"con"
        assert stream.read() == b"tent"
    assert store.read("deep/down/a.txt") == target.read_bytes() == b"content"
    assert store.stat("deep/down/a.txt").size == sum(received) == 7
    assert [store.stat("deep/down/a.txt")] == list(store.list()), "with the same version"
    assert sorted(path.name for path in target.parent.iterdir()) == ["a.txt"]


def test_a_stream_is_read_line_by_line(filled):
    store = filled({"a.jsonl": b'{"a": 1}\n{"b": 2}\n'})
    with store.open("a.jsonl") as stream:
        assert list(stream) == [b'{"a": 1}\n', b'{"b": 2}\n']


@pytest.mark.parametrize("start", [0, 9, 17])
def test_a_stream_may_begin_at_any_byte(filled, start):
    content = b'{"a": 1}\n{"b": 2}\n'
    store = filled({"a.jsonl": content})
    with store.open("a.jsonl", start) as stream:
        assert stream.read() == content[start:]


def test_an_empty_object_is_an_object(filled, tmp_path):
    store = filled({"empty": b""})
    store.download("empty", tmp_path / "target")
    assert store.read("empty") == (tmp_path / "target").read_bytes() == b""
    assert [entry.size for entry in store.list()] == [0]


def test_an_empty_file_is_uploaded(store, tmp_path):
    (tmp_path / "source").touch()
    store.upload(tmp_path / "source", "uploaded")
    assert store.read("uploaded") == b""
    assert [entry.size for entry in store.list()] == [0]


def test_a_large_file_is_moved_in_parts_with_progress(store, tmp_path):
    content = os.urandom(1 << 20) * 20
    (tmp_path / "source").write_bytes(content)
    sent: list[int] = []
    received: list[int] = []
    store.upload(tmp_path / "source", "large.bin", sent.append)
    store.download("large.bin", tmp_path / "target", received.append)
    assert (tmp_path / "target").read_bytes() == content
    assert sum(sent) == sum(received) == len(content)
    assert len(sent) > 3
    assert len(received) > 3
    with store.open("large.bin") as stream:
        assert stream.read() == content


def test_a_listing_has_every_key_of_many_pages_in_order(filled):
    names = [f"many/{number:04}" for number in range(MORE_THAN_TWO_PAGES)]
    assert keys(filled(dict.fromkeys(names, b"x")), "many") == names


def test_a_listing_is_ordered_by_whole_keys(filled):
    store = filled(dict.fromkeys(("a/b", "a-b", "a.b", "b/a", "B", "a0", "é"), b"x"))
    assert keys(store) == ["B", "a-b", "a.b", "a/b", "a0", "b/a", "é"]


def test_prefix_listing_never_returns_the_sibling_prefix(filled):
    store = filled(dict.fromkeys(("my/path/a", "my/path2/b", "my/path-c", "my/pat"), b"x"))
    assert keys(store, "my/path") == ["my/path/a"]


def test_a_prefix_with_nothing_below_it_lists_nothing(filled):
    store = filled({})
    assert keys(store, "nothing/here") == []
    assert keys(store) == []


def test_keys_may_have_spaces_and_any_script(filled, tmp_path):
    names = [
        "Zusammenfassung für Jürgen.txt",
        "要約/会話 1.jsonl",
        "a+b&c=d%20e?.txt",
        "'quoted' \"twice\"#.txt",
        "😀",
    ]
    store = filled({name: name.encode() for name in names})
    assert keys(store) == sorted(names)
    for name in names:
        store.download(name, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == store.read(name) == name.encode()


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_is_not_read(filled, tmp_path, key):
    store = filled({})
    for action in (
        store.stat,
        store.read,
        store.open,
        lambda key: store.download(key, tmp_path / "target"),
    ):
        with pytest.raises(DataError) as caught:
            action(key)
        assert repr(key) in str(caught.value)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_is_refused_before_any_request(store, tmp_path, key):
    (tmp_path / "source").write_bytes(b"x")
    actions = [
        lambda: store.upload(tmp_path / "source", key),
        lambda: store.write(key, b"x"),
        lambda: store.delete(key),
    ]
    for action in actions:
        with pytest.raises(DataError) as caught:
            action()
        assert repr(key) in str(caught.value)
        assert caught.value.exit_code == ExitCode.DATA
    assert keys(store) == []


def test_an_object_that_does_not_exist_is_missing(filled, tmp_path):
    store = filled({"there/a": b"x"})
    for key in ("not there", "there", "there/a/b"):
        for action in (
            store.stat,
            store.read,
            store.open,
            lambda key: store.download(key, tmp_path / "target"),
        ):
            with pytest.raises(MissingError) as caught:
                action(key)
            assert caught.value.exit_code == ExitCode.MISSING
            assert key in str(caught.value)
    assert list(tmp_path.glob("**/*target*")) == []


def test_deleting_twice_is_no_error(store):
    store.write("folder/a", b"x")
    store.write("folder/b", b"x")
    store.delete("folder/a")
    store.delete("folder/a")
    store.delete("never/was")
    assert keys(store) == ["folder/b"]


def test_writing_again_replaces_and_changes_the_version(store, tmp_path):
    store.write("a", b"old")
    before = store.stat("a")
    (tmp_path / "source").write_bytes(b"new")
    store.upload(tmp_path / "source", "a")
    assert store.read("a") == b"new"
    assert store.stat("a").version != before.version
    assert [entry.version for entry in store.list()] == [store.stat("a").version]


def test_a_guarded_write_keeps_the_old_object(store):
    store.write("a", b"first", if_absent=True)
    with pytest.raises(AlreadyExistsError) as caught:
        store.write("a", b"second", if_absent=True)
    assert store.read("a") == b"first"
    assert caught.value.exit_code == ExitCode.OUTPUT


def test_exactly_one_of_eight_racing_writers_wins(store):
    for race in range(2):
        start = threading.Barrier(8)

        def compete(
            writer: int, key: str = f"race/{race}", start: threading.Barrier = start
        ) -> int | None:
            start.wait()
            try:
                store.write(key, f"writer {writer}".encode() * 1000, if_absent=True)
            except AlreadyExistsError:
                return None
            return writer

        with ThreadPoolExecutor(8) as pool:
            winners = [writer for writer in pool.map(compete, range(8)) if writer is not None]
        assert len(winners) == 1
        assert store.read(f"race/{race}") == f"writer {winners[0]}".encode() * 1000


def test_a_published_folder_can_be_copied_and_fetched(filled, tmp_path):
    (tmp_path / "source" / "sub").mkdir(parents=True)
    (tmp_path / "source" / "sub" / "a.json").write_text("{}")
    published = publish_folder(
        tmp_path / "source", LocalStore(str(tmp_path / "run")), "", {"step": 1}
    )
    store = filled(_files(tmp_path / "run"))
    received: list[int] = []
    assert fetch_folder(store, "", tmp_path / "target", received.append) == published
    assert _files(tmp_path / "target") == _files(tmp_path / "run")
    assert sum(received) == 2


def test_a_published_folder_is_fetched_as_it_was(store, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.json").write_text("{}")
    (source / "sub" / "weights.safetensors").write_bytes(os.urandom(6 << 20))
    published = publish_folder(source, store, "runs/one", {"base": {"uri": "org/base"}})
    fetched = fetch_folder(store, "runs/one", tmp_path / "target")
    assert fetched == published
    assert fetched.extra == {"base": {"uri": "org/base"}}
    assert _files(source) == _files(tmp_path / "target")


def test_a_changed_file_is_an_error_and_nothing_is_fetched(store, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.json").write_text("{}")
    publish_folder(tmp_path / "source", store, "", {})
    store.write("a.json", b"[]")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DamagedError, match=r"a\.json has SHA-256 4f53.*, wanted 4413"):
        fetch_folder(store, "", tmp_path / "target")
    assert sorted(tmp_path.iterdir()) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
