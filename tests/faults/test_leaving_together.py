"""Processes of one training end together; two runs of one name do not run together.

The launcher kills the other processes 30 seconds after the first one has left.
"""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.s3_proxy import Request
from tests.faults.trials import journal_of, on_tensorboard, published_folders, store_of
from tests.training.conftest import records, write_jsonl


@pytest.fixture
def two_processes(small_on_s3: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A run of two processes with a checkpoint after each step, and a patient client of S3."""
    data = small_on_s3["data"] | {"train": str(write_jsonl(tmp_path / "more.jsonl", records(24)))}
    steps = {
        "processes": 2,
        "epochs": 9,
        "batch_size": 2,
        "save_every_steps": 1,
        "log_every_steps": 1,
        "evaluate_every_steps": 99,
    }
    training = small_on_s3["training"] | steps
    storage = small_on_s3["storage"] | {"timeout_seconds": 60}
    return small_on_s3 | {"data": data, "training": training, "storage": storage}


def slow_answers(part: str, seconds: float, times: int = 1000) -> Callable[[Request], None]:
    """Return an `after` that delays so many answers to writes of keys that hold `part`."""
    left = iter(range(times))

    def after(request: Request) -> None:
        if request.method == "PUT" and part in request.path and next(left, None) is not None:
            time.sleep(seconds)

    return after


@pytest.mark.faults
@pytest.mark.parametrize("written_late", ["checkpoints/", "run.json"])
def test_a_diverged_training_commits_before_any_process_leaves(
    two_processes, proxy, tmp_path, written_late
):
    two_processes["training"] |= {"learning_rate": 1.0}
    two_processes["limits"] = {"max_gradient_norm": 4, "divergence_steps": 2}
    proxy.reset(after=slow_answers(written_late, 0.5))
    run = RealRun(two_processes, tmp_path)
    assert run.end(run.start()) == ExitCode.BUG, run.log
    assert "beyond the limit" in run.log

    store = store_of(two_processes)
    journal = journal_of(store)
    assert journal["state"] == "failed"
    attempt = journal["attempts"][0]
    assert "DivergedError" in attempt["reason"]
    last_good = attempt["last_step"] - 1
    committed = published_folders(store)
    assert f"checkpoints/step-{last_good:08d}" in committed, "an upload under way has arrived"
    steps = [step for step, _ in on_tensorboard(store, "train/loss")]
    assert steps == list(range(1, attempt["last_step"] + 1)), "and the curve up to there"


@pytest.mark.faults
@pytest.mark.parametrize("signalled", [None, 1])
def test_a_slow_commit_has_the_whole_grace_period(two_processes, proxy, tmp_path, signalled):
    two_processes["training"] |= {"save_every_steps": 1000, "epochs": 200}
    two_processes["limits"] = {"grace_seconds": 110}
    longer_than_the_launcher_waits = 36
    proxy.reset(after=slow_answers("checkpoints/", longer_than_the_launcher_waits, times=1))
    run = RealRun(two_processes, tmp_path)
    assert run.interrupt(2, signal.SIGTERM, signalled) == ExitCode.RETRY, run.log

    journal = journal_of(store_of(two_processes))
    assert journal["state"] == "preempted"
    last = journal["attempts"][0]["last_step"]
    committed = published_folders(store_of(two_processes))
    assert committed.keys() == {f"checkpoints/step-{last:08d}"}
    assert f"with step {last} committed" in run.log, "as the process reports that committed it"


@pytest.mark.faults
def test_a_stop_where_nothing_may_be_saved_says_so(two_processes, proxy, tmp_path):
    two_processes["training"] |= {"epochs": 200}
    # Every gradient is beyond the limit, so that no state is known to be good.
    two_processes["limits"] = {"max_gradient_norm": 1e-9, "divergence_steps": 100_000}
    run = RealRun(two_processes, tmp_path)
    assert run.interrupt(2, signal.SIGTERM) == ExitCode.RETRY, run.log
    store = store_of(two_processes)
    assert not published_folders(store)
    assert "nothing is committed" in run.log
    assert "nothing is committed" in journal_of(store)["attempts"][0]["reason"]


def assert_one_run(config: dict[str, Any]) -> None:
    """Assert that one run finished, and that another one of its name wrote nothing."""
    journal = journal_of(store_of(config))
    assert journal["state"] == "finished"
    assert len(journal["attempts"]) == 1
    assert "adapter" in published_folders(store_of(config))


@pytest.mark.quality
def test_a_run_beside_another_of_its_name_refuses(trials, proxy, small_on_s3, tmp_path):
    is_refused = threading.Event()

    def plan(request: Request) -> None:
        if request.method == "PUT" and "/checkpoints/" in request.path:
            is_refused.wait()

    proxy.reset(plan)
    patient = small_on_s3["storage"] | {"timeout_seconds": 60}
    config = small_on_s3 | {"storage": patient}
    first = trials.start_until(config, lambda log: '"message": "step"' in log)
    second = RealRun(config, tmp_path)
    code = second.end(second.start())
    is_refused.set()
    assert code == ExitCode.RETRY, second.log
    assert "another run" in second.log
    assert first.wait() == ExitCode.DONE, first.log()
    assert_one_run(config)


@pytest.mark.faults
def test_of_two_runs_started_at_once_one_finishes(small_on_s3, tmp_path):
    steps = {"epochs": 40, "save_every_steps": 1000, "evaluate_every_steps": 1000}
    config = small_on_s3 | {"training": small_on_s3["training"] | steps}
    runs = [RealRun(config, tmp_path) for _ in range(2)]
    processes = [run.start() for run in runs]
    logs = {run.end(process): run.log for run, process in zip(runs, processes, strict=True)}
    assert logs.keys() == {ExitCode.DONE, ExitCode.RETRY}, logs
    assert "another run" in logs[ExitCode.RETRY]
    assert_one_run(config)


@pytest.mark.faults
def test_a_node_that_waits_in_vain_says_for_whom(small, tmp_path, monkeypatch):
    main = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29514"}
    for name, value in main.items():
        monkeypatch.setenv(name, value)
    run = RealRun(small | {"limits": {"rendezvous_minutes": 0.05}}, tmp_path)
    assert run.end(run.start()) == ExitCode.RETRY, run.log
    assert "node 1 of 2 never connected" in run.log
