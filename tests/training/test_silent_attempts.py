"""Claims about a run that is killed again and again from one step: it comes to an end."""

import signal
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from job.config.commands import TrainConfig
from job.errors import ConfigError, ExitCode, PreemptedError
from job.storage.local import LocalStore
from job.training.silent_attempts import FOLDER, note_attempt
from tests.faults.trials import TrialRun, store_of

pytestmark = pytest.mark.usefixtures("places")
KILLED = -signal.SIGKILL


@pytest.fixture
def short(config: dict[str, Any]) -> dict[str, Any]:
    """A run of two steps, with a checkpoint after each."""
    config["training"] |= {"max_steps": 2, "sample_summaries": 0, "save_every_steps": 1}
    return config


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    PartialState(cpu=True)
    return LocalStore(str(tmp_path / "run"))


def notes_in(store: Any) -> list[str]:
    return [entry.key for entry in store.list(FOLDER)]


def leave_notes(store: LocalStore, step: int, count: int) -> None:
    for number in range(count):
        store.write(f"{FOLDER}/{step:08d}-{number:032x}.json", b"{}")


def commit_checkpoint(store: LocalStore, step: int) -> None:
    store.write(f"checkpoints/step-{step:08d}/manifest.json", b"{}")


def test_three_kills_before_a_checkpoint_are_enough(short, trials):
    killed_while_reading = "job.training.prepare:read_examples:kill"
    for _ in range(3):
        assert trials.run(short, BROKEN=killed_while_reading)[0] == KILLED
    code, log = trials.run(short, BROKEN=killed_while_reading)
    assert code == ExitCode.CONFIG
    assert "3 attempts in a row were killed" in log
    assert "before the first checkpoint" in log
    assert "resources.limits.memory" in log
    assert notes_in(store_of(short)) == []


@pytest.mark.faults
def test_kills_while_the_base_is_loaded_are_enough(short, trials):
    short["limits"] = {"max_silent_attempts": 1}
    assert trials.run(short, BROKEN="job.training.build:load_base:kill")[0] == KILLED
    assert trials.run(short)[0] == ExitCode.CONFIG
    # Whoever starts it again, with more memory, has as many attempts.
    assert trials.run(short)[0] == ExitCode.DONE
    assert notes_in(store_of(short)) == []


@pytest.mark.faults
def test_kills_after_new_checkpoints_never_end_a_run(short, trials):
    short["training"] |= {"max_steps": 5}
    for step in range(1, 5):
        killed = TrialRun(short, trials)
        assert killed.interrupt(step + 1, signal.SIGKILL) in (KILLED, ExitCode.DONE)
    assert trials.run(short)[0] == ExitCode.DONE


def test_a_newer_checkpoint_makes_earlier_kills_void(store):
    leave_notes(store, step=0, count=3)
    commit_checkpoint(store, 5)
    with note_attempt(store, 3):
        (own,) = notes_in(store)
    assert own.startswith(f"{FOLDER}/00000005-")


def test_kills_from_one_checkpoint_count_whatever_came_before(store):
    commit_checkpoint(store, 5)
    leave_notes(store, step=5, count=3)
    with pytest.raises(ConfigError, match="after step 5, where they began"), note_attempt(store, 3):
        raise AssertionError("it began")
    assert notes_in(store) == []


@pytest.mark.parametrize("error", [PreemptedError("a stop"), ValueError("a bug"), SystemExit(1)])
def test_an_attempt_that_ends_by_itself_does_not_count(store, error):
    leave_notes(store, step=0, count=2)
    with pytest.raises(type(error)), note_attempt(store, 3):
        raise error
    assert len(notes_in(store)) == 2, "the kills before it still count"


def test_an_attempt_that_finishes_leaves_no_note(store):
    leave_notes(store, step=0, count=2)
    with note_attempt(store, 3):
        pass
    assert notes_in(store) == []


def test_without_a_limit_no_kill_is_the_last(store):
    leave_notes(store, step=0, count=50)
    with note_attempt(store, None):
        assert len(notes_in(store)) == 51


def test_files_of_others_in_the_folder_stay(store):
    store.write(f"{FOLDER}/notes.txt", b"mine")
    commit_checkpoint(store, 1)
    with note_attempt(store, 3):
        pass
    assert notes_in(store) == [f"{FOLDER}/notes.txt"]


def test_the_limit_is_no_part_of_the_runs_identity(short):
    from job.training.journal import fingerprint

    limited = TrainConfig.model_validate(short | {"limits": {"max_silent_attempts": 9}})
    assert fingerprint(limited, {}) == fingerprint(TrainConfig.model_validate(short), {})
