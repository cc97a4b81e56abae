"""A night whose workers are killed, on a store that fails, has each record once and in order."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.open import open_store
from job.summarization.chunk_store import MARKER_SUFFIX
from tests.faults.nights import Workers, assert_complete
from tests.faults.s3_proxy import TRANSIENT_ANSWERS, Fault, FaultyS3, Request, random_faults

KILLED = -signal.SIGKILL
STOPPED_BEFORE_ITS_HANDLER = -signal.SIGTERM
ALLOWED = {ExitCode.DONE, ExitCode.RETRY, KILLED, STOPPED_BEFORE_ITS_HANDLER}


def kill_at(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], number: int, shards: int
) -> bool:
    """Run the shards in turn, and kill the worker when its n-th request is done but not answered.

    Return True if a worker was killed.
    """
    current = 0

    def after(request: Request) -> None:
        if request.number == number:
            os.kill(current, signal.SIGKILL)

    codes = []
    proxy.reset()
    for index in range(shards):
        before = proxy.requests
        current = workers.start(config, f"{index}/{shards}")
        proxy.after = after
        codes.append(workers.wait(current))
        assert proxy.requests > before
    proxy.reset()
    assert set(codes) <= {ExitCode.DONE, KILLED}, workers.end_of_log()
    return KILLED in codes


def number_of_operations(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int
) -> int:
    """Run a night undisturbed and return the number of its requests."""
    proxy.reset()
    workers.run(config | {"output": f"{config['output']}-whole"}, shards)
    return proxy.requests


def kill_and_finish(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int, numbers: Iterable[int]
) -> int:
    """Kill a night at each operation and finish it with two workers; return the number of kills."""
    kills = 0
    for number in numbers:
        hurt = config | {"output": f"{config['output']}-{number}"}
        kills += kill_at(workers, proxy, hurt, number, shards)
        workers.run(hurt, 2)
        assert_complete(hurt)
    return kills


def test_a_night_killed_at_some_operations_is_finished_by_other_workers(
    workers, proxy, night_on_s3
):
    count = number_of_operations(workers, proxy, night_on_s3, shards=1)
    assert kill_and_finish(workers, proxy, night_on_s3, 1, (count // 2, count - 12)) == 2


@pytest.mark.faults
@pytest.mark.parametrize("shards", [1, 3])
def test_a_night_killed_at_every_operation_is_finished_by_other_workers(
    workers, proxy, night_on_s3, shards
):
    fewer = night_on_s3 | {"chunks": {"records": 8}}  # four, one over the border of the files
    count = number_of_operations(workers, proxy, fewer, shards)
    kills = kill_and_finish(workers, proxy, fewer, shards, range(1, count + 1))
    # The last requests of a night that lost a worker may never come.
    assert kills >= count * 9 // 10
    killed = f"{shards} shards, killed at {kills} of {count} operations"
    print(f"\n{killed}: each record once, order kept")


@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_a_night_killed_at_every_chunk_is_finished_by_other_workers(workers, night, shards, then):
    chunks_of_the_first_shard = 7 // shards + 1
    for call in range(chunks_of_the_first_shard):
        hurt = night | {"output": f"{night['output']}-{call}"}
        codes = [
            workers.wait(workers.start(hurt, f"{index}/{shards}", call)) for index in range(shards)
        ]
        assert set(codes) <= {KILLED, ExitCode.DONE}
        assert call == 7 or KILLED in codes
        workers.run(hurt, then)
        assert_complete(hurt)


def run_at_once(
    workers: Workers, config: dict[str, Any], shards: int, draw: random.Random | None = None
) -> Counter[int]:
    """Run all shards at once, and the first one twice; return the number of ends by exit code.

    With `draw`, stop or kill some of them at random moments.
    """
    running = [workers.start(config, f"{index % shards}/{shards}") for index in range(shards + 1)]
    for worker in running if draw else ():
        time.sleep(draw.uniform(0, 0.4))
        if draw.random() < 0.6:
            os.kill(worker, draw.choice([signal.SIGKILL, signal.SIGTERM]))
    codes = [workers.wait(worker) for worker in running]
    assert set(codes) <= ALLOWED, workers.end_of_log()
    return Counter(codes)


def chunks_left(config: dict[str, Any]) -> int:
    """Return the number of committed chunks that are not yet put together."""
    return sum(
        entry.key.endswith(MARKER_SUFFIX) for entry in open_store(config["output"]).list("_chunks")
    )


def finish(workers: Workers, config: dict[str, Any]) -> None:
    """Run until the night is done, and assert that it is complete."""
    for shards in (3, 1, 1):
        if "_SUCCESS" in [entry.key for entry in open_store(config["output"]).list()]:
            break
        run_at_once(workers, config, shards)
    workers.run(config)
    assert_complete(config)


def test_workers_at_once_on_a_failing_store_commit_each_chunk_once(workers, proxy, night_on_s3):
    proxy.reset(random_faults(3, 0.1, TRANSIENT_ANSWERS))
    run_at_once(workers, night_on_s3, 3)
    assert proxy.faults
    proxy.reset()
    finish(workers, night_on_s3)


@pytest.mark.faults
def test_workers_at_once_killed_at_random_on_a_failing_store(workers, proxy, night_on_s3):
    ends: Counter[int] = Counter()
    left: Counter[int] = Counter()
    faults = [*TRANSIENT_ANSWERS, Fault("status", 409)]
    for seed in range(20):
        draw = random.Random(seed)
        hurt = night_on_s3 | {"output": f"{night_on_s3['output']}-{seed}"}
        proxy.reset(random_faults(seed, 0.08, faults))
        for _ in range(2):
            ends += run_at_once(workers, hurt, draw.choice([1, 2, 3, 5]), draw)
        proxy.reset()
        left[chunks_left(hurt)] += 1
        finish(workers, hurt)
    print(f"\n20 nights ended {dict(ends)}, with so many chunks to resume from: {dict(left)}")
    assert ends[KILLED] >= 20, "kills that come when all is done prove nothing"
    assert ends[ExitCode.RETRY] >= 10
    assert left.total() - left[0] >= 5, "nights that were under way"
