"""Where this machine keeps what can be fetched again, and what a run needs only while it runs.

Both can be put on one writable mount: RECAP_CACHE and RECAP_WORK (else the user's cache folder, and a folder below it).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job.errors import OutputError


def cache_folder() -> Path:
    """The folder of fetched bases and adapters, made if need be; OutputError if it cannot be."""
    named = os.environ.get("RECAP_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return _made(Path(named) if named else home / "recap")


@contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """A new folder for one run's files, removed at the end however it ends."""
    named = os.environ.get("RECAP_WORK")
    parent = _made(Path(named) if named else cache_folder() / "work")
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made ({error.strerror}): set RECAP_CACHE and RECAP_WORK to a writable folder"
        ) from error
    return folder
