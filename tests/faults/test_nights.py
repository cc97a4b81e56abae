"""A night whose workers are killed anywhere, and whose store errs, ends with each record once and in order."""

import os
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.open import open_store
from job.summarization.chunk_store import MARKER_SUFFIX
from tests.faults.nights import Workers, check
from tests.faults.s3_proxy import Fault, FaultyS3
from tests.faults.test_faulty_s3 import PASSING, at_random

NIGHTLY = (
    ExitCode.DONE,
    ExitCode.RETRY,
    -signal.SIGKILL,
    -signal.SIGTERM,
)  # the last: before it could be caught


def kill_at(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], number: int, shards: int
) -> bool:
    """Run the shards and kill the worker whose request is the n-th, when it is done but not answered."""
    current = [0]

    def after(request: Any) -> None:
        if request.number == number:
            os.kill(current[0], signal.SIGKILL)

    codes = []
    proxy.reset()
    for index in range(shards):
        before = proxy.requests
        current[0] = workers.start(config, f"{index}/{shards}")
        proxy.after = after
        codes.append(workers.wait(current[0]))
        assert proxy.requests > before
    proxy.reset()
    assert set(codes) <= {ExitCode.DONE, -signal.SIGKILL}, workers.log.read_text()[-3000:]
    return -signal.SIGKILL in codes


def operations(workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int) -> int:
    proxy.reset()
    workers.run(config | {"output": f"{config['output']}-whole"}, shards)
    return proxy.requests


def killed_at(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int, numbers: Any
) -> int:
    kills = 0
    for number in numbers:
        hurt = config | {"output": f"{config['output']}-{number}"}
        kills += kill_at(workers, proxy, hurt, number, shards)
        workers.run(hurt, 2)
        check(hurt)
    return kills


def test_a_night_killed_at_some_operations_is_finished_by_another_number_of_workers(
    workers, proxy, on_s3
):
    count = operations(workers, proxy, on_s3, shards=1)
    assert killed_at(workers, proxy, on_s3, 1, (count // 2, count - 12)) == 2


@pytest.mark.faults
@pytest.mark.parametrize("shards", [1, 3])
def test_a_night_killed_at_every_operation_is_finished_by_another_number_of_workers(
    workers, proxy, on_s3, shards
):
    fewer = on_s3 | {"chunks": {"records": 8}}  # four, one of them over the border of the files
    count = operations(workers, proxy, fewer, shards)
    kills = killed_at(workers, proxy, fewer, shards, range(1, count + 1))
    assert kills >= count * 9 // 10, (
        "the last requests of a night that lost a worker may never come"
    )
    print(
        f"\n{shards} shards, killed at {kills} of {count} operations: each record once, order kept"
    )


@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_a_night_killed_at_every_chunk_is_finished_by_another_number_of_workers(
    workers, night, shards, then
):
    for call in range(
        7 // shards + 1
    ):  # of the first shard, which has one chunk more than the others
        hurt = night | {"output": f"{night['output']}-{call}"}
        codes = [
            workers.wait(workers.start(hurt, f"{index}/{shards}", call)) for index in range(shards)
        ]
        assert set(codes) <= {-signal.SIGKILL, ExitCode.DONE}
        assert call == 7 or -signal.SIGKILL in codes
        workers.run(hurt, then)
        check(hurt)


def together(
    workers: Workers, config: dict[str, Any], shards: int, draw: random.Random | None = None
) -> Counter[str]:
    """All shards at once, and one of them twice; some are told to stop, or killed, at any moment."""
    running = [workers.start(config, f"{index % shards}/{shards}") for index in range(shards + 1)]
    for worker in running if draw else ():
        time.sleep(draw.uniform(0, 0.4))
        if draw.random() < 0.6:
            os.kill(worker, draw.choice([signal.SIGKILL, signal.SIGTERM]))
    codes = [workers.wait(worker) for worker in running]
    assert set(codes) <= set(NIGHTLY), workers.log.read_text()[-3000:]
    return Counter(map(str, codes))


def chunks_done(config: dict[str, Any]) -> int:
    """How many chunks of a night are committed that is not put together yet."""
    return sum(
        entry.key.endswith(MARKER_SUFFIX) for entry in open_store(config["output"]).list("_chunks")
    )


def until_done(workers: Workers, config: dict[str, Any]) -> None:
    for shards in (3, 1, 1):
        if "_SUCCESS" in [entry.key for entry in open_store(config["output"]).list()]:
            break
        together(workers, config, shards)
    workers.run(config)
    check(config)


def test_workers_at_once_on_a_store_that_errs_commit_each_chunk_once(workers, proxy, on_s3):
    proxy.reset(at_random(3, 0.1, [*PASSING[:4]]))
    together(workers, on_s3, 3)
    assert proxy.faults
    proxy.reset()
    until_done(workers, on_s3)


@pytest.mark.faults
def test_workers_at_once_killed_at_random_on_a_store_that_errs(workers, proxy, on_s3):
    ends: Counter[str] = Counter()
    left: Counter[int] = Counter()
    faults = [*PASSING[:4], Fault("status", 409)]
    for seed in range(20):
        draw = random.Random(seed)
        hurt = on_s3 | {"output": f"{on_s3['output']}-{seed}"}
        proxy.reset(at_random(seed, 0.08, faults))
        for _ in range(2):
            ends += together(workers, hurt, draw.choice([1, 2, 3, 5]), draw)
        proxy.reset()
        left[chunks_done(hurt)] += 1
        until_done(workers, hurt)
    print(f"\n20 nights ended {dict(ends)}, with so many chunks left to go on with: {dict(left)}")
    killed, stopped = (ends[str(int(code))] for code in (-signal.SIGKILL, ExitCode.RETRY))
    assert killed >= 20, "kills that come when all is done prove nothing"
    assert stopped >= 10
    assert left.total() - left[0] >= 5, "nights that were under way"
