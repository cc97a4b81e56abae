"""A store over a Hub repository, by huggingface_hub: read-only, but for `replace`.

`hf://org/name[@revision][/folder]` is a model, `hf://datasets/…` a data set. A branch is resolved
to its commit once, so that one store reads one state of the repository.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from job.errors import ChangedError, MissingError, OutputError, RecapError, RetryError
from job.storage.atomic import UNFINISHED, new_folder, reading, sync_folder, writing
from job.storage.hub_errors import hub_errors
from job.storage.keys import below, check_key, relative_to, split_hub
from job.storage.store import Entry, Progress, Skip, read_or_none

CONFLICTS = (409, 412)  # HTTP statuses: the branch has moved on since the parent of a commit
MAX_TRIES_AFTER_CONFLICT = 5


class HubStore:
    """The files below one folder of one repository, at one commit."""

    def __init__(self, uri: str, endpoint: str | None = None, token: str | None = None) -> None:
        self.uri = uri.rstrip("/")
        named = split_hub(uri)
        self._kind = named.kind
        self._repository = named.repository
        self._revision = named.revision
        self._folder = named.folder
        self._endpoint = endpoint or os.environ.get("HF_ENDPOINT")
        self._token = token or os.environ.get("HF_TOKEN")
        self._commit: str | None = None

    def stat(self, key: str) -> Entry:
        """Return the entry at `key`; its version is the name of the Git object."""
        path = self._path(key)
        with hub_errors(self._where(key)):
            found = self._api().get_paths_info(
                self._repository,
                [path],
                revision=self._resolve_commit(),
                repo_type=self._kind,
            )
        files = [_entry(key, item) for item in found if item.path == path and _is_file(item)]
        if not files:
            raise MissingError(f"{self._where(key)}: there is no such file")
        return files[0]

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        """Yield every file below `prefix`, sorted by key."""
        from huggingface_hub.errors import EntryNotFoundError

        folder = self._path(prefix) if prefix else self._folder
        with hub_errors(self.uri):
            commit = self._resolve_commit()
            try:
                tree = self._api().list_repo_tree(
                    self._repository,
                    folder or None,
                    recursive=True,
                    revision=commit,
                    repo_type=self._kind,
                )
                files = {}
                # The listing is by pages, so errors of the Hub are raised in this loop, too.
                for item in tree:
                    if _is_file(item):
                        files[relative_to(self._folder, item.path)] = item
            except EntryNotFoundError:
                return  # no such folder: as in every store, it has no entries

        for key in sorted(files):
            if skip is None or not skip(key):
                yield _entry(check_key(key, self.uri), files[key])

    def read(self, key: str) -> bytes:
        """Return the whole file."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """Download the file and return a stream over the copy, from byte `start` on.

        The copy has no name any more: the system deletes it when the stream is closed.
        """
        with tempfile.TemporaryDirectory(suffix=UNFINISHED) as folder:
            path = self._fetch(key, Path(folder))
            with reading(path):
                file = path.open("rb")
                file.seek(start)
                return file

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Write the file to `target`, atomically. Raise RetryError if its size is wrong."""
        wanted = self.stat(key).size
        with new_folder(target) as folder:
            path = self._fetch(key, folder)
            got = path.stat().st_size
            if got != wanted:
                raise RetryError(f"{self._where(key)}: got {got} bytes, wanted {wanted}; run again")
            with writing(target):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(path, target)
                sync_folder(target.parent)
        if progress:
            progress(wanted)

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Raise OutputError: a repository is written as one commit, by `publish_to_hub`."""
        raise self._read_only_error()

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Raise OutputError: a repository is written as one commit, by `publish_to_hub`."""
        raise self._read_only_error()

    def replace(self, key: str, data: bytes, expected: bytes | None) -> None:
        """Commit `data` as the file `key` if its content on the branch is still `expected`.

        The commit names its parent, and the Hub refuses it if the branch has moved on.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        where = self._where(key)
        addition = CommitOperationAdd(path_in_repo=self._path(key), path_or_fileobj=data)
        for _ in range(MAX_TRIES_AFTER_CONFLICT):
            # The branch as it is now, not as this store has read it before.
            self._commit = None
            if read_or_none(self, key) != expected:
                raise ChangedError(f"{where} changed meanwhile")
            try:
                with hub_errors(where, writes=True):
                    self._commit = self._create_commit(addition)
                return
            except RecapError as error:
                # The answer may be lost, or a commit of another file came in between.
                self._commit = None
                if read_or_none(self, key) == data:
                    return
                cause = error.__cause__
                is_conflict = isinstance(cause, HfHubHTTPError) and (
                    cause.response.status_code in CONFLICTS
                )
                if not is_conflict:
                    raise
        raise RetryError(f"{where}: others commit to the repository all the time: run again")

    def _create_commit(self, addition: Any) -> str:
        """Commit on top of the commit that this store reads, and return the new one."""
        made = self._api().create_commit(
            self._repository,
            [addition],
            commit_message=f"Switch {addition.path_in_repo}",
            repo_type=self._kind,
            revision=self._revision,
            parent_commit=self._resolve_commit(),
        )
        return str(made.oid)

    def delete(self, key: str) -> None:
        """Raise OutputError: a repository is written as one commit, by `publish_to_hub`."""
        raise self._read_only_error()

    def _fetch(self, key: str, folder: Path) -> Path:
        path = self._path(key)
        with writing(folder), hub_errors(self._where(key)):
            found = self._api().hf_hub_download(
                self._repository,
                path,
                revision=self._resolve_commit(),
                repo_type=self._kind,
                local_dir=folder,
            )
        return Path(found)

    def _resolve_commit(self) -> str:
        """Return the commit of the revision. Asks the Hub the first time only."""
        if self._commit is None:
            found = self._api().repo_info(
                self._repository,
                revision=self._revision,
                repo_type=self._kind,
            )
            self._commit = str(found.sha)
        return self._commit

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._endpoint, token=self._token)

    def _path(self, key: str) -> str:
        return below(self._folder, check_key(key, self.uri))

    def _where(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def _read_only_error(self) -> OutputError:
        return OutputError(
            f"{self.uri}: a Hub repository is only read here; choose a folder or s3:// as output, "
            "and set publish.hub to push the adapter"
        )


def _is_file(item: Any) -> bool:
    from huggingface_hub.hf_api import RepoFile

    return isinstance(item, RepoFile)


def _entry(key: str, item: Any) -> Entry:
    return Entry(key, item.size, item.blob_id)
