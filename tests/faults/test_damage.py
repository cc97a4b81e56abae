"""A damaged checkpoint is never loaded: the run resumes from the one before it."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from job.errors import ExitCode, OutputError
from job.storage.local import LocalStore
from job.training.checkpoints import fetch_newest, publish_checkpoint
from tests.faults.trials import adapter_digest, journal_of, store_of

IDENTITY = {"fingerprint": "f", "base": "b", "processes": 1}
FILES = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped": flip_a_bit,
    "cut": cut_in_half,
    "removed": Path.unlink,
}


class Harm:
    """A pickle of it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a pickle ran')",)


def saved(content: Any) -> bytes:
    """Return the bytes of torch's file with this content."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


UNREADABLE = {
    "empty": b"",
    "pickle": pickle.dumps(Harm()),
    "pickle in torch's file": saved(Harm()),
    "deep": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with the names of a real checkpoint, which can be loaded, and little in them."""
    folder = tmp_path_factory.mktemp("files")
    tensors = {"a": torch.arange(100)}
    save_file(tensors, folder / FILES[0])
    torch.save({"state": tensors, "param_groups": []}, folder / "optimizer.pt")
    for name in ("scheduler.pt", "rng_state.pth"):
        torch.save(tensors, folder / name)
    (folder / "trainer_state.json").write_text('{"global_step": 2}')
    return folder


@pytest.mark.parametrize("name", [*FILES[1:], "loss_window_0.json"])
@pytest.mark.parametrize("content", UNREADABLE)
def test_a_file_that_cannot_be_loaded_makes_the_older_checkpoint_serve(
    tmp_path, checkpoint, name, content
):
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(checkpoint, store, 2, IDENTITY)
    # The manifest of the newer one is right: its file was written so.
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / name).write_bytes(UNREADABLE[content])
    publish_checkpoint(broken, store, 4, IDENTITY)
    found = fetch_newest(store, tmp_path / "fetched", IDENTITY)
    assert found is not None
    assert found.name == "checkpoint-2"


def test_a_checkpoint_with_another_kind_of_identity_is_of_another_run(tmp_path, checkpoint):
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(checkpoint, store, 2, [1])
    with pytest.raises(OutputError, match="is of another run"):
        fetch_newest(store, tmp_path / "fetched", IDENTITY)


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damaged_file_makes_the_older_checkpoint_serve(tmp_path, checkpoint, damage):
    for name in (*FILES, "manifest.json"):
        store = LocalStore(str(tmp_path / name / "run"))
        for step in (2, 4):
            publish_checkpoint(checkpoint, store, step, IDENTITY)
        DAMAGE[damage](tmp_path / name / "run" / "checkpoints" / "step-00000004" / name)
        found = fetch_newest(store, tmp_path / name / "fetched", IDENTITY)
        assert found is not None, name
        assert found.name == "checkpoint-2", f"{name} {damage}"


def test_any_flipped_bit_that_changes_a_manifest_damages_it(tmp_path, checkpoint):
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(checkpoint, store, 2, IDENTITY)
    content = store.read("checkpoints/step-00000002/manifest.json")
    for index in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[index] ^= 1
        try:
            is_same = json.loads(flipped) == json.loads(content)
        except ValueError:
            is_same = False
        if is_same:
            continue
        store.write("checkpoints/step-00000002/manifest.json", bytes(flipped))
        around = flipped[index - 20 : index + 20]
        assert fetch_newest(store, tmp_path / "target", IDENTITY) is None, around


def test_a_file_that_was_added_is_not_fetched(tmp_path, checkpoint):
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(checkpoint, store, 2, IDENTITY)
    store.write("checkpoints/step-00000002/evil.pkl", b"pickle")
    found = fetch_newest(store, tmp_path / "target", IDENTITY)
    assert found is not None
    assert not (found / "evil.pkl").exists()


@pytest.mark.faults
def test_a_run_resumes_before_any_damage_and_ends_alike(trials, small):
    trials.finish(small)
    reference = store_of(small)
    files = sorted(Path(reference.uri, "checkpoints", "step-00000006").iterdir())
    for file in files:
        for name, damage in DAMAGE.items():
            run = small | {"run": f"{name}-{file.name}"}
            shutil.copytree(reference.uri, Path(small["output"]) / run["run"])
            folder = Path(store_of(run).uri)
            shutil.rmtree(folder / "adapter")
            damage(folder / "checkpoints" / "step-00000006" / file.name)

            child = trials.start(run)
            assert child.wait() == ExitCode.DONE, child.log()
            assert "checkpoint passed over" in child.log(), run["run"]
            attempt = journal_of(store_of(run))["attempts"][-1]
            assert (attempt["first_step"], attempt["last_step"]) == (4, 6), run["run"]
            assert adapter_digest(store_of(run)) == adapter_digest(reference), run["run"]
    kinds = len(files) * len(DAMAGE)
    print(f"\n{kinds} kinds of damage: none was loaded, each run ended with the same adapter")
