"""The world of each test: nights by a stand-in for the model, and folders of its own."""

import gc
from pathlib import Path

import pytest

from tests.feedback.world import Record, World, conversation
from tests.stand_in import NO_WEIGHTS

WEEKS = ("2026-01-05", "2026-01-12", "2026-01-19")


@pytest.fixture
def world(tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world without nights. Its base has no weights, so that nothing loads torch."""
    # A night begins with a collection of garbage, which is slow where all libraries are loaded.
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1)
    return World(tmp_path, make_base(tmp_path / "base"))


@pytest.fixture(scope="module")
def three_nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, list[Record]]:
    """Return a world that tests only read, and the lines of its nights.

    They are three nights of 20 conversations, in three weeks.
    """
    folder = tmp_path_factory.mktemp("nights")
    shared = World(folder, make_base(folder / "base"))
    lines = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RECAP_CACHE", str(folder / "cache"))
        patched.setenv("RECAP_WORK", str(folder / "work"))
        patched.setattr(gc, "get_freeze_count", lambda: 1)
        for number, day in enumerate(WEEKS):
            lines += shared.night(day, [conversation(20 * number + each) for each in range(20)])
    return shared, lines


def make_base(folder: Path) -> Path:
    """Make a base that nothing loads."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(NO_WEIGHTS)
    return folder
