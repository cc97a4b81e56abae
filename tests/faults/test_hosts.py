"""Two hosts that share nothing but S3: what they train together, and what becomes of one when the other ends."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.conftest import S3
from tests.faults.real import RealRun
from tests.faults.trials import STEP, adapter_digest, journal_of, logged, store_of
from tests.launch.hosts import Host, two_hosts, why_not

pytestmark = [pytest.mark.faults, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]
A_MINUTE = 60.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Host], str]]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture
def hosts(network: tuple[list[Host], str]) -> list[Host]:
    return network[0]


@pytest.fixture(scope="module")
def s3_endpoint(network: tuple[list[Host], str]) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(network[1], 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def shared(small: dict[str, Any], s3: S3, base_folder: Path) -> dict[str, Any]:
    """The small run with everything on S3, long enough to be met in the middle."""
    from job.storage.open import open_store

    store = open_store(s3.uri)
    for file in base_folder.iterdir():
        store.upload(file, f"base/{file.name}")
    for split, path in small["data"].items():
        store.upload(Path(path), f"data/{split}.jsonl")
    places = {split: f"{s3.uri}/data/{split}.jsonl" for split in small["data"]}
    training = small["training"] | {"batch_size": 2, "epochs": 6, "log_every_steps": 1}
    return small | {
        "model": {"base": f"{s3.uri}/base"}, "data": places, "output": f"{s3.uri}/runs", "training": training,
    }  # fmt: skip


def batch(hosts: list[Host]) -> list[dict[str, str]]:
    """What AWS Batch tells the nodes; the main one does not hear its own address."""
    told = [
        {
            "AWS_BATCH_JOB_NUM_NODES": "2",
            "AWS_BATCH_JOB_NODE_INDEX": str(n),
            "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
            "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": hosts[0].address,
        }
        for n in range(2)
    ]
    del told[0]["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"]
    return told


def indexed_job(hosts: list[Host]) -> list[dict[str, str]]:
    """What an Indexed Job of Kubernetes tells its pods, with what our manifest adds."""
    return [
        {"JOB_COMPLETION_INDEX": str(n), "RECAP_NODES": "2", "RECAP_MAIN_ADDRESS": hosts[0].address}
        for n in range(2)
    ]


def start(hosts: list[Host], config: dict[str, Any], told: list[dict[str, str]]) -> None:
    for host, environment in zip(hosts, told, strict=True):
        host.start(config, environment)


def ends(hosts: list[Host]) -> list[int]:
    return [host.started[-1].wait() for host in hosts]


def wait_for_step(host: Host, step: int) -> None:
    """Until the training has come so far since this was called."""
    begun = host.log.stat().st_size
    while True:
        assert host.started[-1].poll() is None, host.log.read_text(encoding="utf-8")
        found = STEP.findall(host.log.read_text(encoding="utf-8")[begun:])
        if found and int(found[-1]) >= step:
            return
        time.sleep(0.05)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What has been found out once for all of these tests."""
    return {}


def assert_as_on_one_host(config: dict[str, Any], folder: Path, known: dict[str, Any]) -> None:
    """The same training by two processes on one host ends with the same adapter, and the same logged numbers."""
    if not known:
        whole = config | {"run": "whole", "training": config["training"] | {"processes": 2}}
        RealRun(whole, folder).finish()
        known |= {"adapter": adapter_digest(store_of(whole)), "logged": logged(store_of(whole))}
    assert adapter_digest(store_of(config)) == known["adapter"], "byte for byte"
    assert logged(store_of(config)) == known["logged"], "and every logged number"


@pytest.mark.parametrize("told", [batch, indexed_job])
def test_two_hosts_end_like_one_with_two_processes(hosts, shared, tmp_path, known, told):
    start(hosts, shared, told(hosts))
    assert ends(hosts) == [ExitCode.DONE, ExitCode.DONE], hosts[0].log.read_text(encoding="utf-8")
    assert journal_of(store_of(shared))["facts"]["processes"] == 2
    assert_as_on_one_host(shared, tmp_path, known)
    start(hosts, shared, told(hosts))
    assert ends(hosts) == [ExitCode.DONE, ExitCode.DONE], "already done"
    assert len(journal_of(store_of(shared))["attempts"]) == 1


@pytest.mark.parametrize("told", [batch, indexed_job])
@pytest.mark.parametrize("gone", [0, 1])
def test_a_host_that_disappears_ends_the_other_and_both_go_on_later(
    hosts, shared, tmp_path, known, gone, told
):
    start(hosts, shared, told(hosts))
    wait_for_step(hosts[0], 5)
    hosts[gone].disappear()
    missed = time.monotonic()
    assert hosts[1 - gone].started[-1].wait() == ExitCode.RETRY
    seconds = time.monotonic() - missed
    print(f"\nhost {gone} gone: the other one ended after {seconds:.0f} s")
    hosts[gone].started[-1].wait()
    hosts[gone].come_back()
    start(hosts, shared, told(hosts))
    assert ends(hosts) == [ExitCode.DONE, ExitCode.DONE], hosts[0].log.read_text(encoding="utf-8")
    assert journal_of(store_of(shared))["attempts"][-1]["first_step"] >= 2, (
        "it went on from a checkpoint"
    )
    assert_as_on_one_host(shared, tmp_path, known)
    assert seconds < A_MINUTE


@pytest.mark.parametrize("told_to_stop", [1, 0])
def test_a_stop_signal_to_one_host_stops_both_at_one_step(
    hosts, shared, tmp_path, known, told_to_stop
):
    start(hosts, shared, indexed_job(hosts))
    wait_for_step(hosts[0], 4)  # the next one is neither saved nor evaluated unless it is the last
    hosts[told_to_stop].started[-1].send_signal(signal.SIGTERM)
    assert ends(hosts) == [ExitCode.RETRY, ExitCode.RETRY], hosts[0].log.read_text(encoding="utf-8")
    stopped = journal_of(store_of(shared))
    assert stopped["state"] == "preempted"
    start(hosts, shared, indexed_job(hosts))
    assert ends(hosts) == [ExitCode.DONE, ExitCode.DONE], hosts[0].log.read_text(encoding="utf-8")
    attempts = journal_of(store_of(shared))["attempts"]
    assert attempts[1]["first_step"] == attempts[0]["last_step"], "nothing was lost"
    assert_as_on_one_host(shared, tmp_path, known)
