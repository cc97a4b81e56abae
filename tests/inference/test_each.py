"""Claims about an engine that fails on some prompts: the others get their answers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.config.sections import GenerationSection
from job.errors import ConfigError, RetryError, is_out_of_memory
from job.inference.each import Failure, OneByOne, generate_each
from job.inference.engine import Generated

SETTINGS = GenerationSection()


@pytest.fixture(autouse=True)
def unlogged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No error was logged before."""
    monkeypatch.setattr("job.inference.each._LOGGED", set())


class Fragile:
    """An engine that fails on a prompt with the token 13, and on its whole call."""

    context_tokens, prompts_ahead = 100, 0

    def generate(self, prompts, settings, on_done=None):
        if any(13 in prompt for prompt in prompts):
            raise ValueError("unlucky")
        if on_done:
            on_done(len(prompts))
        return [Generated(f"said {prompt[0]}", 2, "stop") for prompt in prompts]


def asked(engine: Any, prompts: list[list[int]], on_done: Any = lambda _: None) -> Any:
    return OneByOne(engine, SETTINGS).generate(prompts, [], on_done)


def test_prompt_that_breaks_the_engine_costs_no_other_its_answer():
    done: list[int] = []
    prompts = [[1], [2], [13], [4], [5]]
    first, second, failed, *others = asked(Fragile(), prompts, done.append)
    assert [one.text for one in (first, second, *others)] == [f"said {n}" for n in (1, 2, 4, 5)]
    assert failed == Failure("ValueError", "unlucky")
    assert sum(done) == 5


def test_engine_that_answers_nothing_is_a_mistake_in_the_config():
    message = r"none of 2 prompts \(the first: ValueError: unlucky\)"
    with pytest.raises(ConfigError, match=message):
        asked(Fragile(), [[13], [13, 4]])


def test_engine_that_has_answered_may_fail_on_all_later_prompts():
    one_by_one = OneByOne(Fragile(), SETTINGS)
    for prompt in ([1], [13]):
        (answer,) = one_by_one.generate([prompt], [], lambda _: None)
    assert isinstance(answer, Failure)


def test_a_gpu_that_fails_is_no_failure_of_a_prompt():
    def fail(prompts, settings, on_done=None):
        raise RetryError("the GPU failed")

    engine = SimpleNamespace(generate=fail, context_tokens=9)
    with pytest.raises(RetryError):
        asked(engine, [[1], [2]])


def failing(error: Exception, is_bad: Any = lambda prompts: True) -> Any:
    """An engine that raises `error` on calls with these prompts."""

    def generate(prompts: Any, settings: Any, on_done: Any = None) -> list[Generated]:
        if is_bad(prompts):
            raise error
        return [Generated("fine", 1, "stop") for _ in prompts]

    return SimpleNamespace(generate=generate, context_tokens=9)


def test_a_batch_that_is_halved_down_is_logged_once_with_its_error(caplog, capsys):
    answers: list[Any] = []
    for rows in (8, 5):
        error = AttributeError(f"'Layer' of {rows} rows has no attribute 'select'")
        engine = failing(error, lambda prompts: len(prompts) > 1)
        answers += generate_each(engine, [[1]] * rows, SETTINGS, lambda _: None)
    assert [answer.text for answer in answers] == ["fine"] * 13, "each alone has its answer"
    (record,) = caplog.records
    assert record.getMessage() == "a batch failed: its halves are generated apart"
    assert record.fields["error"] == "AttributeError: 'Layer' of 8 rows has no attribute 'select'"
    assert capsys.readouterr().err.count("Traceback") == 1


def test_each_distinct_error_is_logged(caplog):
    for error in (ValueError("a"), KeyError("a"), ValueError("b"), ValueError("a")):
        generate_each(failing(error), [[1]], SETTINGS, lambda _: None)
    assert [record.fields["error"] for record in caplog.records] == [
        "ValueError: a",
        "KeyError: 'a'",
        "ValueError: b",
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_one_failure_whatever_reports_it(error):
    (failure,) = generate_each(failing(error), [[1]], SETTINGS, lambda _: None)
    assert isinstance(failure, Failure)
    assert failure.name in ("OutOfMemoryError", "MemoryError")
    with pytest.raises(ConfigError, match="where it does not fit into memory") as caught:
        asked(failing(error), [[1], [2]])
    assert is_out_of_memory(caught.value.__cause__)
