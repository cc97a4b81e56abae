"""Verified folders: a folder is what its manifest, written last, says it is.

A reader trusts nothing but the manifest: it fetches the files named there and checks each one's size and SHA-256. So a
half-written folder does not exist, and a mixture of two never verifies. A folder that is replaced by another loses its
old manifest first: from then on, until the new one is there, nothing is found. A reader who had the old manifest
already meets files that do not match it, which is an error and not a mixture. Two writers at once end the same way: at
worst in a folder that does not verify. Knows nothing of what the files mean.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from job.errors import DamagedError, DataError, MissingError, RetryError
from job.storage.atomic import locked, new_folder, reading, replace_folder, write_file
from job.storage.keys import below, check_key, relative_to
from job.storage.local import LocalStore
from job.storage.store import Entry, Progress, Store, one_at_a_time

MANIFEST = "manifest.json"
FETCHED = ".fetched.json"  # in a fetched prefix: the versions of its files
FILES_AT_ONCE = 4
Item = TypeVar("Item")


@dataclass(frozen=True)
class FileEntry:
    """One file of a folder: its size in bytes and its SHA-256, 64 hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds: its files by key, without the manifest itself, and whatever its writer adds (JSON)."""

    files: dict[str, FileEntry]
    extra: dict[str, Any]

    def to_json(self) -> bytes:
        """The bytes of manifest.json, which says its own SHA-256 too: damage to it is not taken for another folder."""
        content = asdict(self) | {"sha256": self._sha256()}
        return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, where: str) -> "Manifest":
        """What `to_json` gave; ValueError, KeyError or TypeError for anything else."""
        raw = json.loads(text)
        files = {check_key(key, where): FileEntry(int(f["size"]), str(f["sha256"])) for key, f in raw["files"].items()}
        manifest = cls(files, dict(raw["extra"]))
        if raw["sha256"] != manifest._sha256():
            raise ValueError("its content is not what its own SHA-256 says")
        return manifest

    def _sha256(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(local_dir: Path, extra: Mapping[str, Any]) -> Manifest:
    """Write manifest.json over every file in `local_dir`."""
    files = {
        entry.key: FileEntry(entry.size, sha256_file(local_dir / entry.key))
        for entry in LocalStore(str(local_dir)).list()
        if entry.key != MANIFEST
    }
    manifest = Manifest(files, dict(extra))
    write_file(local_dir / MANIFEST, manifest.to_json())
    return manifest


def verify_folder(local_dir: Path) -> Manifest:
    """The manifest of a folder here whose files are as it says; MissingError without one, DamagedError if not."""
    manifest = read_manifest(LocalStore(str(local_dir)), "")
    for key, wanted in manifest.files.items():
        _check_file(local_dir / key, wanted, str(local_dir / key))
    return manifest


def publish_folder(
    local_dir: Path, store: Store, prefix: str, extra: Mapping[str, Any], progress: Progress | None = None
) -> Manifest:
    """Upload every file of `local_dir`, several at a time, then the manifest; it is left in `local_dir` too.

    Replaces what was published there, as the module says; other files there stay, and no reader sees them. The same
    folder again stays published meanwhile, and whatever was damaged in it is mended.
    """
    manifest = write_manifest(local_dir, extra)
    told = one_at_a_time(progress) if progress else None
    if not _is_published(store, prefix, manifest):
        store.delete(below(prefix, MANIFEST))
    _for_each(manifest.files, lambda key: store.upload(local_dir / key, below(prefix, key), told))
    _check_arrived(manifest, store, prefix)
    store.write(below(prefix, MANIFEST), manifest.to_json())
    return manifest


def read_manifest(store: Store, prefix: str) -> Manifest:
    """The manifest of a published folder; MissingError if there is none, DamagedError if it cannot be understood."""
    where = below(store.uri, below(prefix, MANIFEST))
    try:
        return Manifest.from_json(store.read(below(prefix, MANIFEST)), where)
    except MissingError as error:
        raise MissingError(
            f"{where} is not there: nothing was published there, or not to its end; check the name, or publish again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{where} is no manifest of recap ({type(error).__name__}: {error}): publish the folder again"
        ) from error


def fetch_folder(store: Store, prefix: str, target: Path, progress: Progress | None = None) -> Manifest:
    """Bring a published folder to `target`, verified, whole or not at all; what it names and nothing else.

    If `target` is that folder already, nothing is fetched. Errors: MissingError without a manifest, DamagedError for
    a file that is not what it says or not there, and those of `Store.download`.
    """
    manifest = read_manifest(store, prefix)
    if _is_there(target, manifest):
        return manifest
    told = one_at_a_time(progress) if progress else None
    with new_folder(target) as folder:
        try:
            _for_each(
                manifest.files, lambda key: _fetch(store, below(prefix, key), folder / key, manifest.files[key], told)
            )
        except DamagedError as error:
            _raise_if_replaced(store, prefix, manifest, error)
            raise
        write_file(folder / MANIFEST, manifest.to_json())
        if not _is_there(target, manifest):  # another process may have fetched it meanwhile
            replace_folder(folder, target)
    return manifest


def fetch_prefix(
    store: Store, prefix: str, target: Path, patterns: tuple[str, ...], progress: Progress | None = None
) -> None:
    """Bring the files below `prefix` whose keys match `patterns` to `target`: for folders without a manifest.

    What is there in the same version is not fetched again, what is gone is removed; of several processes one fetches
    while the others wait. MissingError if nothing matches. Only sizes are verified.
    """
    listed = {relative_to(prefix, entry.key): entry for entry in store.list(prefix)}
    wanted = {key: entry for key, entry in listed.items() if any(fnmatchcase(key, pattern) for pattern in patterns)}
    where = below(store.uri, prefix) if prefix else store.uri
    if not wanted:
        names = ", ".join(list(listed)[:8]) or "nothing"
        raise MissingError(f"{where} has {names}; wanted files that match {', '.join(patterns)}: check the name")
    told = one_at_a_time(progress) if progress else None
    with locked(target):
        before = _read_fetched(target, where)
        for key in before.keys() - wanted.keys():
            (target / key).unlink(missing_ok=True)
        done = {key: entry.version for key, entry in wanted.items() if _has(target / key, entry, before.get(key))}

        def fetch(key: str) -> None:
            store.download(wanted[key].key, target / key, told)
            done[key] = wanted[key].version

        try:
            _for_each([key for key in wanted if key not in done], fetch)
        finally:  # what has come need not come again, also when the rest has not
            write_file(target / FETCHED, json.dumps({"from": where, "versions": done}).encode())


def _is_published(store: Store, prefix: str, manifest: Manifest) -> bool:
    try:
        return store.read(below(prefix, MANIFEST)) == manifest.to_json()
    except MissingError:
        return False


def _check_arrived(manifest: Manifest, store: Store, prefix: str) -> None:
    """RetryError unless the store has every file in its full size."""
    there = {relative_to(prefix, entry.key): entry.size for entry in store.list(prefix)}
    for key, wanted in manifest.files.items():
        if there.get(key) != wanted.size:
            raise RetryError(
                f"{below(store.uri, below(prefix, key))} has {there.get(key, 'no')} bytes after its upload, wanted "
                f"{wanted.size}: run again"
            )


def _fetch(store: Store, key: str, path: Path, wanted: FileEntry, progress: Progress | None) -> None:
    where = below(store.uri, key)
    try:
        store.download(key, path, progress)
    except MissingError as error:
        raise DamagedError(f"{where} is in the manifest but not there: publish the folder again") from error
    _check_file(path, wanted, where)


def _raise_if_replaced(store: Store, prefix: str, manifest: Manifest, error: DamagedError) -> None:
    """RetryError if the damage is that somebody publishes the folder anew right now."""
    try:
        same = read_manifest(store, prefix) == manifest
    except MissingError:
        same = False
    if not same:
        raise RetryError(f"{below(store.uri, prefix)} was replaced while it was fetched: run again") from error


def _read_fetched(target: Path, where: str) -> dict[str, str]:
    """Versions by key of what an earlier fetch from the same place left in `target`."""
    try:
        raw = json.loads((target / FETCHED).read_bytes())
        return {check_key(key): str(raw["versions"][key]) for key in raw["versions"] if raw["from"] == where}
    except (FileNotFoundError, ValueError, KeyError, TypeError, DataError):
        return {}


def _has(path: Path, entry: Entry, version: str | None) -> bool:
    return version == entry.version and path.is_file() and path.stat().st_size == entry.size


def _check_file(path: Path, wanted: FileEntry, where: str) -> None:
    if not path.is_file():
        raise DamagedError(f"{where} is in the manifest but not there: publish or fetch the folder again")
    size = path.stat().st_size
    if size != wanted.size:
        raise DamagedError(f"{where} has {size} bytes, wanted {wanted.size}: publish or fetch the folder again")
    digest = sha256_file(path)
    if digest != wanted.sha256:
        raise DamagedError(f"{where} has SHA-256 {digest}, wanted {wanted.sha256}: publish or fetch the folder again")


def _is_there(folder: Path, manifest: Manifest) -> bool:
    try:
        return folder.is_dir() and verify_folder(folder) == manifest
    except (MissingError, DamagedError):
        return False


def _for_each(items: Iterable[Item], action: Callable[[Item], None]) -> None:
    """Do `action` for several items at a time; the first error ends it, and items not yet begun are left."""
    pool = ThreadPoolExecutor(FILES_AT_ONCE)
    try:
        for _ in pool.map(action, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
