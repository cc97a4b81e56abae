"""A base to break."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(base_folder: Path, tmp_path: Path) -> Path:
    """A base of the test's own."""
    return Path(shutil.copytree(base_folder, tmp_path / "base"))
