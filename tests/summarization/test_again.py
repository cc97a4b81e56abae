"""Claims about a night that is started twice, beside another one, or once more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.errors import ConfigError, DamagedError, DataError, OutputError, RetryError
from job.summarization.shard import Shard
from job.summarization.summarize import summarize
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import conversation, files_below, read_lines, write_lines
from tests.summarization.nights import FOLDER, at_call, manifest_of, never, run

BAD = ["{broken"] * 3
STRICT = {"max_reject_fraction": 0.05}


def records(count: int, first: int = 0) -> list[Any]:
    return [conversation(f"c{n}", f"late {n}") for n in range(first, first + count)]


def ending(action: Callable[[], Any]) -> type[BaseException] | None:
    try:
        action()
    except (DataError, OutputError, RetryError) as error:
        return type(error)
    return None


@pytest.fixture
def make(config: Callable[..., SummarizeConfig], tmp_path: Path) -> Callable[..., SummarizeConfig]:
    """A night of ten records in chunks of four."""

    def night(lines: list[Any], **keys: Any) -> SummarizeConfig:
        write_lines(tmp_path / "in" / "a.jsonl", lines)
        return config(input=f"{tmp_path}/in/", **{"chunks": {"records": 4}, **keys})

    return night


def said(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    return [record for record in caplog.records if record.getMessage() == message]


@pytest.mark.parametrize("call", range(3))
def test_both_of_a_night_started_twice_end_well_and_leave_no_chunks(make, tmp_path, log, call):
    night = make(records(10))
    run(night, before=at_call(call, lambda: run(night)))
    assert files_below(tmp_path / "out") == FOLDER
    assert manifest_of(tmp_path / "out")["counts"]["summaries"] == 10
    assert len(said(log, "summaries")) == 1, "the metrics of one night are logged once"


@pytest.mark.parametrize("call", range(3))
def test_both_of_a_night_of_too_many_rejects_say_so_and_leave_no_chunks(make, tmp_path, call):
    night = make([*records(9), *BAD], limits=STRICT)
    twin: list[Any] = []
    assert (
        ending(
            lambda: run(
                night, before=at_call(call, lambda: twin.append(ending(lambda: run(night))))
            )
        )
        is DataError
    )
    assert twin == [DataError]
    assert files_below(tmp_path / "out") == FOLDER[1:]


def test_a_night_of_too_many_rejects_is_not_generated_again(make, tmp_path):
    night = make([*records(9), *BAD], limits=STRICT)
    assert ending(lambda: run(night)) is DataError
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    with pytest.raises(
        DataError,
        match=r"3 of 12 records were rejected \(3 invalid_record\).*mend the input.*"
        r"delete the whole output \(parts, rejects, report\.html, manifest\.json\), or name",
    ):
        summarize(night, never)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    for name in ("manifest.json", "report.html"):
        (tmp_path / "out" / name).unlink()
    for path in (tmp_path / "out").rglob("part-*"):
        path.unlink()
    assert ending(lambda: run(night)) is DataError, "with what is there removed, it is"


def test_a_finished_night_under_a_lower_limit_ends_with_65_and_stays(make, tmp_path):
    night = make([*records(9), *BAD], limits={"max_reject_fraction": 1})
    run(night)
    strict = night.model_copy(update={"limits": night.limits.model_copy(update=STRICT)})
    with pytest.raises(DataError, match="under this limit the night is no success"):
        summarize(strict, never)
    assert files_below(tmp_path / "out") == FOLDER


@pytest.mark.parametrize("limits", [STRICT, {"max_reject_fraction": 1}])
@pytest.mark.parametrize("call", range(3))
def test_two_nights_of_other_settings_in_one_output_never_end_with_nothing(
    make, tmp_path, call, limits
):
    lines = [*records(9), *BAD]
    first, other = make(lines, limits=limits), make(lines, prompt={"system": "Be brief."})
    # With too many rejects there is no success, and the other replaces it; else it is refused.
    wanted = OutputError if limits != STRICT else None
    assert (
        ending(lambda: run(other, before=at_call(call, lambda: ending(lambda: run(first)))))
        is wanted
    )
    assert "_SUCCESS" in files_below(tmp_path / "out")
    system = manifest_of(tmp_path / "out")["config"]["prompt"]
    assert (system is not None) is (wanted is None)


def test_a_worker_whose_committed_chunks_are_gone_asks_to_be_run_again(make, tmp_path):
    night = make(records(10))

    def take_away() -> None:
        for path in (tmp_path / "out" / "_chunks").rglob("*.done.json"):
            path.unlink()

    with pytest.raises(RetryError, match="were taken away: run again"):
        run(night, before=at_call(2, take_away))
    run(night)
    assert files_below(tmp_path / "out") == FOLDER


def test_workers_that_recorded_different_inputs_ask_to_be_run_again(make, tmp_path):
    """As on a store that ignores the condition of a guarded write: the later record counts."""
    night = make(records(10))
    write_lines(tmp_path / "in" / "b.jsonl", records(6, 50))

    def record_another() -> None:
        (path,) = (tmp_path / "out" / "_chunks").rglob("input-0001.json")
        path.write_text(path.read_text() + " ")

    with pytest.raises(RetryError, match="recorded another input meanwhile"):
        run(night, before=at_call(0, record_another), shard=Shard(0, 2))
    assert run(night, shard=Shard(0, 2)) + run(night, shard=Shard(1, 2)) == 16
    assert files_below(tmp_path / "out") == FOLDER


def test_records_that_break_the_engine_may_be_the_first_of_all(make, tmp_path):
    lines = [conversation("poison-0", "p" * 900), conversation("poison-1", "p" * 900), *records(50)]

    class Poisoned(StandInEngine):
        def generate(self, prompts: Any, settings: Any, on_done: Any = None) -> Any:
            if any(len(prompt) > 900 for prompt in prompts):
                raise RuntimeError("index out of range in self")
            return super().generate(prompts, settings, on_done)

    counts = summarize(make(lines, chunks={"records": 2}), stand_in(Poisoned()))
    assert (counts.summaries, counts.rejects) == (50, {"generation_failed": 2})
    assert [reject["id"] for reject in read_lines(tmp_path / "out" / FOLDER[3])] == [
        "poison-0",
        "poison-1",
    ]


def test_an_engine_that_breaks_on_everything_is_a_mistake_in_the_config(make, tmp_path):
    def fail() -> None:
        raise RuntimeError("no kernel image is available")

    with pytest.raises(
        ConfigError, match=r"model: it cannot be run as configured.*no kernel image is available"
    ):
        run(make(records(3)), before=fail)
    assert not list((tmp_path / "out").rglob("*.done.json"))


def test_a_late_file_leaves_a_finished_night_done_and_is_named(make, tmp_path, log):
    night = make(records(10))
    run(night)
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    write_lines(tmp_path / "in" / "late.jsonl", records(3, 50))
    assert summarize(night, never).records == 10
    (warning,) = said(
        log,
        "files of the input are not in this finished output: they came later, or were left out "
        "then",
    )
    assert warning.fields == {"count": 1, "files": [f"{tmp_path}/in/late.jsonl"]}
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_a_late_file_beside_a_changed_one_is_something_else(make, tmp_path):
    night = make(records(10))
    run(night)
    write_lines(tmp_path / "in" / "late.jsonl", records(3, 50))
    write_lines(tmp_path / "in" / "a.jsonl", records(11))
    with pytest.raises(OutputError, match=r"a\.jsonl: .*version"):
        summarize(night, never)


def test_an_empty_night_says_so_and_is_done_when_its_files_come(make, tmp_path, log):
    night = make([], limits={"min_records": 0})
    assert run(night) == 0
    (line,) = said(log, "nothing to summarize: 0 records")
    assert line.fields == {
        "output": str(tmp_path / "out"),
        "records": 0,
        "summaries": 0,
        "rejects": 0,
        "skipped": 0,
    }
    assert files_below(tmp_path / "out") == FOLDER
    write_lines(tmp_path / "in" / "late.jsonl", records(3, 50))
    assert run(night) == 3
    assert files_below(tmp_path / "out") == FOLDER


def test_skipped_records_make_no_share_of_rejects_smaller(make, config, tmp_path):
    run(make(records(97), output=str(tmp_path / "one")))
    night = make([*records(97), *BAD], skip_done=str(tmp_path / "one"), limits=STRICT)
    with pytest.raises(DataError, match=r"3 of 3 records were rejected"):
        run(night)
    summarize(
        night.model_copy(
            update={"limits": night.limits.model_copy(update={"max_reject_fraction": 1})}
        ),
        never,
    )
    counts = manifest_of(tmp_path / "out")["counts"]
    assert (counts["skipped"], counts["summaries"], counts["rejects"]) == (
        97,
        0,
        {"invalid_record": 3},
    )


def test_a_damaged_skip_done_is_found_before_a_model_is_loaded(make, tmp_path):
    run(make(records(4), output=str(tmp_path / "one")))
    (tmp_path / "one" / "manifest.json").write_text("{")
    with pytest.raises(DamagedError, match="correct skip_done"):
        summarize(make(records(4), skip_done=str(tmp_path / "one")), never)


def test_a_file_replaced_after_its_last_chunk_is_noticed_before_publishing(make, tmp_path):
    night = make(records(6))
    write_lines(tmp_path / "in" / "b.jsonl", records(6, 50))

    def replace_the_first() -> None:
        write_lines(tmp_path / "in" / "a.jsonl", records(7))

    with pytest.raises(RetryError, match=r"a\.jsonl changed while it was summarized"):
        run(night, before=at_call(2, replace_the_first))
    run(night)
    assert manifest_of(tmp_path / "out")["counts"]["records"] == 13


def test_metrics_of_a_night_killed_before_them_are_logged_by_the_next_try(make, tmp_path, log):
    """Chunks are still there: a kill between the manifest and the metrics leaves them."""
    night = make(records(10))
    for index in (0, 1):
        kept = {p: p.read_bytes() for p in (tmp_path / "out" / "_chunks").rglob("*") if p.is_file()}
        run(night, shard=Shard(index, 2))
    assert kept
    log.clear()
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for _ in range(2):
        assert summarize(night, never).records == 10
    (line,) = said(log, "summaries")
    assert (line.fields["records"], line.fields["summaries"]) == (10, 10)
    assert files_below(tmp_path / "out") == FOLDER
