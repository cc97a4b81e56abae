"""Folders of data that is prepared once: conversations read and split, and their rows encoded.

They are in the cache, each under a digest of all that its content depends on: a training finds what
its plan has read, and a run that starts again finds its rows. A folder is trusted only through its
manifest.
"""

import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from job.errors import DamagedError, MissingError, OutputError
from job.identity import json_digest
from job.storage.atomic import locked, replace_folder, writing
from job.storage.folders import is_folder_of, read_manifest, write_manifest
from job.storage.local import LocalStore
from job.storage.scratch import PREPARED, UNFINISHED, cache_folder, delete_unused
from job.telemetry import warn

Kind = Literal["data", "rows", "predictions"]


@dataclass(frozen=True)
class PreparedData:
    """The folders of prepared data, while no other process of this machine changes them."""

    parent: Path | None  # None if the cache cannot be written: then nothing is found or stored

    def find(self, kind: Kind, identity: dict[str, Any]) -> Path | None:
        """Return the folder of this identity if it is there and whole.

        Reads all of it once, to compare it with its manifest.
        """
        if self.parent is None:
            return None
        folder = _folder(self.parent, kind, identity)
        if not _is_whole(folder):
            return None
        with suppress(OSError):
            os.utime(folder)  # its last use
        return folder

    def store(
        self, kind: Kind, identity: dict[str, Any], fill: Callable[[Path], None]
    ) -> Path | None:
        """Return the folder of this identity, which `fill` writes.

        First deletes those that no process used for two days, and what killed processes left.
        Return None, with a warning, if there is no room for it. A process that is killed meanwhile
        leaves none. Raise what `fill` raises, but OSError and OutputError.
        """
        if self.parent is None:
            return None
        delete_unused(self.parent)
        folder = _folder(self.parent, kind, identity)
        part = self.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            with writing(folder):
                part.mkdir(mode=0o700)
                fill(part)
            write_manifest(part, {})
            replace_folder(part, folder)
        except OutputError as error:
            warn("prepared data is not kept for the next start", why=str(error))
            return None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder


@contextmanager
def prepared_data() -> Iterator[PreparedData]:
    """Yield the folders of prepared data. Other processes of this machine wait for them."""
    with ExitStack() as stack:
        parent: Path | None = None
        with suppress(OutputError, OSError):
            folder = cache_folder() / PREPARED
            folder.mkdir(mode=0o700, exist_ok=True)
            stack.enter_context(locked(folder))
            parent = folder
        yield PreparedData(parent)


def _folder(parent: Path, kind: Kind, identity: dict[str, Any]) -> Path:
    # Each user has their own: they need not be able to read, or to replace, each other's.
    digest = json_digest(identity | {"user": os.geteuid()})
    return parent / f"{kind}-{digest[:32]}"


def _is_whole(folder: Path) -> bool:
    """Return True if the folder is what its manifest says, and only this user can have written it.

    Whoever can write to it decides what is learned.
    """
    try:
        found = folder.stat()
        others = stat.S_IWGRP | stat.S_IWOTH
        if found.st_uid != os.geteuid() or found.st_mode & others:
            return False
        return is_folder_of(folder, read_manifest(LocalStore(str(folder)), ""))
    except (FileNotFoundError, MissingError, DamagedError):
        return False
