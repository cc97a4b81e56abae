"""Claims about GPUs that fail for good and processes that die: one record is to blame."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from job.config.candidates_section import NightGenerationSection
from job.conversations.record import Source
from job.errors import MissingError, RetryError, Stopped
from job.inference.each import Failure
from job.inference.engine import Generated
from job.storage.local import LocalStore
from job.summarization.careful_engine import CRASHED, CarefulEngine
from job.summarization.chunk_store import ChunkStore
from job.summarization.crash_notes import CrashNotes, read_crash_notes
from job.summarization.summarize import summarize
from job.summarization.summarizer import SummarizerLoader, open_summarizer
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import (
    conversation,
    files_below,
    read_lines,
    results_below,
    write_lines,
)
from tests.summarization.nights import at_call, summarizer_of

POISON = "poison"
RECORDS = 200


class Gpu:
    """Answers with the size of each batch; fails for good on poison or after `answers`.

    It fails as engines report a GPU (RetryError), or with any other error that lasts.
    """

    context_tokens = 512

    def __init__(
        self, tokenizer: Any, at_once: int, answers: float, error: Callable[[], Exception]
    ) -> None:
        self.tokenizer, self.at_once, self.answers, self.error = tokenizer, at_once, answers, error
        self.is_dead, self.prompts_ahead, self.announced = False, 8, 0

    def generate(
        self, prompts: Sequence[list[int]], settings: Any, on_done: Any = None
    ) -> list[Generated]:
        answers: list[Generated] = []
        for start in range(0, len(prompts), self.at_once):
            batch = prompts[start : start + self.at_once]
            texts = [self.tokenizer.decode(prompt) for prompt in batch]
            self.answers -= len(batch)
            if self.is_dead or self.answers < 0 or any(POISON in text for text in texts):
                self.is_dead = True
                raise self.error()
            answers += [Generated(f"among {len(batch)}", 1, "stop") for _ in batch]
            if on_done:
                on_done(len(batch))
        return answers

    def expect(self, prompts: Sequence[list[int]], settings: Any) -> None:
        self.announced += len(prompts)


def reported_error() -> Exception:
    return RetryError("the GPU failed (device-side assert triggered)")


def other_error() -> Exception:
    return RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED")


def tries(
    config: Any,
    at_once: int = 8,
    answers: float = float("inf"),
    error: Callable[[], Exception] = reported_error,
) -> tuple[list[str], list[Gpu]]:
    """Try until done, or ten times, each time on a new GPU; return the ends and the GPUs."""
    gpus: list[Gpu] = []

    def open_with(config: Any, cache: Any) -> Any:
        real = open_summarizer(config, cache)
        gpus.append(Gpu(real.encoder.tokenizer, at_once, answers, error))
        return replace(real, engine=gpus[-1])

    ends: list[str] = []
    while len(ends) < 10 and ends[-1:] != ["done"]:
        try:
            summarize(config, open_with)
            ends.append("done")
        except RetryError as failed:
            ends.append(str(failed))
    return ends, gpus


@pytest.fixture
def night(config, tmp_path):
    """Some records in chunks of fifty, of which some say the same."""

    def make(*poisonous: int) -> Any:
        texts = [
            f"{POISON} {number}" if number in poisonous else f"my parcel {number % 30}"
            for number in range(RECORDS)
        ]
        write_lines(
            tmp_path / "in.jsonl",
            [conversation(f"c{number}", text) for number, text in enumerate(texts)],
        )
        return config(chunks={"records": 50})

    return make


def rejected(tmp_path: Any) -> list[str]:
    return [row["id"] for row in read_lines(tmp_path / "out/rejects/part-00000.jsonl")]


@pytest.mark.parametrize("error", [reported_error, other_error])
def test_a_record_that_breaks_the_gpu_is_found_and_costs_no_other_summary(night, tmp_path, error):
    ends, gpus = tries(night(29), error=error)
    assert len(ends) == 5, "in its batch, in a small one, and alone, twice; then it is done"
    assert ends[-1] == "done"
    (reject,) = read_lines(tmp_path / "out/rejects/part-00000.jsonl")
    assert (reject["id"], reject["reason"]) == ("c29", "generation_failed")
    assert reject["detail"] == str(CRASHED)
    rows = read_lines(tmp_path / "out/parts/part-00000.jsonl")
    assert [row["id"] for row in rows] == [
        f"c{number}" for number in range(RECORDS) if number != 29
    ]
    assert results_below(tmp_path / "out") == files_below(tmp_path / "out"), "no note stays"
    alone = [row["id"] for row in rows if row["summary"] == "among 1"]
    assert len(alone) == 31, "the others of its small batch, and no others, came one at a time"
    assert [gpu.announced for gpu in gpus] == [100, 50, 0, 0, 0], (
        "of chunks that nobody had begun, which come first"
    )


@pytest.mark.parametrize("error", [reported_error, other_error])
@pytest.mark.parametrize(
    ("second", "attempts"),
    [
        pytest.param(30, 7, id="in the same small batch"),
        pytest.param(45, 8, id="elsewhere in the chunk"),
        pytest.param(80, 8, id="in another chunk, which was read ahead"),
    ],
)
def test_two_records_that_break_the_gpu_are_both_found(night, tmp_path, error, second, attempts):
    ends, _ = tries(night(13, second), error=error)
    assert ends[-1] == "done"
    assert len(ends) == attempts
    assert rejected(tmp_path) == ["c13", f"c{second}"]


@pytest.mark.parametrize("poisonous", [8, 20])
def test_a_model_that_answered_one_batch_is_no_mistake_in_the_config(config, tmp_path, poisonous):
    texts = [
        "my parcel is late and nobody answers",
        *(f"my parcel {number}" for number in range(1, 21)),
    ]
    texts[poisonous] = f"{POISON} {texts[poisonous]}"
    write_lines(
        tmp_path / "in.jsonl",
        [conversation(f"c{number}", text) for number, text in enumerate(texts)],
    )
    ends, _ = tries(config(), at_once=8, error=other_error)
    assert ends[-1] == "done"
    assert rejected(tmp_path) == [f"c{poisonous}"]


def test_a_model_that_answered_in_an_earlier_try_is_no_mistake_in_config(night, tmp_path):
    def stop() -> None:
        raise Stopped

    config = night()
    with pytest.raises(Stopped):  # when one chunk is committed
        summarize(config, stand_in(StandInEngine(at_call(1, stop))))
    assert notes(tmp_path) == []
    with pytest.raises(RetryError, match="answered before"):
        summarize(config, stand_in(StandInEngine(fail_otherwise)))


def fail_otherwise() -> None:
    raise other_error()


@pytest.mark.parametrize("end", [Stopped(), OSError(errno.ENOSPC, "full")])
def test_a_stop_and_a_full_disk_are_no_crash_of_a_record(store, end):
    with pytest.raises(type(end)), CrashNotes(store).records_in_flight(["a"], 1):
        raise end
    assert crashes_left(store) == {}


def test_a_note_that_the_store_did_not_delete_goes_with_the_next(store, tmp_path):
    class Failing(LocalStore):
        fails = True

        def delete(self, key: str) -> None:
            if self.fails:
                raise RetryError("the store is busy")
            super().delete(key)

    failing = Failing(str(tmp_path / "store"))
    notes = CrashNotes(ChunkStore(failing, "c"))
    with notes.records_in_flight(["a"], 1):
        pass
    assert crashes_left(store) == {"a": 1}
    failing.fails = False
    with notes.records_in_flight(["b"], 1):
        pass
    assert crashes_left(store) == {}


def test_a_night_of_one_record_that_breaks_the_gpu_ends(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c0", POISON)])
    ends, _ = tries(config())
    assert (len(ends), ends[-1]) == (5, "done")


@pytest.mark.parametrize("error", [reported_error, other_error])
@pytest.mark.parametrize("answers", [0, 8, 33, 34, 60])
def test_a_gpu_that_fails_whatever_it_is_given_blames_no_record(night, tmp_path, answers, error):
    config = night()
    if (
        answers or error is reported_error
    ):  # else nothing ever tells it from a mistake in the config
        ends, _ = tries(config, answers=answers, error=error)
        assert "done" not in ends or answers == 60
    ends, _ = tries(config)
    assert ends[-1] == "done"
    assert len(read_lines(tmp_path / "out/parts/part-00000.jsonl")) == RECORDS


def notes(tmp_path: Any) -> list[str]:
    """The kinds of notes that are there."""
    kinds = (name.rpartition("/")[2].partition("-")[0] for name in files_below(tmp_path / "out"))
    return sorted(kind for kind in kinds if kind in ("begun", "records"))


def test_a_stopped_night_leaves_no_note(night, tmp_path):
    def stop() -> None:
        raise Stopped

    def fail() -> None:
        raise reported_error()

    config = night()
    with pytest.raises(Stopped):
        summarize(config, stand_in(StandInEngine(stop)))
    assert notes(tmp_path) == []
    for number, left in (
        (0, ["begun"]),
        (0, ["begun"] * 2),  # the chunks that nobody had begun come first
        (0, ["begun"] * 3),
        (0, ["begun"] * 4),  # a greeting
        (1, ["begun"] * 5 + ["records"]),
    ):
        with pytest.raises(RetryError):
            summarize(config, stand_in(StandInEngine(at_call(number, fail))))
        assert notes(tmp_path) == left, "what an error ended at is known"
    with pytest.raises(Stopped):
        summarize(config, stand_in(StandInEngine(stop)))
    assert notes(tmp_path) == left


# How suspects are taken


class Alone:
    """An engine that remembers the prompts of each call, but greetings."""

    prompts_ahead = 0

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def generate(
        self, prompts: Sequence[list[int]], settings: Any, on_done: Any = None
    ) -> list[Generated]:
        if on_done:
            self.calls.append([prompt[0] for prompt in prompts])
            on_done(len(prompts))
        return [Generated(str(prompt[0]), 1, "stop") for prompt in prompts]


@pytest.fixture
def store(tmp_path):
    return ChunkStore(LocalStore(str(tmp_path / "store")), "c")


def crashes_left(store: ChunkStore) -> dict[str, int]:
    """Return the crashes by record, as the next attempt reads them."""
    return read_crash_notes(store).crashes


def ask(store: ChunkStore, numbers: Sequence[int], engine: Any, **crashes: int) -> list[Any]:
    """Answers of a careful engine to prompts of one token each, whose records are named by it."""
    notes = CrashNotes(store)
    notes.crashes = {f"f line {name.strip('_')}": count for name, count in crashes.items()}
    loader = SummarizerLoader(lambda: summarizer_of(engine))
    careful = CarefulEngine(
        loader, NightGenerationSection(), notes, has_answered=True, is_careful=True
    )
    reported: list[int] = []
    prompts = [[number] for number in numbers]
    sources = [Source("f", number) for number in numbers]
    found = careful.generate(prompts, sources, reported.append)
    assert sum(reported) == len(numbers), "progress counts each of them once"
    return [answer if isinstance(answer, Failure) else int(answer.text) for answer in found]


def test_records_in_flight_at_a_crash_come_last_and_alone(store):
    engine = Alone()
    answers = ask(store, range(40), engine, _1=1, _3=0, _4=2, _5=0)
    assert answers == [*range(4), CRASHED, *range(5, 40)]
    others = [number for number in range(40) if number not in (1, 3, 4, 5)]
    assert engine.calls == [others[:32], others[32:], [3], [5], [1]], (
        "those that crashed alone last"
    )


def test_no_crash_is_noted_if_the_model_cannot_answer_a_greeting(store):
    class Mute(Alone):
        def generate(self, *_arguments: Any) -> Any:
            raise RuntimeError("nothing")

    with pytest.raises(RetryError, match="fails on a greeting"):
        ask(store, [0], Mute(), _0=1)
    assert crashes_left(store) == {}


def test_two_workers_alone_on_one_record_at_once_are_one_crash(store):
    notes = CrashNotes(store)
    with (
        notes.records_in_flight(["a", "b"]),
        notes.records_in_flight(["a"], 1),
        notes.records_in_flight(["a"], 1),
    ):
        assert crashes_left(store) == {"a": 1, "b": 0}
        with notes.records_in_flight(["a"], 2):
            assert crashes_left(store) == {"a": 2, "b": 0}
    assert crashes_left(store) == {}


def test_a_note_that_is_deleted_while_it_is_read_is_none(store, tmp_path):
    class Late(LocalStore):
        def read(self, key: str) -> bytes:
            raise MissingError(key)

    with CrashNotes(store).records_in_flight(["a"], 1):
        late = ChunkStore(Late(str(tmp_path / "store")), "c")
        assert read_crash_notes(late).crashes == {}
