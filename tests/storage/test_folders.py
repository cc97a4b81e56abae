"""Claims about verified folders: they are complete or absent, and never a mixture of two."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import DamagedError, DataError, ExitCode, MissingError, RetryError
from job.storage.folders import (
    FETCHED,
    MANIFEST,
    FileEntry,
    fetch_folder,
    fetch_prefix,
    publish_folder,
    read_manifest,
    sha256_file,
    verify_folder,
    write_manifest,
)
from job.storage.local import LocalStore

# SHA-256 of "abc", from FIPS 180-2.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Watched:
    """A store that records its calls, and calls `before` ahead of each."""

    def __init__(
        self, store: LocalStore, before: Callable[[str, str], None] = lambda call, key: None
    ) -> None:
        self._store, self._before, self.uri = store, before, store.uri
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            key = next((str(arg) for arg in reversed(args) if isinstance(arg, str)), "")
            self.calls.append(f"{name} {key}")
            self._before(name, key)
            return getattr(self._store, name)(*args, **options)

        return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make(tmp_path / "source", "one")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def make(folder: Path, content: str) -> Path:
    (folder / "sub").mkdir(parents=True)
    for name in ("a.json", "b.safetensors", "sub/c.txt"):
        (folder / name).write_text(f"{content} {name}")
    return folder


def test_a_manifest_has_size_and_sha256_of_every_file_but_itself(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    first = write_manifest(tmp_path, {"base": {"uri": "org/base"}})
    assert first.files == {"abc": FileEntry(3, ABC)}
    assert (
        write_manifest(tmp_path, {"base": {"uri": "org/base"}}) == first == verify_folder(tmp_path)
    )
    raw = json.loads((tmp_path / MANIFEST).read_text())
    assert len(raw.pop("sha256")) == 64
    assert raw == {
        "files": {"abc": {"size": 3, "sha256": ABC}},
        "extra": {"base": {"uri": "org/base"}},
    }
    assert sha256_file(tmp_path / "abc") == ABC


def test_the_manifest_is_written_last_and_the_old_one_goes_first(source, store):
    watched = Watched(store)
    publish_folder(source, watched, "run", {})
    assert watched.calls[:2] == ["read run/manifest.json", "delete run/manifest.json"]
    assert watched.calls[-1] == "write run/manifest.json"
    assert watched.calls[-2] == "list run", "what arrived is looked at before it is vouched for"
    assert sorted(watched.calls[2:-2]) == [
        f"upload run/{key}" for key in ("a.json", "b.safetensors", "sub/c.txt")
    ]
    assert verify_folder(source) == read_manifest(store, "run")


class Cutting(LocalStore):
    """A store that keeps half of a file and says that all is well."""

    def upload(self, source, key, progress=None):
        self.write(key, source.read_bytes()[: source.stat().st_size // 2])


def test_a_folder_whose_files_arrived_in_part_is_not_published(source, tmp_path):
    store = Cutting(str(tmp_path / "cutting"))
    with pytest.raises(RetryError, match=r"bytes after its upload, wanted"):
        publish_folder(source, store, "run", {})
    with pytest.raises(MissingError):
        read_manifest(store, "run")


@pytest.mark.parametrize("at", ["a.json", "b.safetensors", "sub/c.txt", MANIFEST])
def test_a_reader_never_finds_a_folder_whose_replacement_broke_off(source, store, tmp_path, at):
    publish_folder(source, store, "run", {})

    def break_off(call: str, key: str) -> None:
        if call in ("upload", "write") and key == f"run/{at}":
            raise RetryError("as the test wants")

    with pytest.raises(RetryError):
        publish_folder(make(tmp_path / "new", "two"), Watched(store, break_off), "run", {})
    with pytest.raises(
        MissingError, match="nothing was published there, or not to its end"
    ) as caught:
        fetch_folder(store, "run", tmp_path / "target")
    assert caught.value.exit_code == ExitCode.MISSING
    assert not (tmp_path / "target").exists()


def test_a_reader_overtaken_by_a_writer_has_to_run_again(source, store, tmp_path):
    publish_folder(source, store, "run", {})
    new = make(tmp_path / "new", "two")

    def overtake(call: str, key: str) -> None:
        if (call, key) == ("download", "run/a.json"):
            publish_folder(new, store, "run", {})

    with pytest.raises(RetryError, match="was replaced while it was fetched"):
        fetch_folder(Watched(store, overtake), "run", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    fetch_folder(store, "run", tmp_path / "target")
    assert (tmp_path / "target" / "a.json").read_text() == "two a.json"


def test_two_writers_at_once_never_leave_a_mixture_that_verifies(source, store, tmp_path):
    new = make(tmp_path / "new", "two")
    between = Watched(
        store, lambda call, key: publish_folder(new, store, "run", {}) if call == "write" else None
    )
    publish_folder(source, between, "run", {})
    with pytest.raises(DamagedError, match="wanted"):
        fetch_folder(store, "run", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_text("ONE a.json"), "SHA-256"),
        (lambda path: path.write_text("one"), "has 3 bytes, wanted 10"),
        (lambda path: path.unlink(), "is in the manifest but not there"),
    ],
)
def test_an_error_of_damage_has_file_got_and_wanted(source, store, tmp_path, spoil, words):
    publish_folder(source, store, "run", {})
    spoil(Path(store.uri, "run", "a.json"))
    with pytest.raises(DamagedError, match=rf"run/a\.json .*{words}") as caught:
        fetch_folder(store, "run", tmp_path / "target")
    assert caught.value.exit_code == ExitCode.DATA
    with pytest.raises(DamagedError, match=words):
        verify_folder(Path(store.uri, "run"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"files": {}}', '{"files": {"a": 1}, "extra": {}}', "null"]
)
def test_an_invalid_manifest_is_damage(store, text):
    store.write(MANIFEST, text.encode())
    with pytest.raises(DamagedError, match=r"manifest\.json is no manifest of recap"):
        read_manifest(store, "")


def test_a_hostile_key_in_a_manifest_writes_nothing_outside(store, tmp_path):
    store.write("run/a", b"abc")
    entry = {"size": 3, "sha256": ABC}
    store.write(
        "run/manifest.json", json.dumps({"files": {"../escaped": entry}, "extra": {}}).encode()
    )
    with pytest.raises(DataError, match=r"\.\./escaped"):
        fetch_folder(store, "run", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "a",
        "manifest.json",
        "run",
        "store",
    ]


def test_only_files_that_the_manifest_names_are_fetched(source, store, tmp_path):
    publish_folder(source, store, "run", {})
    store.write("run/leftover.bin", b"of an earlier run")
    fetch_folder(store, "run", tmp_path / "target")
    found = sorted(
        path.relative_to(tmp_path / "target").as_posix()
        for path in (tmp_path / "target").rglob("*")
    )
    assert found == ["a.json", "b.safetensors", MANIFEST, "sub", "sub/c.txt"]
    assert verify_folder(tmp_path / "target") == read_manifest(store, "run")


def test_a_current_folder_is_not_fetched_again_and_an_old_one_is_replaced(source, store, tmp_path):
    publish_folder(source, store, "run", {})
    fetch_folder(store, "run", tmp_path / "target")
    watched = Watched(store)
    fetch_folder(watched, "run", tmp_path / "target")
    assert watched.calls == ["read run/manifest.json"]
    (tmp_path / "target" / "a.json").write_text("touched")
    fetch_folder(store, "run", tmp_path / "target")
    assert (tmp_path / "target" / "a.json").read_text() == "one a.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store", "target"]


def test_progress_is_in_bytes(source, store, tmp_path):
    moved: list[int] = []
    manifest = publish_folder(source, store, "run", {}, moved.append)
    total = sum(entry.size for entry in manifest.files.values())
    assert sum(moved) == total
    fetch_folder(store, "run", tmp_path / "target", moved.append)
    assert sum(moved) == 2 * total


PATTERNS = ("*.safetensors", "*.json")


def downloads(watched: Watched) -> list[str]:
    return sorted(call for call in watched.calls if call.startswith("download"))


def test_a_prefix_that_has_not_changed_is_not_fetched_again(source, store, tmp_path):
    target = tmp_path / "cache"
    for name in ("a.json", "b.safetensors", "sub/c.txt"):
        store.upload(source / name, f"base/{name}")
    first, second, third = Watched(store), Watched(store), Watched(store)
    fetch_prefix(first, "base", target, PATTERNS)
    assert downloads(first) == ["download base/a.json", "download base/b.safetensors"]
    fetch_prefix(second, "base", target, PATTERNS)
    assert downloads(second) == []
    store.write("base/a.json", b"new")
    store.delete("base/b.safetensors")
    store.write("base/d.json", b"more")
    fetch_prefix(third, "base", target, PATTERNS)
    assert downloads(third) == ["download base/a.json", "download base/d.json"]
    assert sorted(os.listdir(target)) == [FETCHED, ".lock", "a.json", "d.json"]
    assert (target / "a.json").read_bytes() == b"new"


def test_a_prefix_that_broke_off_is_resumed(store, tmp_path):
    for number in range(6):
        store.write(f"{number}.json", b"x")

    def break_off(call: str, key: str) -> None:
        if call == "download" and key == "5.json":
            raise RetryError("as the test wants")

    with pytest.raises(RetryError):
        fetch_prefix(Watched(store, break_off), "", tmp_path / "cache", PATTERNS)
    again = Watched(store)
    fetch_prefix(again, "", tmp_path / "cache", PATTERNS)
    assert downloads(again) == ["download 5.json"]


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_text("shorter"), lambda path: path.unlink()]
)
def test_a_damaged_file_or_record_of_a_prefix_is_fetched_again(store, tmp_path, spoil):
    store.write("a.json", b"a longer content")
    for name in ("a.json", FETCHED):
        fetch_prefix(store, "", tmp_path / "cache", PATTERNS)
        spoil(tmp_path / "cache" / name)
        fetch_prefix(store, "", tmp_path / "cache", PATTERNS)
        assert (tmp_path / "cache" / "a.json").read_bytes() == b"a longer content"


def test_a_prefix_without_wanted_files_is_an_error_that_lists_its_files(store, tmp_path):
    store.write("base/pytorch_model.bin", b"x")
    with pytest.raises(
        MissingError, match=r"has pytorch_model\.bin; wanted files that match \*\.safetensors"
    ):
        fetch_prefix(store, "base", tmp_path / "cache", PATTERNS)
