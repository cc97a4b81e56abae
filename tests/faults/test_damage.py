"""A damaged checkpoint is never loaded: the one before it serves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.local import LocalStore
from job.training.checkpoints import fetch_newest, publish_checkpoint
from tests.faults.trials import adapter_digest, journal_of, store_of

IDENTITY = {"fingerprint": "f", "base": "b", "processes": 1}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], Any]] = {"flipped": flip, "cut": cut, "removed": Path.unlink}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """Files as a real checkpoint has them, by name; what they hold does not matter to who verifies them."""
    folder = tmp_path_factory.mktemp("files")
    for name in (
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
    ):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damaged_file_in_turn_makes_the_older_checkpoint_serve(tmp_path, checkpoint, damage):
    names = [
        *sorted(file.name for file in checkpoint.iterdir() if file.name != "manifest.json"),
        "manifest.json",
    ]
    for number, name in enumerate(names):
        store = LocalStore(str(tmp_path / f"run-{number}"))
        for step in (2, 4):
            publish_checkpoint(checkpoint, store, step, IDENTITY)
        DAMAGE[damage](tmp_path / f"run-{number}" / "checkpoints" / "step-00000004" / name)
        found = fetch_newest(store, tmp_path / f"target-{number}", IDENTITY)
        assert found is not None, name
        assert found.name == "checkpoint-2", f"{name} {damage}"


def test_a_manifest_is_damaged_by_any_flipped_bit_that_changes_it(tmp_path, checkpoint):
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(checkpoint, store, 2, IDENTITY)
    content = store.read("checkpoints/step-00000002/manifest.json")
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1
        try:
            same = json.loads(flipped) == json.loads(content)
        except ValueError:
            same = False
        if not same:
            store.write("checkpoints/step-00000002/manifest.json", bytes(flipped))
            assert fetch_newest(store, tmp_path / "target", IDENTITY) is None, flipped[
                place - 20 : place + 20
            ]


def test_a_file_that_was_added_is_not_fetched(tmp_path, checkpoint):
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(checkpoint, store, 2, IDENTITY)
    store.write("checkpoints/step-00000002/evil.pkl", b"pickle")
    found = fetch_newest(store, tmp_path / "target", IDENTITY)
    assert found is not None
    assert not (found / "evil.pkl").exists()


@pytest.mark.faults
def test_a_run_goes_on_from_before_each_damaged_file_to_the_same_adapter(trials, small, tmp_path):
    trials.finish(small)
    reference = store_of(small)
    files = sorted(Path(reference.uri, "checkpoints", "step-00000006").iterdir())
    for file in files:
        for damage, hurt in DAMAGE.items():
            run = small | {"run": f"{damage}-{file.name}"}
            shutil.copytree(reference.uri, Path(small["output"]) / run["run"])
            there = Path(store_of(run).uri)
            shutil.rmtree(there / "adapter")
            hurt(there / "checkpoints" / "step-00000006" / file.name)
            child = trials.start(run)
            assert child.wait() == ExitCode.DONE, child.log()
            assert "checkpoint passed over" in child.log(), run["run"]
            attempt = journal_of(store_of(run))["attempts"][-1]
            assert (attempt["first_step"], attempt["last_step"]) == (4, 6), run["run"]
            assert adapter_digest(store_of(run)) == adapter_digest(reference), run["run"]
    print(
        f"\n{len(files) * len(DAMAGE)} kinds of damage: none was loaded, each run ended with the same adapter"
    )
