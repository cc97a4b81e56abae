"""A night with a challenger that is killed is, byte for byte, as one that nobody disturbed."""

import json
import random

import pytest

from job.conversations.read import id_digest
from job.errors import ExitCode
from job.storage.folders import MANIFEST, read_manifest_file
from job.storage.open import open_store
from job.summarization.careful_engine import CRASHED
from job.summarization.challenger import Choice
from tests.faults.nights import (
    KILLED,
    assert_complete,
    content_of,
    kill_at,
    kill_at_each_call,
    number_of_operations,
    rows_of,
    run_at_once,
    run_until_done,
)

SHADOW = {"shadow": 0.5}
CANARY = {"canary": 0.5}
DONE = ExitCode.DONE
OPERATIONS = 8  # of S3, over the whole night


def block_of(config):
    return read_manifest_file(open_store(config["output"]), MANIFEST).extra["challenger"]


@pytest.fixture
def undisturbed(workers):
    """Return a function that runs a night like this one elsewhere, and returns its content."""

    def run(config):
        whole = config | {"output": f"{config['output']}-undisturbed"}
        workers.run(whole)
        assert_complete(whole)
        content = content_of(whole, "challenger")
        block = content[1]
        assert block["counts"]["summaries"]
        assert block["beside"]["counts"]["summaries"]
        return content

    return run


def assert_same(config, content):
    assert_complete(config)
    assert content_of(config, "challenger") == content


@pytest.mark.faults
@pytest.mark.parametrize("how", [SHADOW, CANARY])
@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_killed_at_every_call_of_an_engine(
    workers, night, challenged, undisturbed, how, shards, then
):
    config = challenged(night, **how)
    content = undisturbed(config)
    kills = kill_at_each_call(workers, config, shards, then, "challenger", content)
    print(f"\n{how}, {shards} shards then {then}: killed at {kills} calls")
    assert kills >= 10 // shards, "both engines have calls"


@pytest.mark.faults
@pytest.mark.parametrize("how", [SHADOW, CANARY])
def test_killed_at_operations_of_s3(workers, proxy, night_on_s3, challenged, undisturbed, how):
    fewer = night_on_s3 | {"chunks": {"records": 8}}
    config = challenged(fewer, **how)
    content = undisturbed(config)
    count = number_of_operations(workers, proxy, config, shards=1)
    numbers = range(count // OPERATIONS, count + 1, count // OPERATIONS)
    kills = 0
    for number in numbers:
        hurt = config | {"output": f"{config['output']}-{number}"}
        kills += kill_at(workers, proxy, hurt, number, shards=1)
        workers.run(hurt, 2)
        assert_same(hurt, content)
    print(f"\n{how}: {kills} kills at {list(numbers)} of {count} operations")
    assert kills >= len(numbers) - 1


@pytest.mark.faults
@pytest.mark.parametrize("how", [SHADOW, CANARY])
def test_killed_at_random_moments(workers, night, challenged, undisturbed, how):
    config = challenged(night, **how)
    content = undisturbed(config)
    kills = 0
    for seed in range(6):
        draw = random.Random(seed)
        hurt = config | {"output": f"{night['output']}-{seed}"}
        for _ in range(2):
            kills += run_at_once(workers, hurt, draw.choice([1, 2, 3]), draw)[KILLED]
        for shards in (draw.choice([1, 2, 3]), 1):
            run_at_once(workers, hurt, shards)
        workers.run(hurt)
        assert_same(hurt, content)
    print(f"\n{how}: {kills} kills")
    assert kills >= 5


def chosen_in_the_second_chunk(is_chosen):
    choice = Choice("canary", CANARY["canary"], 0)
    return next(n for n in range(22, 40) if choice.has(id_digest(f"c{n}")) == is_chosen)


def ids(rows):
    return [row["id"] for row in rows]


def shadow_of(config):
    content = open_store(config["output"]).read("shadow.jsonl")
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.faults
def test_a_record_that_kills_only_in_shadow_costs_no_line(workers, night_with_deadly, challenged):
    config = challenged(night_with_deadly(27), shadow=1.0)
    codes = run_until_done(workers, config, deadly_for="challenger")
    assert codes == [KILLED] * 4 + [DONE]
    assert ids(rows_of(config, "parts")) == [f"c{n}" for n in range(50)]
    assert rows_of(config, "rejects") == []
    (reject,) = [row for row in shadow_of(config) if "reason" in row]
    assert (reject["id"], reject["reason"], reject["detail"]) == (
        "c27",
        "generation_failed",
        str(CRASHED),
    )
    assert len(shadow_of(config)) == 50


@pytest.mark.faults
@pytest.mark.parametrize("deadly_for", ["adapter", None])
def test_a_record_that_kills_the_adapter_is_not_tried_in_shadow(
    workers, night_with_deadly, challenged, deadly_for
):
    config = challenged(night_with_deadly(27), shadow=1.0)
    codes = run_until_done(workers, config, deadly_for=deadly_for)
    assert codes == [KILLED] * 4 + [DONE]
    assert ids(rows_of(config, "rejects")) == ["c27"]
    assert [row["id"] for row in shadow_of(config) if "reason" in row] == ["c27"]
    assert len(rows_of(config, "parts")) == 49


@pytest.mark.faults
@pytest.mark.parametrize("writer", ["adapter", "challenger"])
def test_a_deadly_record_of_a_canary_is_rejected_alone(
    workers, night_with_deadly, challenged, writer
):
    number = chosen_in_the_second_chunk(is_chosen=writer == "challenger")
    config = challenged(night_with_deadly(number), **CANARY)
    codes = run_until_done(workers, config, deadly_for=writer)
    assert codes == [KILLED] * 4 + [DONE]
    assert [row["detail"] for row in rows_of(config, "rejects")] == [str(CRASHED)]
    assert ids(rows_of(config, "rejects")) == [f"c{number}"]
    assert ids(rows_of(config, "parts")) == [f"c{n}" for n in range(50) if n != number]
    block = block_of(config)
    failed = block if writer == "challenger" else block["beside"]
    assert failed["counts"]["rejects"] == {"generation_failed": 1}
