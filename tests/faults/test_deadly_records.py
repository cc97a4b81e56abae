"""A record that has the system kill whoever summarizes it costs no other its summary, and ends no night."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from job.storage.open import open_store
from job.summarization.careful_engine import CRASHED
from job.summarization.chunk_store import MARKER_SUFFIX
from tests.faults.nights import Workers, outcomes

DEADLY = "a conversation to die of"
KILLED, DONE = -signal.SIGKILL, 0


@pytest.fixture
def deadly(night: dict[str, Any], tmp_path: Path) -> Any:
    """A night of fifty records in chunks of twenty, with a deadly one at each of some places."""

    def make(*places: int) -> dict[str, Any]:
        texts = [
            f"{DEADLY} {place}" if place in places else f"my parcel {place}" for place in range(50)
        ]
        records = [
            {"id": f"c{n}", "turns": [{"role": "customer", "text": text}]}
            for n, text in enumerate(texts)
        ]
        (tmp_path / "deadly.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in records)
        )
        return night | {"input": str(tmp_path / "deadly.jsonl"), "chunks": {"records": 20}}

    return make


def until_done(workers: Workers, config: dict[str, Any], tries: int = 10) -> list[int]:
    """How each try ended."""
    codes = []
    while codes[-1:] != [DONE] and len(codes) < tries:
        codes.append(workers.wait(workers.start(config, deadly=DEADLY)))
    return codes


def test_a_record_that_kills_the_process_is_found_and_rejected(workers: Workers, deadly: Any):
    config = deadly(27)
    # At its chunk; in a small batch; alone, twice.
    assert until_done(workers, config) == [KILLED] * 4 + [DONE]
    (reject,) = outcomes(config, "rejects")
    assert (reject["id"], reject["reason"]) == ("c27", "generation_failed")
    assert reject["detail"] == str(CRASHED)
    assert [row["id"] for row in outcomes(config, "parts")] == [
        f"c{n}" for n in range(50) if n != 27
    ]


def test_other_chunks_are_done_before_one_that_a_process_died_at(workers: Workers, deadly: Any):
    config = deadly(1)
    until_done(workers, config, tries=2)
    done = [
        entry.key
        for entry in open_store(config["output"]).list()
        if entry.key.endswith(MARKER_SUFFIX)
    ]
    assert [key.rpartition("/")[2] for key in done] == [
        f"000001{MARKER_SUFFIX}",
        f"000002{MARKER_SUFFIX}",
    ]


def test_two_of_them_in_one_chunk_are_both_found_within_what_a_scheduler_tries(
    workers: Workers, deadly: Any
):
    config = deadly(21, 38)
    assert until_done(workers, config)[-1] == DONE
    assert [row["id"] for row in outcomes(config, "rejects")] == ["c21", "c38"]


def test_a_prompt_that_the_process_died_on_alone_once_is_not_to_blame(
    workers: Workers, deadly: Any
):
    config = deadly()
    for call in (
        0,
        0,
        1,
        3,
        5,
    ):  # a batch, a small one; then each prompt comes alone, after a greeting
        assert workers.wait(workers.start(config, kill_at_call=call)) == KILLED
    workers.run(config)
    assert len(outcomes(config, "parts")) == 50
