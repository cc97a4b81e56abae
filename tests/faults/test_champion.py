"""A champion is switched by one of several processes, and a killed night follows one to its end."""

import os
import signal
import threading
from collections import Counter
from queue import Queue

import pytest

from job.config.sections import StorageSection
from job.errors import ExitCode
from job.model.champion import read_pointer
from job.storage.folders import read_manifest
from job.storage.open import open_store
from tests.champions import promote, put_adapter, put_lora
from tests.faults.nights import assert_complete, rows_of
from tests.faults.s3_proxy import Request

RIVALS = 4
KILLED = -signal.SIGKILL


class Starting:
    """Holds the writes to a pointer until as many as there are rivals wait, then lets all through.

    However long a rival takes to come: one that is gone is noticed by its exit code.
    """

    def __init__(self) -> None:
        self.are_all_there = threading.Event()
        self.waiting = threading.Semaphore(RIVALS - 1)

    def plan(self, request: Request) -> None:
        if request.method == "PUT" and request.path.endswith("support.json"):
            if not self.waiting.acquire(blocking=False):
                self.are_all_there.set()
            self.are_all_there.wait()


@pytest.fixture
def pointer(s3):
    return f"{s3.uri}/champions/support.json"


@pytest.mark.parametrize(
    "first", [pytest.param("without a champion", marks=pytest.mark.faults), "with one"]
)
def test_of_promotions_at_once_one_wins_and_the_others_are_told(
    workers, proxy, s3, pointer, tmp_path, places, first
):
    before = 1 if first == "with one" else 0
    adapters = [f"{s3.uri}/runs/{name}/adapter" for name in range(before + RIVALS)]
    for number, adapter in enumerate(adapters):
        put_lora(adapter, tmp_path / str(number), rank=number + 1)
    if before:
        promote(pointer, adapters[0])
    proxy.reset(Starting().plan)
    rivals = []
    for adapter in adapters[before:]:
        words = ["champion", "set", pointer, adapter]
        rivals.append(workers.command(words, {"AWS_ENDPOINT_URL": proxy.endpoint}))
    codes = Counter(workers.wait(rival) for rival in rivals)
    assert codes == {ExitCode.DONE: 1, ExitCode.OUTPUT: RIVALS - 1}, workers.end_of_log()
    found = read_pointer(pointer, StorageSection())
    assert (found.champion.version, len(found.history)) == (before + 1, before)
    told = [line for line in workers.log.read_text().splitlines() if "somebody else" in line]
    assert len(told) >= RIVALS - 1
    assert all(f"{found.champion.adapter} is the champion" in line for line in told[1 - RIVALS :])


@pytest.fixture
def following(night_on_s3, s3, pointer, tmp_path):
    """The night on S3 with a pointer to the first of two adapters, and a switch to the other."""
    adapters = [f"{s3.uri}/runs/{name}/adapter" for name in ("a", "b")]
    digests = [put_adapter(uri, tmp_path / uri[-9]) for uri in adapters]
    promote(pointer, adapters[0])
    return (
        night_on_s3 | {"adapter": pointer, "model": {}},
        digests,
        lambda: promote(pointer, adapters[1]),
    )


def writers_of(config):
    """Return the digests of the adapters that wrote a complete night, with the manifest's."""
    assert_complete(config)
    manifest = read_manifest(open_store(config["output"]), "").extra
    digests = {row["adapter"] for row in rows_of(config, "parts")}
    return digests | {manifest["champion"]["digest"], manifest["identity"]["weights"]["adapter"]}


def kill_at(workers, proxy, config, is_moment, switch):
    """Switch the champion and kill the worker when a request is done but not answered."""
    started: Queue[int] = Queue()
    hits = []

    def after(request):
        if not hits and is_moment(request):
            hits.append(request)
            switch()
            os.kill(started.get(), signal.SIGKILL)

    proxy.reset(after=after)
    worker = workers.start(config)
    started.put(worker)
    code = workers.wait(worker)
    proxy.reset()
    return code


@pytest.mark.faults
@pytest.mark.parametrize(
    ("moment", "champion"),
    [
        ("the pointer is read", 1),
        ("the pin is written", 0),
        ("a chunk is committed", 0),
    ],
)
def test_a_killed_night_goes_on_with_the_champion_that_it_pinned(
    workers, proxy, following, moment, champion
):
    config, digests, switch = following
    is_moment = {
        "the pointer is read": lambda request: request.path.endswith("champions/support.json"),
        "the pin is written": lambda r: r.method == "PUT" and "/champion-" in r.path,
        "a chunk is committed": lambda request: request.path.endswith(".done.json"),
    }[moment]
    assert kill_at(workers, proxy, config, is_moment, switch) == KILLED, workers.end_of_log()
    workers.run(config, 2)
    assert writers_of(config) == {digests[champion]}
    workers.run(config)
    assert writers_of(config) == {digests[champion]}, "again: nothing to do"


@pytest.mark.faults
def test_shards_at_once_follow_one_champion(workers, proxy, following):
    config, digests, switch = following
    reads = []

    def after(request: Request) -> None:
        if request.method == "GET" and request.path.endswith("champions/support.json"):
            reads.append(request)
            if len(reads) == 1:  # the first shard has read it, and the others will
                switch()

    proxy.reset(after=after)
    shards = [workers.start(config, f"{index}/3") for index in range(3)]
    assert {workers.wait(shard) for shard in shards} == {ExitCode.DONE}, workers.end_of_log()
    proxy.reset()
    (writer,) = writers_of(config)
    assert writer in digests


@pytest.mark.faults
def test_a_night_killed_at_every_operation_follows_one_champion(
    workers, proxy, following, s3, pointer
):
    config, digests, _ = following
    config |= {"chunks": {"records": 8}}  # four
    proxy.reset()
    workers.run(config | {"output": f"{config['output']}-whole"})
    followed: Counter[int] = Counter()
    count = proxy.requests
    for number in range(1, count + 1):
        hurt = config | {"output": f"{config['output']}-{number}"}
        before = read_pointer(pointer, StorageSection()).champion.digest
        other = digests[1 - digests.index(before)]
        uri = f"{s3.uri}/runs/{'ab'[digests.index(other)]}/adapter"
        kill_at(
            workers,
            proxy,
            hurt,
            lambda request, number=number: request.number == number,
            lambda uri=uri: promote(pointer, uri),
        )
        workers.run(hurt, 2)
        (writer,) = writers_of(hurt)
        followed[writer == before] += 1
    print(
        f"\nkilled at {count} operations, each with a switch: {dict(followed)} follow the old one"
    )
    assert followed[True] > count // 2
    assert followed[False] > 0
