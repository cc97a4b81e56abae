"""A record at which the system kills the process costs no other record its summary."""

from typing import Any

from job.errors import ExitCode
from job.storage.open import open_store
from job.summarization.careful_engine import CRASHED
from job.summarization.chunk_store import MARKER_SUFFIX
from tests.faults.nights import DEADLY, KILLED, Workers, rows_of, run_until_done

DONE = 0


def test_a_record_that_kills_the_process_is_found_and_rejected(workers, night_with_deadly):
    config = night_with_deadly(27)
    # It kills the process in its chunk; in a small batch; alone, twice.
    assert run_until_done(workers, config) == [KILLED] * 4 + [DONE]
    (reject,) = rows_of(config, "rejects")
    assert (reject["id"], reject["reason"]) == ("c27", "generation_failed")
    assert reject["detail"] == str(CRASHED)
    summarized = [row["id"] for row in rows_of(config, "parts")]
    assert summarized == [f"c{number}" for number in range(50) if number != 27]


def test_other_chunks_are_done_before_the_one_of_a_crash(workers, night_with_deadly):
    config = night_with_deadly(1)
    run_until_done(workers, config, tries=2)
    keys = [entry.key for entry in open_store(config["output"]).list()]
    done = [key.rpartition("/")[2] for key in keys if key.endswith(MARKER_SUFFIX)]
    assert done == [f"000001{MARKER_SUFFIX}", f"000002{MARKER_SUFFIX}"]


def test_two_of_them_in_one_chunk_are_both_found_in_ten_tries(workers, night_with_deadly):
    config = night_with_deadly(21, 38)
    assert run_until_done(workers, config)[-1] == DONE
    assert [row["id"] for row in rows_of(config, "rejects")] == ["c21", "c38"]


def test_a_prompt_at_which_the_process_died_once_is_not_to_blame(workers, night_with_deadly):
    config = night_with_deadly()
    # In a batch; in a small one. Then each prompt is alone in its call, after a canary prompt.
    for call in (0, 0, 1, 3, 5):
        assert workers.wait(workers.start(config, kill_at_call=call)) == KILLED
    workers.run(config)
    assert len(rows_of(config, "parts")) == 50


def killed_while_loading(workers: Workers, config: dict[str, Any], **start: Any) -> int:
    """Start a worker that is killed while it loads the model; return its exit code."""
    return workers.wait(workers.start(config, kill_while_loading=True, **start))


def test_three_kills_while_the_model_is_loaded_are_enough(workers, night_with_deadly):
    config = night_with_deadly()
    codes = [killed_while_loading(workers, config) for _ in range(4)]
    assert codes == [KILLED] * 3 + [ExitCode.CONFIG]
    assert "3 attempts in a row were killed while they loaded the model" in workers.end_of_log()

    # Whoever starts it again, with more memory, has as many attempts.
    assert killed_while_loading(workers, config) == KILLED
    workers.run(config)
    assert len(rows_of(config, "parts")) == 50


def test_kills_while_loading_count_in_a_row(workers, night_with_deadly):
    config = night_with_deadly(1)
    for _ in range(2):
        assert killed_while_loading(workers, config) == KILLED
    assert workers.wait(workers.start(config, deadly=DEADLY)) == KILLED  # this one has loaded it
    for _ in range(2):
        assert killed_while_loading(workers, config) == KILLED
    assert run_until_done(workers, config)[-1] == DONE


def test_kills_of_another_shard_while_loading_do_not_count(workers, night_with_deadly):
    config = night_with_deadly()
    for _ in range(3):
        assert killed_while_loading(workers, config, shard="1/2") == KILLED
    assert workers.wait(workers.start(config, "0/2")) == DONE
    assert killed_while_loading(workers, config, shard="1/2") == ExitCode.CONFIG


def test_workers_that_die_together_while_loading_are_one_attempt(
    workers, night_with_deadly, tmp_path
):
    config = night_with_deadly()
    codes = []
    for start in range(4):
        claims = tmp_path / f"claims-{start}"
        claims.mkdir()
        here = {"RECAP_CLAIMS": str(claims)}
        codes.append([killed_while_loading(workers, config, environment=here) for _ in range(2)])
    assert codes == [[KILLED] * 2] * 3 + [[ExitCode.CONFIG] * 2]
