"""A night that is stopped while its store does not answer stops, and keeps what is committed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from job.errors import ExitCode
from job.storage.open import open_store
from tests.faults.nights import assert_complete
from tests.faults.s3_proxy import FaultyS3, Request


def is_listing(request: Request) -> bool:
    return "list-type" in request.path


def is_read_of_the_input(request: Request) -> bool:
    return request.method == "GET" and "/in/a.jsonl" in request.path


def is_upload(request: Request) -> bool:
    return request.method == "PUT" and ".outcomes" in request.path


def is_guarded_write(request: Request) -> bool:
    return request.guarded and ".done.json" in request.path


def is_lease(request: Request) -> bool:
    return request.guarded and "/lease/" in request.path


# The request that is not answered: which one, the how manieth, and the chunks committed before it.
UNANSWERED: dict[str, tuple[Callable[[Request], bool], int, int]] = {
    "a listing": (is_listing, 1, 0),
    "a part of the input": (is_read_of_the_input, 1, 0),
    "an upload": (is_upload, 3, 2),
    "a guarded write": (is_guarded_write, 3, 2),
    "the lease": (is_lease, 1, 7),
}


@pytest.fixture
def patient(night_on_s3: dict[str, Any]) -> dict[str, Any]:
    """A night that waits for its store longer than any test runs."""
    return night_on_s3 | {"storage": night_on_s3["storage"] | {"timeout_seconds": 3600}}


class StopAt:
    """A plan that stops a process at the n-th such request, and leaves that without an answer."""

    def __init__(self, is_wanted: Callable[[Request], bool], times: int) -> None:
        self._is_wanted = is_wanted
        self._left = times
        self._is_started = threading.Event()
        self._may_answer = threading.Event()
        self._process = 0

    def stop(self, process: int) -> None:
        """Name the process to stop."""
        self._process = process
        self._is_started.set()

    def release(self) -> None:
        """Answer the request."""
        self._may_answer.set()

    def __call__(self, request: Request) -> None:
        if not self._is_wanted(request):
            return
        self._left -= 1
        if self._left == 0:
            self._is_started.wait()  # the first request may come before the test has the number
            os.kill(self._process, signal.SIGTERM)
            self._may_answer.wait()


def committed_chunks(config: dict[str, Any]) -> int:
    return sum(entry.key.endswith(".done.json") for entry in open_store(config["output"]).list())


@pytest.mark.parametrize("unanswered", UNANSWERED)
def test_a_night_stopped_while_its_store_does_not_answer_stops(
    workers, proxy: FaultyS3, patient, night_on_s3, unanswered
):
    is_wanted, times, committed = UNANSWERED[unanswered]
    plan = StopAt(is_wanted, times)
    proxy.reset(plan)
    worker = workers.start(patient)
    plan.stop(worker)
    assert workers.wait(worker) == ExitCode.RETRY, workers.end_of_log()
    assert committed_chunks(night_on_s3) == committed

    plan.release()
    proxy.reset()
    workers.run(night_on_s3)
    assert_complete(night_on_s3)


def test_the_command_stopped_while_an_upload_hangs_keeps_what_is_committed(
    proxy: FaultyS3, patient, night_on_s3, base_folder, tmp_path
):
    real = {
        "model": {"base": str(base_folder)},
        "generation": {"max_new_tokens": 2},
        "chunks": {"records": 13},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(patient | real))
    plan = StopAt(is_upload, times=2)
    proxy.reset(plan)
    command = [sys.executable, "-m", "job", "summarize", str(path)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    plan.stop(process.pid)
    _, log = process.communicate()
    assert committed_chunks(night_on_s3) == 1
    plan.release()
    assert process.returncode == ExitCode.RETRY, log
    stopped = "stopped before it finished; run the same command again"
    assert log.endswith(f"error: preempted: {stopped}\n")
