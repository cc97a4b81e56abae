"""A night whose workers are killed, on a store that fails, has each record once and in order."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.open import open_store
from job.summarization.chunk_store import MARKER_SUFFIX
from tests.faults.nights import (
    KILLED,
    Workers,
    assert_complete,
    kill_at,
    number_of_operations,
    run_at_once,
)
from tests.faults.s3_proxy import TRANSIENT_ANSWERS, Fault, FaultyS3, random_faults


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
