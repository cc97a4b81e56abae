"""Claims about the thread in which a worker prepares the next window."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from job.summarization import background
from job.summarization.background import Background, run_here
from job.summarization.summarize import summarize
from tests.stand_in import StandInEngine, StandInTokenizer, stand_in
from tests.summarization.conftest import conversation, write_lines


class WatchedTokenizer(StandInTokenizer):
    """Remembers the thread of each call."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.third_call = threading.Event()

    def __call__(self, texts: Sequence[str], **keys: Any) -> dict[str, Any]:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == 3:
            self.third_call.set()
        return super().__call__(texts, **keys)


def test_the_next_window_is_prepared_while_the_engine_answers(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation(f"c{n}") for n in range(8)])
    tokenizer = WatchedTokenizer()
    overlapped = []
    engine = StandInEngine(lambda: overlapped.append(tokenizer.third_call.wait(60)))
    engine.prompts_ahead = 1  # it answers the first window once the second one is announced
    counts = summarize(config(chunks={"records": 2}), stand_in(engine, tokenizer))
    assert counts.summaries == 8
    assert overlapped == [True] * 4
    assert tokenizer.threads == ["prepare"] * 4


def test_a_call_runs_beside_this_thread_and_its_result_is_waited_for():
    may_end = threading.Event()

    def call() -> str:
        assert may_end.wait(60)
        return threading.current_thread().name

    future = Background[str]().start(call)
    assert not future.done()
    may_end.set()
    assert future.result() == "prepare"
    assert run_here(lambda: threading.current_thread()).result() is threading.current_thread()


def test_an_error_of_the_call_is_raised_where_its_result_is_asked_for():
    future = Background[int]().start(partial(int, "seven"))
    with pytest.raises(ValueError, match="seven"):
        future.result()
    with pytest.raises(ValueError, match="seven"):
        run_here(partial(int, "seven"))


def test_the_end_waits_for_the_last_call_but_not_for_ever(monkeypatch):
    started = Background[int]()
    started.end()
    future = started.start(lambda: 7)
    started.end()
    assert future.done()

    monkeypatch.setattr(background, "MAX_SECONDS_TO_END", 0.01)
    may_end = threading.Event()
    stuck = started.start(lambda: 7 if may_end.wait(60) else 0)
    started.end()
    assert not stuck.done()
    may_end.set()
    assert stuck.result() == 7
