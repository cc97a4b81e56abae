"""Processes that end together, below a launcher that kills the others 30 seconds after the first has left; and two runs
of one name, which do not get together."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.s3_proxy import Request
from tests.faults.trials import journal_of, on_tensorboard, published, store_of
from tests.training.conftest import records, write_jsonl


@pytest.fixture
def two(small_on_s3: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two processes, a checkpoint after each step, and a store that may take a minute for an answer."""
    data = small_on_s3["data"] | {"train": str(write_jsonl(tmp_path / "more.jsonl", records(24)))}
    steps = {
        "processes": 2,
        "epochs": 9,
        "batch_size": 2,
        "save_every_steps": 1,
        "log_every_steps": 1,
    }
    training = small_on_s3["training"] | steps | {"evaluate_every_steps": 99}
    storage = small_on_s3["storage"] | {"timeout_seconds": 60}
    return small_on_s3 | {"data": data, "training": training, "storage": storage}


def slow(what: str, seconds: float, times: int = 1000) -> Callable[[Request], None]:
    """Hold back the answers to writes of `what`."""
    left = iter(range(times))

    def after(request: Request) -> None:
        if request.method == "PUT" and what in request.path and next(left, None) is not None:
            time.sleep(seconds)

    return after


@pytest.mark.faults
@pytest.mark.parametrize("written_late", ["checkpoints/", "run.json"])
def test_a_training_that_runs_away_commits_and_tells_before_any_process_leaves(
    two, proxy, tmp_path, written_late
):
    two["training"] |= {"learning_rate": 1.0}
    two["limits"] = {"max_gradient_norm": 4, "divergence_steps": 2}
    proxy.reset(after=slow(written_late, 0.5))
    run = RealRun(two, tmp_path)
    assert run.end(run.start()) == ExitCode.BUG, run.said
    assert "beyond the limit" in run.said
    story = journal_of(store_of(two))
    assert story["state"] == "failed"
    assert "DivergedError" in story["attempts"][0]["reason"]
    saved = f"checkpoints/step-{story['attempts'][0]['last_step'] - 1:08d}"  # the last gradients that were good
    assert saved in published(store_of(two)), "what was on its way has arrived"
    steps = [step for step, _ in on_tensorboard(store_of(two), "train/loss")]
    assert steps == list(range(1, story["attempts"][0]["last_step"] + 1)), (
        "and the curve up to there"
    )


@pytest.mark.faults
@pytest.mark.parametrize("told", [None, 1])
def test_a_commit_that_takes_longer_than_a_launcher_waits_has_the_whole_grace_period(
    two, proxy, tmp_path, told
):
    two["training"] |= {"save_every_steps": 1000, "epochs": 200}
    two["limits"] = {"grace_seconds": 110}
    proxy.reset(after=slow("checkpoints/", 36, times=1))
    run = RealRun(two, tmp_path)
    assert run.interrupt(2, signal.SIGTERM, told) == ExitCode.RETRY, run.said
    story = journal_of(store_of(two))
    last = story["attempts"][0]["last_step"]
    assert story["state"] == "preempted"
    assert published(store_of(two)).keys() == {f"checkpoints/step-{last:08d}"}
    assert f"with step {last} committed" in run.said, "as the process tells that committed it"


@pytest.mark.faults
def test_a_stop_where_nothing_may_be_saved_does_not_say_that_it_was(two, proxy, tmp_path):
    two["training"] |= {"epochs": 200}
    two["limits"] = {
        "max_gradient_norm": 1e-9,
        "divergence_steps": 100_000,
    }  # every gradient is under suspicion
    run = RealRun(two, tmp_path)
    assert run.interrupt(2, signal.SIGTERM) == ExitCode.RETRY, run.said
    assert not published(store_of(two))
    assert "nothing is committed" in run.said
    assert "nothing is committed" in journal_of(store_of(two))["attempts"][0]["reason"]


def test_of_two_runs_of_one_name_at_once_one_finishes_and_the_other_refuses(small_on_s3, tmp_path):
    small_on_s3["training"] |= {
        "epochs": 40,
        "save_every_steps": 1000,
        "evaluate_every_steps": 1000,
    }
    runs = [RealRun(small_on_s3, tmp_path) for _ in range(2)]
    started = [run.start() for run in runs]
    said = {run.end(process): run.said for run, process in zip(runs, started, strict=True)}
    assert said.keys() == {ExitCode.DONE, ExitCode.RETRY}, said
    assert "another run" in said[ExitCode.RETRY]
    story = journal_of(store_of(small_on_s3))
    assert story["state"] == "finished"
    assert len(story["attempts"]) == 1, "the other one wrote nothing"
    assert "adapter" in published(store_of(small_on_s3))
