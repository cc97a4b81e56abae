"""A night with candidates that is killed is, byte for byte, as one that nobody disturbed."""

import pytest

from job.errors import ExitCode
from job.summarization.careful_engine import CRASHED
from tests.faults.nights import (
    KILLED,
    assert_complete,
    content_of,
    kill_at_each_call,
    rows_of,
    run_until_done,
)

DONE = ExitCode.DONE


@pytest.mark.faults
@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_killed_at_every_candidate_and_every_score(workers, night, judged, shards, then):
    config = judged(night)
    whole = config | {"output": f"{night['output']}-undisturbed"}
    workers.run(whole)
    assert_complete(whole)
    content = content_of(whole, "candidates")
    assert content[1]["gain"]["mean"] > 0
    kills = kill_at_each_call(workers, config, shards, then, "candidates", content)
    print(f"\n{shards} shards then {then}: killed at {kills} calls")
    assert kills >= 20 // shards, "three candidates and a scoring of each chunk"


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
