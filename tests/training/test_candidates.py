"""Claims about the candidates of a selection: which are kept, and that a resumed run has them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from job.errors import RetryError
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.storage.local import LocalStore
from job.training import checkpoints
from job.training.candidates import Candidates, kept_evaluations

NAN = float("nan")
LIMIT = 3


def evaluations_of(losses: list[float]) -> list[dict[str, float]]:
    return [
        {"step": step, "epoch": step / 10, "eval_loss": loss} for step, loss in enumerate(losses, 1)
    ]


def steps_of(losses: list[float], limit: int = LIMIT) -> list[float]:
    return [each["step"] for each in kept_evaluations(evaluations_of(losses), limit)]


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ([], []),
        ([5], [1]),
        ([5, 4, 3], [1, 2, 3]),
        ([5, 4, 3, 6], [2, 3, 4]),  # the last one in any case
        ([5, 3, 3, 3, 3], [2, 3, 5]),  # the earlier of equal ones
        ([1, 9, NAN], [1, 2]),
        ([NAN, math.inf, 2], [3]),
    ],
)
def test_the_last_evaluation_and_those_of_the_smallest_losses_are_kept(losses, wanted):
    assert steps_of(losses) == wanted


def test_what_was_dropped_once_is_never_wanted_again():
    losses = list(np.random.default_rng(0).uniform(size=40))
    ever: set[float] = set()
    dropped: set[float] = set()
    for count in range(1, len(losses) + 1):
        kept = set(steps_of(losses[:count]))
        assert not kept & dropped
        ever |= kept
        dropped = ever - kept


class Training:
    """A training that writes a candidate and a checkpoint at steps of a test's choice."""

    def __init__(self, folder: Path, store: Any) -> None:
        self.folder = folder
        self.store = store
        self.candidates = Candidates(store, folder / "candidates", LIMIT)
        self.history: list[dict[str, float]] = []

    def evaluate(self, step: int, loss: float, weight: float) -> None:
        self.history.append({"step": step, "epoch": step / 10, "eval_loss": loss})
        save_file({"w": np.array([weight])}, self.candidates.new_file(step))
        self.candidates.drop_unsaved(self.history)

    def save(self, step: int) -> None:
        checkpoint = self.folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        state = json.dumps({"log_history": [{"loss": 1.0, "step": 1}, *self.history]})
        (checkpoint / "trainer_state.json").write_text(state, encoding="utf-8")
        self.candidates.saved_step = step
        self.candidates.commit(checkpoint)
        checkpoints.publish_checkpoint(checkpoint, self.store, step, {})
        checkpoints.prune(self.store, 2, step)
        self.candidates.prune(checkpoint)

    def resumed(self, folder: Path, step: int) -> "Training":
        """Return another process, which begins with the checkpoint of a step."""
        other = Training(folder, self.store)
        state = json.loads(self.store.read(f"checkpoints/step-{step:08d}/trainer_state.json"))
        other.history = [each for each in state["log_history"] if "eval_loss" in each]
        return other

    def collected(self) -> dict[int, float]:
        """Return the weight of each candidate, by step."""
        found = self.candidates.collect(self.history)
        return {each.step: load_file(each.weights)["w"].item() for each in found}

    def stored(self) -> set[str]:
        return {entry.key.split("/")[1] for entry in self.store.list("candidates")}


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path / "one", LocalStore(str(tmp_path / "store")))


def test_a_resumed_run_has_the_candidates_of_an_uninterrupted_one(training, tmp_path):
    for step, loss in [(1, 5.0), (2, 4.0), (3, 3.0)]:
        training.evaluate(step, loss, weight=step)
    training.save(3)
    resumed = training.resumed(tmp_path / "two", 3)
    for each in (training, resumed):
        each.evaluate(4, 2.0, weight=4)
        each.save(4) if each is resumed else None
    assert resumed.collected() == training.collected() == {2: 2.0, 3: 3.0, 4: 4.0}


def test_candidates_are_bounded_here_and_in_storage(training):
    for step in range(1, 15):
        training.evaluate(step, loss=100.0 - step, weight=step)
        assert len(list((training.folder / "candidates").iterdir())) <= 2 * LIMIT + 5
        if step % 5 == 0:
            training.save(step)
            # Each of two checkpoints may be the one that a run resumes from.
            assert len(training.stored()) <= 2 * LIMIT
    assert training.collected() == {12: 12.0, 13: 13.0, 14: 14.0}


def test_an_older_checkpoint_still_has_its_candidates(training, tmp_path):
    for step in range(1, 7):
        training.evaluate(step, loss=10.0 - step, weight=step)
        if step % 3 == 0:
            training.save(step)
    older = training.resumed(tmp_path / "two", 3)
    assert older.collected() == {1: 1.0, 2: 2.0, 3: 3.0}


def test_what_follows_a_roll_back_replaces_the_candidates_of_before(training):
    training.evaluate(1, 5.0, weight=1)
    training.save(1)
    training.evaluate(2, 90.0, weight=666)  # diverging
    rolled = training.resumed(training.folder, 1)
    assert rolled.collected() == {1: 1.0}
    rolled.evaluate(2, 4.0, weight=2)
    rolled.save(2)
    assert rolled.collected() == {1: 1.0, 2: 2.0}


def test_a_candidate_of_another_training_is_left_out(training, tmp_path, caplog):
    training.evaluate(1, 5.0, weight=1)
    training.evaluate(2, 4.0, weight=2)
    training.save(2)
    other = training.resumed(tmp_path / "two", 2)
    other.history[0]["eval_loss"] = 7.0
    assert other.collected() == {2: 2.0}
    assert "a candidate is left out of the selection" in caplog.text


def test_a_damaged_candidate_is_left_out(training, tmp_path, caplog):
    training.evaluate(1, 5.0, weight=1)
    training.evaluate(2, 4.0, weight=2)
    training.save(2)
    training.store.write(f"candidates/step-00000001/{ADAPTER_WEIGHTS}", b"short")
    assert training.resumed(tmp_path / "two", 2).collected() == {2: 2.0}
    assert "a candidate is left out of the selection" in caplog.text


def test_candidates_that_cannot_be_deleted_end_nothing(training, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RetryError("503")

    training.evaluate(1, 5.0, weight=1)
    training.save(1)
    stale = "step-00000009"  # of before a roll-back
    training.store.write(f"candidates/{stale}/{ADAPTER_WEIGHTS}", b"")
    checkpoint = training.folder / "checkpoint-1"
    with monkeypatch.context() as broken:
        broken.setattr(LocalStore, "delete", fail)
        training.candidates.prune(checkpoint)
    assert "the next commit tries again" in caplog.text
    assert training.stored() == {"step-00000001", stale}
    training.candidates.prune(checkpoint)
    assert training.stored() == {"step-00000001"}
