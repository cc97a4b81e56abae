"""Files in a real folder, as the storage floor hands them to the readers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest


@dataclass(frozen=True)
class FolderStore:
    folder: Path

    def open(self, key: str) -> BinaryIO:
        return (self.folder / key).open("rb")


@dataclass(frozen=True)
class File:
    uri: str
    store: FolderStore
    key: str


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes | str], File]:
    """Write a file and return it as an input.

    Its URI is its bare name, so that messages can be compared whole.
    """

    def write(name: str, content: bytes | str) -> File:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return File(name, FolderStore(tmp_path), name)

    return write
