"""Two hosts that share nothing but S3 train together, and one of them ends with the other."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.open import open_store
from tests.conftest import S3
from tests.faults.real import RealRun
from tests.faults.trials import STEP, adapter_digest, journal_of, logged, store_of
from tests.launch.hosts import Host, two_hosts, why_not
from tests.storage.s3_server import running_s3

pytestmark = [pytest.mark.faults, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

MAX_SECONDS_AFTER_A_HOST_IS_GONE = 60.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Host], str]]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture
def hosts(network: tuple[list[Host], str]) -> list[Host]:
    return network[0]


@pytest.fixture(scope="module")
def s3_endpoint(network: tuple[list[Host], str]) -> Iterator[str]:
    with running_s3(network[1]) as endpoint:
        yield endpoint


@pytest.fixture
def shared(small: dict[str, Any], s3: S3, base_folder: Path) -> dict[str, Any]:
    """The small run with everything on S3, long enough to be interrupted in the middle."""
    store = open_store(s3.uri)
    for file in base_folder.iterdir():
        store.upload(file, f"base/{file.name}")
    for split, path in small["data"].items():
        store.upload(Path(path), f"data/{split}.jsonl")
    return small | {
        "model": {"base": f"{s3.uri}/base"},
        "data": {split: f"{s3.uri}/data/{split}.jsonl" for split in small["data"]},
        "output": f"{s3.uri}/runs",
        "training": small["training"] | {"batch_size": 2, "epochs": 6, "log_every_steps": 1},
    }


Scheduler = Callable[[list[Host]], list[dict[str, str]]]


def batch(hosts: list[Host]) -> list[dict[str, str]]:
    """Return the variables that AWS Batch sets on each node; the main one lacks its own address."""
    variables = [
        {
            "AWS_BATCH_JOB_NUM_NODES": "2",
            "AWS_BATCH_JOB_NODE_INDEX": str(index),
            "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
            "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": hosts[0].address,
        }
        for index in range(2)
    ]
    del variables[0]["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"]
    return variables


def indexed_job(hosts: list[Host]) -> list[dict[str, str]]:
    """Return the variables of an Indexed Job of Kubernetes, with those of our manifest."""
    address = hosts[0].address
    return [
        {"JOB_COMPLETION_INDEX": str(index), "RECAP_NODES": "2", "RECAP_MAIN_ADDRESS": address}
        for index in range(2)
    ]


def start(hosts: list[Host], config: dict[str, Any], scheduler: Scheduler) -> None:
    for host, environment in zip(hosts, scheduler(hosts), strict=True):
        host.start(config, environment)


def assert_end(hosts: list[Host], code: ExitCode, why: str = "") -> None:
    """Wait for the end of both and assert that it has this exit code."""
    codes = [host.started[-1].wait() for host in hosts]
    assert codes == [code, code], why or hosts[0].log.read_text(encoding="utf-8")


def wait_for_step(host: Host, step: int) -> None:
    """Block until the log reports the step, after what it holds now."""
    begun = host.log.stat().st_size
    while True:
        assert host.started[-1].poll() is None, host.log.read_text(encoding="utf-8")
        found = STEP.findall(host.log.read_text(encoding="utf-8")[begun:])
        if found and int(found[-1]) >= step:
            return
        time.sleep(0.05)


@pytest.fixture(scope="module")
def on_one_host() -> dict[str, Any]:
    """The result of two processes on one host, which the first test that needs it fills in."""
    return {}


def assert_as_on_one_host(config: dict[str, Any], folder: Path, result: dict[str, Any]) -> None:
    """Assert that the run has the adapter and the numbers of two processes on one host."""
    if not result:
        whole = config | {"run": "whole", "training": config["training"] | {"processes": 2}}
        RealRun(whole, folder).finish()
        result["adapter"] = adapter_digest(store_of(whole))
        result["logged"] = logged(store_of(whole))
    assert adapter_digest(store_of(config)) == result["adapter"], "byte for byte"
    assert logged(store_of(config)) == result["logged"], "and every logged number"


@pytest.mark.parametrize("scheduler", [batch, indexed_job])
def test_two_hosts_end_like_one_with_two_processes(hosts, shared, tmp_path, on_one_host, scheduler):
    start(hosts, shared, scheduler)
    assert_end(hosts, ExitCode.DONE)
    assert journal_of(store_of(shared))["facts"]["processes"] == 2
    assert_as_on_one_host(shared, tmp_path, on_one_host)
    start(hosts, shared, scheduler)
    assert_end(hosts, ExitCode.DONE, "already done")
    assert len(journal_of(store_of(shared))["attempts"]) == 1


@pytest.mark.parametrize("scheduler", [batch, indexed_job])
@pytest.mark.parametrize("gone", [0, 1])
def test_a_host_that_disappears_ends_the_other_and_both_resume(
    hosts, shared, tmp_path, on_one_host, gone, scheduler
):
    start(hosts, shared, scheduler)
    wait_for_step(hosts[0], 5)
    hosts[gone].disappear()
    missed = time.monotonic()
    assert hosts[1 - gone].started[-1].wait() == ExitCode.RETRY
    seconds = time.monotonic() - missed
    print(f"\nhost {gone} gone: the other one ended after {seconds:.0f} s")
    hosts[gone].started[-1].wait()
    hosts[gone].come_back()

    start(hosts, shared, scheduler)
    assert_end(hosts, ExitCode.DONE)
    resumed = journal_of(store_of(shared))["attempts"][-1]
    assert resumed["first_step"] >= 2, "it resumed from a checkpoint"
    assert_as_on_one_host(shared, tmp_path, on_one_host)
    assert seconds < MAX_SECONDS_AFTER_A_HOST_IS_GONE


@pytest.mark.parametrize("signalled", [1, 0])
def test_a_stop_signal_to_one_host_stops_both_at_one_step(
    hosts, shared, tmp_path, on_one_host, signalled
):
    start(hosts, shared, indexed_job)
    wait_for_step(hosts[0], 4)  # the next one is neither saved nor evaluated unless it is the last
    hosts[signalled].started[-1].send_signal(signal.SIGTERM)
    assert_end(hosts, ExitCode.RETRY)
    assert journal_of(store_of(shared))["state"] == "preempted"

    start(hosts, shared, indexed_job)
    assert_end(hosts, ExitCode.DONE)
    attempts = journal_of(store_of(shared))["attempts"]
    assert attempts[1]["first_step"] == attempts[0]["last_step"], "nothing was lost"
    assert_as_on_one_host(shared, tmp_path, on_one_host)
