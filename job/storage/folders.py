"""Verified folders: a folder contains what its manifest, written last, says.

A reader trusts only the manifest. It fetches the files named there and checks the size and SHA-256
of each, so a half-written folder does not exist, and a mixture of two never verifies.

Replacing a folder deletes the old manifest first; until the new one is written, there is no folder.
A reader who has already read the old manifest then finds files that do not match it: an error, but
never a mixture. Two writers at once end the same way, at worst with a folder that does not verify.
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
from job.identity import json_digest
from job.storage.atomic import locked, new_folder, reading, replace_folder, write_file
from job.storage.keys import below, check_key, relative_to
from job.storage.local import LocalStore
from job.storage.store import Entry, Progress, Store, one_at_a_time

MANIFEST = "manifest.json"
FETCHED = ".fetched.json"  # written by `fetch_prefix`: the version of each file that it downloaded
FILES_AT_ONCE = 4
TOO_MUCH = (RecursionError, OverflowError)  # JSON nested too deep, or with an infinite number
Item = TypeVar("Item")


@dataclass(frozen=True)
class FileEntry:
    """One file of a folder: its size in bytes and its SHA-256 as 64 hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of a folder by key, without the manifest itself, and the writer's own JSON."""

    files: dict[str, FileEntry]
    extra: dict[str, Any]

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json.

        They include the manifest's own SHA-256, so that a damaged manifest is not mistaken for that
        of another folder.
        """
        content = asdict(self) | {"sha256": self._sha256()}
        # Sorted: the same folder gives the same bytes, by which `publish_folder` recognizes it.
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        return (text + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, where: str) -> "Manifest":
        """Parse the bytes that `to_json` wrote.

        Raise ValueError, KeyError or TypeError for anything else. `where` names the source in the
        error of an invalid key.
        """
        raw = json.loads(text)

        files = {}
        for key, file in raw["files"].items():
            entry = FileEntry(int(file["size"]), str(file["sha256"]))
            # A key such as ../x would be written outside the folder.
            files[check_key(key, where)] = entry

        manifest = cls(files, dict(raw["extra"]))
        if raw["sha256"] != manifest._sha256():
            raise ValueError("its content is not what its own SHA-256 says")
        return manifest

    def _sha256(self) -> str:
        return json_digest(asdict(self))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(local_dir: Path, extra: Mapping[str, Any]) -> Manifest:
    """Write manifest.json over every file in `local_dir`, and return it."""
    files = {
        entry.key: FileEntry(entry.size, sha256_file(local_dir / entry.key))
        for entry in LocalStore(str(local_dir)).list()
        if entry.key != MANIFEST
    }
    manifest = Manifest(files, dict(extra))
    write_file(local_dir / MANIFEST, manifest.to_json())
    return manifest


def verify_folder(local_dir: Path) -> Manifest:
    """Check every file of a local folder against its manifest, and return the manifest.

    Raise MissingError if there is no manifest, DamagedError if a file does not match it.
    """
    manifest = read_manifest(LocalStore(str(local_dir)), "")

    def check(key: str) -> None:
        _check_file(local_dir / key, manifest.files[key], str(local_dir / key))

    _for_each(manifest.files, check)
    return manifest


def publish_folder(
    local_dir: Path,
    store: Store,
    prefix: str,
    extra: Mapping[str, Any],
    progress: Progress | None = None,
) -> Manifest:
    """Upload every file of `local_dir`, several at a time, then the manifest; return the manifest.

    Writes the manifest to `local_dir` too. Replaces the folder published at `prefix`; files there
    that the new manifest does not name stay, and no reader sees them. Publishing an identical
    folder again repairs whatever is damaged in it, and readers see it all the while.

    Raise RetryError if the store does not have every file in full afterwards.
    """
    manifest = write_manifest(local_dir, extra)
    report = one_at_a_time(progress) if progress else None

    # The old manifest goes first: from here on readers find no folder rather than a mixture. The
    # same manifest may stay: files that are uploaded again replace their equals.
    if not _is_published(store, prefix, manifest):
        store.delete(below(prefix, MANIFEST))

    def upload(key: str) -> None:
        store.upload(local_dir / key, below(prefix, key), report)

    _for_each(manifest.files, upload)
    # Before the commit: another writer may have replaced or deleted files meanwhile.
    _check_uploaded(manifest, store, prefix)

    # The new manifest goes last: it is the commit.
    store.write(below(prefix, MANIFEST), manifest.to_json())
    return manifest


def read_manifest(store: Store, prefix: str) -> Manifest:
    """Return the manifest of a published folder.

    Raise MissingError if there is none, DamagedError if it cannot be parsed.
    """
    return read_manifest_file(store, below(prefix, MANIFEST))


def read_manifest_file(store: Store, key: str) -> Manifest:
    """Return the manifest at this key, whatever its name.

    Raise MissingError if there is none, DamagedError if it cannot be parsed.
    """
    where = below(store.uri, key)
    try:
        return Manifest.from_json(store.read(key), where)
    except MissingError as error:
        raise MissingError(
            f"{where} is not there: nothing was published there, or not to its end; "
            "check the name, or publish the folder again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, *TOO_MUCH) as error:
        why = f"{type(error).__name__}: {error}"
        raise DamagedError(
            f"{where} is no manifest of recap ({why}): publish the folder again",
        ) from error


def fetch_folder(
    store: Store,
    prefix: str,
    target: Path,
    progress: Progress | None = None,
) -> Manifest:
    """Download a published folder to `target`, atomically and verified, and return its manifest.

    Downloads the files that the manifest names and nothing else. Does nothing if `target` already
    is that folder. Raise MissingError without a manifest, DamagedError if a file is missing or does
    not match, RetryError if the folder was replaced meanwhile, and the errors of `Store.download`.
    """
    manifest = read_manifest(store, prefix)
    if is_folder_of(target, manifest):
        return manifest

    report = one_at_a_time(progress) if progress else None
    # Beside the target, and renamed when all of it is verified.
    with new_folder(target) as folder:

        def fetch(key: str) -> None:
            _fetch(store, below(prefix, key), folder / key, manifest.files[key], report)

        try:
            _for_each(manifest.files, fetch)
        except DamagedError as error:
            # New files beside the old manifest look like damage, but a second try succeeds.
            _raise_if_replaced(store, prefix, manifest, error)
            raise

        write_file(folder / MANIFEST, manifest.to_json())
        if not is_folder_of(target, manifest):  # another process may have fetched it meanwhile
            replace_folder(folder, target)
    return manifest


def delete_folder(store: Store, prefix: str, keys: Iterable[str]) -> None:
    """Delete a published folder, whose keys are among `keys`: those that its store lists."""
    # The manifest first: an interrupted deletion leaves no folder that looks complete.
    store.delete(below(prefix, MANIFEST))
    for key in sorted(keys):
        if key.startswith(f"{prefix}/"):
            store.delete(key)


def fetch_prefix(
    store: Store,
    prefix: str,
    target: Path,
    patterns: tuple[str, ...],
    progress: Progress | None = None,
) -> None:
    """Mirror the files below `prefix` whose keys match `patterns` to `target`.

    For folders without a manifest: only sizes are verified. Files that are here in the same version
    are not downloaded again, and files that are gone from the store are deleted here. Of several
    processes, one fetches while the others wait. Raise MissingError if nothing matches.
    """
    listed = {relative_to(prefix, entry.key): entry for entry in store.list(prefix)}
    wanted = {}
    for key, entry in listed.items():
        if any(fnmatchcase(key, pattern) for pattern in patterns):
            wanted[key] = entry

    where = below(store.uri, prefix) if prefix else store.uri
    if not wanted:
        names = ", ".join(list(listed)[:8]) or "nothing"
        wanted_names = ", ".join(patterns)
        raise MissingError(
            f"{where} has {names}; wanted files that match {wanted_names}: check the name",
        )

    report = one_at_a_time(progress) if progress else None
    with locked(target):
        before = _read_fetched_versions(target, where)
        for key in before.keys() - wanted.keys():
            (target / key).unlink(missing_ok=True)

        done = {}
        for key, entry in wanted.items():
            if _is_current(target / key, entry, before.get(key)):
                done[key] = entry.version

        def fetch(key: str) -> None:
            store.download(wanted[key].key, target / key, report)
            # The listed version: of a file that changed since, the next fetch sees another.
            done[key] = wanted[key].version

        try:
            _for_each([key for key in wanted if key not in done], fetch)
        finally:  # also after an error: the next try skips the files that were downloaded
            content = {"from": where, "versions": done}
            write_file(target / FETCHED, json.dumps(content).encode())


def _is_published(store: Store, prefix: str, manifest: Manifest) -> bool:
    try:
        return store.read(below(prefix, MANIFEST)) == manifest.to_json()
    except MissingError:
        return False


def _check_uploaded(manifest: Manifest, store: Store, prefix: str) -> None:
    """Raise RetryError unless the store has every file in its full size."""
    sizes = {relative_to(prefix, entry.key): entry.size for entry in store.list(prefix)}
    for key, wanted in manifest.files.items():
        if sizes.get(key) != wanted.size:
            where = below(store.uri, below(prefix, key))
            got = sizes.get(key, "no")
            raise RetryError(
                f"{where} has {got} bytes after its upload, wanted {wanted.size}: run again",
            )


def _fetch(
    store: Store,
    key: str,
    path: Path,
    wanted: FileEntry,
    progress: Progress | None,
) -> None:
    where = below(store.uri, key)
    try:
        store.download(key, path, progress)
    except MissingError as error:
        raise DamagedError(
            f"{where} is in the manifest but not there: publish the folder again",
        ) from error
    _check_file(path, wanted, where)


def _raise_if_replaced(store: Store, prefix: str, manifest: Manifest, error: DamagedError) -> None:
    """Raise RetryError if `error` has a harmless cause: the folder is being published anew."""
    try:
        same = read_manifest(store, prefix) == manifest
    except MissingError:
        # Between its deletion and the new one, a manifest is missing.
        same = False
    if not same:
        where = below(store.uri, prefix)
        raise RetryError(f"{where} was replaced while it was fetched: run again") from error


def _read_fetched_versions(target: Path, where: str) -> dict[str, str]:
    """Return the versions, by key, of the files in `target` that came from `where`."""
    try:
        # Any damage to it means a new download, no error.
        raw = json.loads((target / FETCHED).read_bytes())
        versions = raw["versions"]
        return {check_key(key): str(versions[key]) for key in versions if raw["from"] == where}
    except (FileNotFoundError, ValueError, KeyError, TypeError, DataError, *TOO_MUCH):
        return {}


def _is_current(path: Path, entry: Entry, version: str | None) -> bool:
    return version == entry.version and path.is_file() and path.stat().st_size == entry.size


def _check_file(path: Path, wanted: FileEntry, where: str) -> None:
    """Raise DamagedError unless the file at `path` has the wanted size and SHA-256."""
    remedy = "publish or fetch the folder again"
    if not path.is_file():
        raise DamagedError(f"{where} is in the manifest but not there: {remedy}")

    # The size first: it is free, and a truncated file of gigabytes need not be hashed.
    size = path.stat().st_size
    if size != wanted.size:
        raise DamagedError(f"{where} has {size} bytes, wanted {wanted.size}: {remedy}")

    digest = sha256_file(path)
    if digest != wanted.sha256:
        raise DamagedError(f"{where} has SHA-256 {digest}, wanted {wanted.sha256}: {remedy}")


def is_folder_of(folder: Path, manifest: Manifest) -> bool:
    """Return True if the folder here has the files of the manifest as it says, and nothing else."""
    try:
        if not folder.is_dir() or verify_folder(folder) != manifest:
            return False
        # A file that no manifest names may change what a library loads from the folder.
        found = {entry.key for entry in LocalStore(str(folder)).list()}
    except (MissingError, DataError):
        return False
    return found == {MANIFEST, *manifest.files}


def _for_each(items: Iterable[Item], action: Callable[[Item], None]) -> None:
    """Run `action` on the items, several at once. After an error, begin no more and raise it."""
    pool = ThreadPoolExecutor(FILES_AT_ONCE)
    try:
        # Iterating raises the first error; nobody needs the results.
        for _ in pool.map(action, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
