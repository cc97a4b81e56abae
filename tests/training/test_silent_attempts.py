"""Claims about a run that is killed again and again from one step: it comes to an end."""

import signal
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from job.config.commands import TrainConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, ExitCode, PreemptedError
from job.launch.attempt_note import settle
from job.launch.cluster import LOOPBACK
from job.launch.outcome import Outcome
from job.storage.local import LocalStore
from job.training.silent_attempts import FOLDER, note_attempt
from tests.faults.real import RealRun
from tests.faults.trials import STEP, TrialRun, store_of

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


@pytest.mark.parametrize("limit", [1, pytest.param(3, marks=pytest.mark.faults)])
def test_kills_before_a_checkpoint_are_enough(short, trials, limit: int):
    if limit != 3:  # the default
        short["limits"] = {"max_silent_attempts": limit}
    killed_while_reading = "job.training.prepare:read_examples_once:kill"
    for _ in range(limit):
        assert trials.run(short, BROKEN=killed_while_reading)[0] == KILLED
    code, log = trials.run(short, BROKEN=killed_while_reading)
    assert code == ExitCode.CONFIG
    assert f"{limit} attempts in a row were killed" in log
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


@pytest.fixture
def long(short) -> dict[str, Any]:
    """A run of two processes that takes long and has no checkpoint; one silent attempt ends it."""
    short["training"] |= {"max_steps": 5000, "save_every_steps": 5000, "log_every_steps": 1}
    short["limits"] = {"max_silent_attempts": 1}
    return short


@pytest.mark.faults
def test_a_process_that_is_killed_beside_the_first_counts(long, tmp_path):
    long["training"]["processes"] = 2
    run = RealRun(long, tmp_path)
    assert run.interrupt(1, signal.SIGTERM) == ExitCode.RETRY, run.log
    assert notes_in(store_of(long)) == [], "a stop does not count"
    assert run.interrupt(1, signal.SIGKILL, trainer=1) == ExitCode.RETRY, run.log
    assert len(notes_in(store_of(long))) == 1, run.log
    assert run.end(run.start()) == ExitCode.CONFIG, run.log
    assert "1 attempts in a row were killed" in run.log


@pytest.mark.faults
def test_a_node_that_is_killed_beside_the_first_counts(long, tmp_path, monkeypatch):
    nodes = [RealRun(long | {"run": "nodes"}, tmp_path) for _ in range(2)]

    def start(rank: int) -> Any:
        variables = {"WORLD_SIZE": 2, "RANK": rank, "MASTER_ADDR": LOOPBACK, "MASTER_PORT": 29516}
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("RECAP_WORK", str(tmp_path / f"work-{rank}"))
        return nodes[rank].start()

    first, second = start(0), start(1)
    for line in first.stderr:
        if STEP.search(line):
            for member in nodes[1].family():
                member.kill()
            break
    assert nodes[0].end(first) == ExitCode.RETRY, nodes[0].log
    nodes[1].end(second)
    assert len(notes_in(store_of(long | {"run": "nodes"}))) == 1, nodes[0].log
    first, second = start(0), start(1)
    for node, process in zip(nodes, (first, second), strict=True):
        assert node.end(process) == ExitCode.CONFIG, node.log


STOP = Outcome(ExitCode.RETRY, "stopped by a signal", "signal")
LOST = Outcome(ExitCode.RETRY, "node 1 is gone", silent=True)


@pytest.mark.parametrize(("outcome", "notes"), [(STOP, 0), (LOST, 1)])
def test_of_several_processes_the_outcome_of_all_decides(
    store, tmp_path, monkeypatch, outcome: Outcome, notes: int
):
    monkeypatch.setattr(PartialState(), "num_processes", 2)
    with pytest.raises(PreemptedError), note_attempt(store, 3, tmp_path):
        raise PreemptedError("a stop, whoever asked for it")
    assert len(notes_in(store)) == 1, "rank 0 cannot know"
    settle(tmp_path, outcome, str(tmp_path / "run"), StorageSection())
    assert len(notes_in(store)) == notes


def test_a_newer_checkpoint_makes_earlier_kills_void(store, tmp_path):
    leave_notes(store, step=0, count=3)
    commit_checkpoint(store, 5)
    with note_attempt(store, 3, tmp_path):
        (own,) = notes_in(store)
    assert own.startswith(f"{FOLDER}/00000005-")


def test_kills_from_one_checkpoint_count_whatever_came_before(store, tmp_path):
    commit_checkpoint(store, 5)
    leave_notes(store, step=5, count=3)
    with (
        pytest.raises(ConfigError, match="after step 5, where they began"),
        note_attempt(store, 3, tmp_path),
    ):
        raise AssertionError("it began")
    assert notes_in(store) == []


@pytest.mark.parametrize("error", [PreemptedError("a stop"), ValueError("a bug"), SystemExit(1)])
def test_an_attempt_that_ends_by_itself_does_not_count(store, error, tmp_path):
    leave_notes(store, step=0, count=2)
    with pytest.raises(type(error)), note_attempt(store, 3, tmp_path):
        raise error
    assert len(notes_in(store)) == 2, "the kills before it still count"


def test_an_attempt_that_finishes_leaves_no_note(store, tmp_path):
    leave_notes(store, step=0, count=2)
    with note_attempt(store, 3, tmp_path):
        pass
    assert notes_in(store) == []


def test_without_a_limit_no_kill_is_the_last(store, tmp_path):
    leave_notes(store, step=0, count=50)
    with note_attempt(store, None, tmp_path):
        assert len(notes_in(store)) == 51


def test_files_of_others_in_the_folder_stay(store, tmp_path):
    store.write(f"{FOLDER}/notes.txt", b"mine")
    commit_checkpoint(store, 1)
    with note_attempt(store, 3, tmp_path):
        pass
    assert notes_in(store) == [f"{FOLDER}/notes.txt"]


def test_the_limit_is_no_part_of_the_runs_identity(short):
    from job.training.journal import fingerprint

    limited = TrainConfig.model_validate(short | {"limits": {"max_silent_attempts": 9}})
    assert fingerprint(limited, {}) == fingerprint(TrainConfig.model_validate(short), {})
