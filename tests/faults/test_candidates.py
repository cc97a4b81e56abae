"""A night with candidates that is killed is, byte for byte, as one that nobody disturbed."""

import pytest

from job.errors import ExitCode
from job.storage.folders import MANIFEST, read_manifest_file
from job.storage.open import open_store
from job.summarization.careful_engine import CRASHED
from tests.faults.nights import KILLED, assert_complete, rows_of, run_until_done

DONE = ExitCode.DONE


def content_of(config):
    """Return the bytes of all lines by file, and the manifest's block of the candidates."""
    store = open_store(config["output"])
    keys = [entry.key for entry in store.list() if entry.key.endswith(".jsonl")]
    block = read_manifest_file(store, MANIFEST).extra["candidates"]
    return {key: store.read(key) for key in keys}, block


@pytest.mark.faults
@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_killed_at_every_candidate_and_every_score(workers, night, judged, shards, then):
    config = judged(night)
    whole = config | {"output": f"{night['output']}-undisturbed"}
    workers.run(whole)
    assert_complete(whole)
    content = content_of(whole)
    assert content[1]["gain"]["mean"] > 0
    call = 0
    codes = [KILLED]
    while KILLED in codes:
        hurt = config | {"output": f"{night['output']}-{call}"}
        codes = [
            workers.wait(workers.start(hurt, f"{index}/{shards}", call)) for index in range(shards)
        ]
        assert set(codes) <= {KILLED, DONE}, workers.end_of_log()
        workers.run(hurt, then)
        assert_complete(hurt)
        assert content_of(hurt) == content
        call += 1
    print(f"\n{shards} shards then {then}: killed at {call - 1} calls")
    assert call > 20 // shards, "three candidates and a scoring of each chunk"


@pytest.mark.faults
@pytest.mark.parametrize("killed", ["judge", "adapter"])
def test_a_record_that_kills_is_rejected_alone(workers, night_with_deadly, judged, killed):
    config = judged(night_with_deadly(27))
    codes = run_until_done(workers, config, deadly_for=killed)
    assert codes[-1] == DONE
    assert set(codes[:-1]) == {KILLED}
    assert len(codes) <= 5
    assert [row["id"] for row in rows_of(config, "rejects")] == ["c27"]
    assert [row["detail"] for row in rows_of(config, "rejects")] == [str(CRASHED)]
    rows = rows_of(config, "parts")
    assert [row["id"] for row in rows] == [f"c{n}" for n in range(50) if n != 27]
    assert all(row["reward"] == row["highest_reward"] for row in rows)
