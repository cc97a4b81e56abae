"""Claims about the outcome of each record, with engines that fail on purpose."""

import errno
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from job.config.candidates_section import NightGenerationSection
from job.config.redaction import RedactionSection
from job.conversations.record import Conversation, Reject, Source, Turn
from job.conversations.redaction import make_redactor
from job.errors import ConfigError, ExitCode, PreemptedError, RetryError
from job.inference.each import Failure, generate_each
from job.inference.engine import Generated
from job.inference.reader import MAX_REDACTED_CHARACTERS
from job.summarization import outcomes
from job.summarization.careful_engine import MIN_FAILURES_ALIKE, CarefulEngine
from job.summarization.outcomes import windows_of
from job.summarization.records import Outcome, Summary
from job.summarization.summarizer import SummarizerLoader
from tests.stand_in import StandInEngine
from tests.summarization.nights import (
    answered,
    prepared,
    record_of,
    results,
    summarizer_of,
    task_of,
)

SETTINGS = NightGenerationSection()


class Engine:
    """Answers each prompt with its first id; fails where `poison` is among the prompts."""

    context_tokens = 100

    def __init__(self, poison: Sequence[int] = (), error: type[Exception] = RuntimeError) -> None:
        self.poison, self.error, self.calls = set(poison), error, 0

    def generate(
        self, prompts: Sequence[list[int]], settings: Any, on_done: Any = None
    ) -> list[Generated]:
        self.calls += 1
        answers = []
        for prompt in prompts:
            if prompt[0] in self.poison:
                raise self.error(f"cannot do {prompt[0]}")
            answers.append(Generated(str(prompt[0]), 1, "stop"))
            if on_done:
                on_done(1)
        return answers


def generated(engine: Engine, count: int) -> tuple[list[str], int]:
    """Text or error of each prompt, and the sum of the progress."""
    reported: list[int] = []
    found = generate_each(engine, [[id] for id in range(count)], SETTINGS, reported.append)
    texts = [answer.text if isinstance(answer, Generated) else str(answer) for answer in found]
    return texts, sum(reported)


@pytest.mark.parametrize("poison", [[0], [99], [41, 42], [3, 50, 97], range(100)])
def test_each_prompt_that_fails_is_found_and_costs_no_other_its_answer(poison):
    found, reported = generated(Engine(poison), 100)
    assert found == [
        f"RuntimeError: cannot do {id}" if id in poison else str(id) for id in range(100)
    ]
    assert reported == 100, "progress counts each prompt once, however often it is generated"


def test_one_failure_costs_few_calls():
    engine = Engine([70])
    generated(engine, 1024)
    assert engine.calls <= 21


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError,
        IndexError,
        FloatingPointError,
        KeyError,
        TypeError,
        AssertionError,
        MemoryError,
        OSError,
    ],
)
def test_whatever_a_record_makes_the_engine_raise_rejects_that_record(error):
    found, _ = generated(Engine([1], error), 3)
    assert found[0::2] == ["0", "2"]
    assert found[1].startswith(error.__name__)


def full_disk(said: str) -> Exception:
    return OSError(errno.ENOSPC, said)


@pytest.mark.parametrize(
    ("error", "raised"), [(PreemptedError, PreemptedError), (full_disk, OSError)]
)
def test_a_stop_and_a_full_disk_end_the_run(error, raised):
    with pytest.raises(raised):
        generated(Engine([1], error), 3)


def bad(line: int) -> Reject:
    return Reject(Source("f", line), "invalid_record", "no")


def short(id: int) -> Conversation:
    return Conversation(f"c{id}", (Turn("customer", "hi"),), Source("f", id))


def sizes(contents: Iterator[Any], task: Any) -> list[int]:
    return [len(window.items) for window in windows_of(0, prepared(contents, task))]


def test_windows_are_bounded_and_keep_the_order():
    items = [Outcome(*record_of(bad(line))) for line in range(2500)]
    found = list(windows_of(7, items))
    most = outcomes.WINDOW_RECORDS
    assert [len(window.items) for window in found] == [most, most, 452]
    assert [item for window in found for item in window.items] == items
    assert [(window.chunk, window.ends_chunk) for window in found] == [
        (7, False),
        (7, False),
        (7, True),
    ]


def test_the_last_window_of_a_chunk_may_be_empty():
    items = [Outcome(*record_of(bad(line))) for line in range(outcomes.WINDOW_RECORDS)]
    assert [(len(w.items), w.ends_chunk) for w in windows_of(0, items)] == [
        (outcomes.WINDOW_RECORDS, False),
        (0, True),
    ]


@pytest.mark.parametrize("prompts_ahead", [0, 1, 700, 1 << 20])
def test_outcomes_come_by_chunk_and_with_the_origin_of_their_record(prompts_ahead):
    engine = StandInEngine()
    engine.prompts_ahead = prompts_ahead
    chunks = [[short(0)], [bad(1), short(2)], [short(n) for n in range(3, 1027)], [bad(1027)]]
    found = list(answered(chunks, task_of(summarizer_of(engine))))
    assert [window.chunk for window in found] == [0, 1, 2, 2, 3]
    assert [window.ends_chunk for window in found] == [True, True, False, True, True]
    pairs = [(o.origin.position.line, o.result.source.line) for w in found for o in w.outcomes]
    assert pairs == [(line, line) for line in range(1028)]
    chunks_of = [(w.chunk, o.origin.chunk) for w in found for o in w.outcomes]
    assert all(window == origin for window, origin in chunks_of)


def test_a_window_holds_no_text_of_its_records():
    def records() -> Iterator[Conversation]:
        for id in range(60):
            said = ("hi", *(f"{id} {number} " + "x" * 50_000 for number in range(20)), "bye")
            turns = tuple(Turn("customer", text) for text in said)
            yield Conversation(f"c{id}", turns, Source("f", id))

    tracemalloc.start()
    found = list(results(records(), task_of(summarizer_of())))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(type(result), result.id) for result in found] == [
        (Summary, f"c{id}") for id in range(60)
    ]
    assert peak < 30 << 20, f"{peak >> 20} MB; the window's records together are 60 MB"


def test_windows_end_where_metadata_or_values_replaced_are_large():
    redactor = make_redactor(RedactionSection())
    task = task_of(summarizer_of(max_input_tokens=1 << 20), redactor=redactor)
    large = outcomes.WINDOW_CHARACTERS // 4
    noted = [
        Conversation(f"c{id}", (Turn("agent", "hi"),), Source("f", id), (), {"note": "x" * large})
        for id in range(8)
    ]
    assert sizes(iter(noted), task) == [4, 4, 0]
    link = Conversation("c", (Turn("agent", "https://x.com/" + "x" * 900_000),), Source("f", 1))
    assert sizes((link for _ in range(20)), task) == [19, 1]


def test_a_conversation_too_large_to_redact_is_too_long():
    redactor = make_redactor(RedactionSection())
    task = task_of(summarizer_of(max_input_tokens=1 << 20), redactor=redactor)
    said = "1 " * (MAX_REDACTED_CHARACTERS // 2)
    (found,) = results([Conversation("c", (Turn("agent", said),), Source("f", 1))], task)
    assert isinstance(found, Reject)
    assert (found.reason, "redaction reads at most 1,000,000" in found.detail) == ("too_long", True)


def failed(name: str, count: int) -> list[Generated | Failure]:
    return [Failure(name, f"of {number}") for number in range(count)]


class Greeted(StandInEngine):
    """Answers a greeting, or raises an error of this type on it; counts the greetings."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        super().__init__()
        self.error = error
        self.greetings = 0

    def generate(self, prompts: Sequence[list[int]], *rest: Any) -> list[Generated]:
        self.greetings += 1
        if self.error:
            raise self.error("not even that")
        return super().generate(prompts, *rest)


def careful(engine: Any, has_answered: bool = False) -> CarefulEngine:
    loader = SummarizerLoader(lambda: summarizer_of(engine))
    return CarefulEngine(loader, SETTINGS, has_answered=has_answered)


@pytest.mark.parametrize(
    ("answers", "on_a_greeting", "said"),
    [
        (
            failed("FloatingPointError", 3),
            None,
            r"model\.dtype: .* each of the first 3 conversations \(FloatingPointError: of 0",
        ),
        (
            failed("OutOfMemoryError", 2),
            None,
            r"lower generation\.max_input_tokens or max_new_tokens, "
            r"set model\.",
        ),
        (failed("FloatingPointError", 1), FloatingPointError, r"model\.dtype.*, and on a greeting"),
        (failed("OutOfMemoryError", 1), RuntimeError, r"lower generation\.max_input_tokens"),
        (
            failed("RuntimeError", 2),
            RuntimeError,
            r"model: it cannot be run as configured.*RuntimeError: of 0",
        ),
        (
            failed("RuntimeError", MIN_FAILURES_ALIKE),
            None,
            r"model: it cannot be run as configured\. It failed on each of the first 8 ",
        ),
        (failed("RuntimeError", 1), ValueError, r"model: it cannot be run as configured"),
        (failed("KeyError", 1), MemoryError, r"model: it cannot be run as configured"),
        (
            [*failed("RuntimeError", 1), *failed("ValueError", 1)],
            RuntimeError,
            r"model: it cannot be run as configured",
        ),
    ],
)
def test_a_model_that_fails_on_all_is_a_mistake_in_the_config(answers, on_a_greeting, said):
    with pytest.raises(ConfigError, match=said) as caught:
        careful(Greeted(on_a_greeting)).check_failures(answers)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_a_mistake_of_recaps_own_that_fails_on_all_is_a_bug():
    with pytest.raises(TypeError):
        careful(Greeted(TypeError)).check_failures(failed("TypeError", 3))


def test_an_error_in_a_librarys_code_is_no_bug_of_recap():
    class Unfit(Greeted):
        def generate(self, prompts: Sequence[list[int]], *rest: Any) -> list[Generated]:
            torch.nn.Linear(1, 1).no_such_layer  # noqa: B018
            return super().generate(prompts, *rest)

    with pytest.raises(ConfigError, match=r"cannot be run as configured.*'no_such_layer'"):
        careful(Unfit()).check_failures(failed("AttributeError", 1))


@pytest.mark.parametrize("has_answered", [True, False])
@pytest.mark.parametrize(
    "answers",
    [
        [],
        failed("RuntimeError", 1),
        failed("RuntimeError", 2),
        failed("OutOfMemoryError", 1),
        [*failed("FloatingPointError", 5), Generated("fine", 1, "stop")],
        [*failed("RuntimeError", 2), *failed("ValueError", 2)],
    ],
)
def test_records_that_fail_do_not_end_the_run_of_a_model_that_answers(answers, has_answered):
    engine = Greeted()
    careful(engine, has_answered).check_failures(answers)
    has_failures = any(isinstance(answer, Failure) for answer in answers)
    assert engine.greetings == int(has_failures), "the model answers a greeting, so it works"


@pytest.mark.parametrize("error", [RuntimeError, TypeError, MemoryError])
@pytest.mark.parametrize(
    ("answers", "has_answered"),
    [
        (failed("OutOfMemoryError", 3), True),
        ([*failed("RuntimeError", 1), Generated("fine", 1, "stop")], False),
    ],
)
def test_a_model_that_stops_answering_in_the_night_is_worth_another_try(
    answers, has_answered, error
):
    with pytest.raises(RetryError, match="answered before, and now fails on a greeting"):
        careful(Greeted(error), has_answered).check_failures(answers)


@pytest.mark.parametrize("is_careful", [False, True])
def test_a_night_rejects_nothing_that_the_model_fails_on_once_it_is_broken(is_careful):
    class Dying(StandInEngine):
        def generate(self, prompts: Sequence[list[int]], *rest: Any) -> list[Generated]:
            if self.prompts >= 1500:  # in the second window
                raise RuntimeError("the device is gone")
            return super().generate(prompts, *rest)

    task = task_of(summarizer_of(Dying()), is_careful=is_careful)
    found: list[Any] = []
    with pytest.raises(RetryError, match="the device is gone"):
        found.extend(results([short(id) for id in range(4000)], task))
    assert all(isinstance(result, Summary) for result in found)


def test_few_windows_wait_for_an_engine_if_they_hold_no_prompts():
    class Ahead(StandInEngine):
        prompts_ahead = 1 << 20

    read: list[int] = []

    def records() -> Iterator[Conversation | Reject]:
        yield short(0)
        for line in range(50 * outcomes.WINDOW_RECORDS):
            read.append(line)
            yield bad(line)

    next(results(records(), task_of(summarizer_of(Ahead()))))
    assert len(read) <= (outcomes.MAX_WINDOWS_AHEAD + 1) * outcomes.WINDOW_RECORDS
