"""A file is hashed once as long as it stays the same, and never taken for another."""

import hashlib
import os
import time

import pytest

from job.storage import digests
from job.storage.digests import MIN_AGE_SECONDS, hub_digests, sha256_files


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def read(monkeypatch):
    """Let the clock be an hour ahead, so that files are old; return the names that are read."""
    names = []
    sha256_file = digests.sha256_file

    def note(path):
        names.append(path.name)
        return sha256_file(path)

    now = time.time() + 3600
    monkeypatch.setattr(digests, "sha256_file", note)
    monkeypatch.setattr(digests, "MIN_REMEMBERED_BYTES", 1)
    monkeypatch.setattr(digests.time, "time", lambda: now)
    return names


def files(folder, **contents):
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_digests_are_those_of_the_contents_in_order(tmp_path, read):
    paths = files(tmp_path, a=b"one", b=b"two", c=b"")
    wanted = [sha256(b"one"), sha256(b"two"), sha256(b"")]
    assert sha256_files(paths) == sha256_files(paths, tmp_path / "cache") == wanted
    assert sorted(read) == ["a", "a", "b", "b", "c", "c"]


def test_a_file_that_stayed_the_same_is_not_read_again(tmp_path, read):
    paths = files(tmp_path, a=b"one", b=b"two")
    first = sha256_files(paths, tmp_path / "cache")
    assert sha256_files(paths, tmp_path / "cache") == first
    assert sorted(read) == ["a", "b"]


def test_a_file_of_another_content_is_read_whatever_its_time_says(tmp_path, read):
    [path] = files(tmp_path, a=b"one")
    sha256_files([path], tmp_path / "cache")
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sha256_files([path], tmp_path / "cache") == [sha256(b"two")]


def test_a_file_that_may_still_change_unseen_is_not_remembered(tmp_path, read, monkeypatch):
    [path] = files(tmp_path, a=b"one")
    changed = path.stat().st_mtime
    monkeypatch.setattr(digests.time, "time", lambda: changed + MIN_AGE_SECONDS - 1)
    sha256_files([path], tmp_path / "cache")
    sha256_files([path], tmp_path / "cache")
    assert read == ["a", "a"]


def test_a_damaged_memory_is_ignored(tmp_path, read):
    [path] = files(tmp_path, a=b"one")
    sha256_files([path], tmp_path / "cache")
    [remembered] = (tmp_path / "cache" / "digests").iterdir()
    remembered.write_text("ab")
    assert sha256_files([path], tmp_path / "cache") == [sha256(b"one")]
    assert remembered.read_text() == sha256(b"one")


def test_large_files_of_the_hub_are_known_by_their_names(tmp_path):
    blobs = tmp_path / "blobs"
    snapshot = tmp_path / "snapshots" / "commit"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    links = {"model.safetensors": sha256(b"weights"), "config.json": "a" * 40}
    for name, blob in links.items():
        (blobs / blob).write_bytes(b"")
        (snapshot / name).symlink_to(blobs / blob)
    (snapshot / "plain.safetensors").write_bytes(b"")
    names = [*links, "plain.safetensors"]
    assert hub_digests(snapshot, names) == {"model.safetensors": sha256(b"weights")}
