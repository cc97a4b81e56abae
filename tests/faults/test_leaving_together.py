"""Two processes that end together, below a launcher that kills the second 30 seconds after the first has left."""

import signal
import time
from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.s3_proxy import FaultyS3, Request
from tests.faults.trials import journal_of, on_tensorboard, published, store_of
from tests.training.conftest import records, write_jsonl


@pytest.fixture
def two(small_on_s3: dict[str, Any], tmp_path) -> dict[str, Any]:
    """Two processes, a checkpoint after each step, and a store that may take a minute for an answer."""
    data = small_on_s3["data"] | {"train": str(write_jsonl(tmp_path / "more.jsonl", records(24)))}
    steps = {"processes": 2, "epochs": 9, "batch_size": 2, "save_every_steps": 1, "log_every_steps": 1}
    training = small_on_s3["training"] | steps | {"evaluate_every_steps": 99}
    storage = small_on_s3["storage"] | {"timeout_seconds": 60}
    return small_on_s3 | {"data": data, "training": training, "storage": storage}


def slow(what: str, seconds: float, times: int = 1000):
    """Hold back the answers to writes of `what`."""
    left = iter(range(times))

    def after(request: Request) -> None:
        if request.method == "PUT" and what in request.path and next(left, None) is not None:
            time.sleep(seconds)

    return after


@pytest.mark.parametrize("written_late", ["checkpoints/", "run.json"])
def test_a_training_that_runs_away_commits_and_tells_before_any_process_leaves(two, proxy, tmp_path, written_late):
    two["training"] |= {"learning_rate": 1.0}
    two["limits"] = {"max_gradient_norm": 4, "divergence_steps": 2}
    proxy.reset(after=slow(written_late, 0.5))
    run = RealRun(two, tmp_path)
    assert run.end(run.start()) == ExitCode.BUG, run.said
    assert "beyond the limit" in run.said
    story = journal_of(store_of(two))
    assert story["state"] == "failed"
    assert "DivergedError" in story["attempts"][0]["reason"]
    steps = [step for step, _ in on_tensorboard(store_of(two), "train/loss")]
    print(published(store_of(two)), story["attempts"][0], steps)
