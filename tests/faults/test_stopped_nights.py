"""A night that is told to stop while its store does not answer stops, and keeps what is committed."""

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
from tests.faults.nights import check
from tests.faults.s3_proxy import FaultyS3, Request

WAITED_FOR: dict[str, Callable[[Request], bool]] = {
    "a listing": lambda request: "list-type" in request.path,
    "a part of the input": lambda request: (
        request.method == "GET" and "/in/a.jsonl" in request.path
    ),
    "an upload": lambda request: request.path.count(".outcomes") > 0 and request.method == "PUT",
    "a guarded write": lambda request: request.guarded and ".done.json" in request.path,
    "the lease": lambda request: request.guarded and "/lease/" in request.path,
}
COMMITTED = {
    "an upload": 2,
    "a guarded write": 2,
    "the lease": 7,
}  # chunks before the third such request


@pytest.fixture
def patient(on_s3: dict[str, Any]) -> dict[str, Any]:
    """A night whose store is waited for longer than any test runs."""
    return on_s3 | {"storage": on_s3["storage"] | {"timeout_seconds": 3600}}


def stopping(
    process: Callable[[], int], wanted: Callable[[Request], bool], times: int
) -> tuple[Any, threading.Event]:
    """A plan that tells the process to stop at the n-th such request, which is never answered till the event."""
    seen, goes_on = [0], threading.Event()

    def plan(request: Request) -> None:
        if wanted(request):
            seen[0] += 1
            if seen[0] == times:
                os.kill(process(), signal.SIGTERM)
                goes_on.wait()

    return plan, goes_on


def committed(config: dict[str, Any]) -> int:
    return sum(entry.key.endswith(".done.json") for entry in open_store(config["output"]).list())


@pytest.mark.parametrize("what", WAITED_FOR)
def test_a_night_told_to_stop_while_its_store_does_not_answer_stops(
    workers, proxy: FaultyS3, patient, on_s3, what
):
    started, worker = threading.Event(), [0]
    times = 3 if COMMITTED.get(what) == 2 else 1

    def process() -> int:
        started.wait()
        return worker[0]

    plan, goes_on = stopping(process, WAITED_FOR[what], times)
    proxy.reset(plan)
    worker[0] = workers.start(patient)
    started.set()
    assert workers.wait(worker[0]) == ExitCode.RETRY, workers.log.read_text()[-3000:]
    assert committed(on_s3) == COMMITTED.get(what, 0)
    goes_on.set()
    proxy.reset()
    workers.run(on_s3)
    check(on_s3)


def test_the_command_told_to_stop_while_an_upload_hangs_says_so_and_keeps_what_is_committed(
    proxy: FaultyS3, patient, on_s3, base_folder, tmp_path
):
    real = {
        "model": {"base": str(base_folder)},
        "generation": {"max_new_tokens": 2},
        "chunks": {"records": 13},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(patient | real))
    processes: list[subprocess.Popen[str]] = []
    plan, goes_on = stopping(lambda: processes[0].pid, WAITED_FOR["an upload"], 2)
    proxy.reset(plan)
    command = [sys.executable, "-m", "job", "summarize", str(path)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    _, said = processes[0].communicate()
    assert committed(on_s3) == 1
    goes_on.set()
    assert processes[0].returncode == ExitCode.RETRY, said
    assert said.endswith(
        "error: preempted: told to stop before it was done; run the same command again\n"
    )
