"""Engines, tasks and records that tests of nights share, and the files of an output."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.config.candidates_section import NightGenerationSection
from job.config.commands import SummarizeConfig
from job.conversations.record import Conversation, Reject
from job.inference.each import Done
from job.inference.taken import Filled
from job.prompt.encode import Encoder
from job.summarization.careful_engine import CarefulEngine
from job.summarization.outcomes import AnsweredWindow, Item, Window, answer_windows, windows_of
from job.summarization.prepare import Task, prepare_each
from job.summarization.records import Origin, Position, Record, Result
from job.summarization.shard import WHOLE, Shard
from job.summarization.summarize import summarize
from job.summarization.summarizer import Digests, Summarizer, SummarizerLoader, open_summarizer
from tests.stand_in import PROMPT, Open, StandInEngine, StandInTokenizer, stand_in

FOLDER = [
    "_SUCCESS",
    "manifest.json",
    "parts/part-00000.jsonl",
    "rejects/part-00000.jsonl",
    "report.html",
]


def run(
    config: SummarizeConfig, shard: Shard = WHOLE, before: Callable[[], None] = lambda: None
) -> int:
    """Summarize, and return the number of prompts that it took."""
    engine = StandInEngine(before)
    summarize(config, stand_in(engine), shard)
    return engine.prompts


def manifest_of(folder: Path, name: str = "manifest.json") -> dict[str, Any]:
    """Return the facts in the manifest of an output."""
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))["extra"]
    return found


def never(*_arguments: Any) -> Summarizer:
    """Fail: nothing is to be generated, so no summarizer is to be opened."""
    raise AssertionError("a model was loaded where nothing is to be generated")


def at_call(number: int, action: Callable[[], Any]) -> Callable[[], None]:
    """Return an action for before each call of an engine; it acts at the n-th one, from 0 on."""
    calls = [0]

    def before() -> None:
        calls[0] += 1
        if calls[0] == number + 1:
            action()

    return before


class Wrapped:
    """A real engine, with something done before each call."""

    prompts_ahead = 0

    def __init__(self, engine: Any, before: Callable[[Any], None]) -> None:
        self.engine = engine
        self.before = before
        self.context_tokens = engine.context_tokens

    def generate(self, prompts: Any, settings: Any, on_done: Any = None) -> Any:
        self.before(prompts)
        return self.engine.generate(prompts, settings, on_done)


def with_engine(make: Callable[[Any], Any]) -> Open:
    """Return an opener of the real summarizer, with an engine that is made from the real one."""

    def open_with(filled: Filled[SummarizeConfig], cache: Path) -> Summarizer:
        real = open_summarizer(filled, cache)
        return replace(real, engine=make(real.engine))

    return open_with


def summarizer_of(engine: Any = None, max_input_tokens: int = 2000) -> Summarizer:
    """Return a summarizer without a model, whose tokens are bytes."""
    return Summarizer(
        engine=engine or StandInEngine(),
        encoder=Encoder(PROMPT, StandInTokenizer(), max_input_tokens),
        cleaning=PROMPT.cleaning,
        digests=Digests(None, "b"),
        engine_name="stand-in",
    )


def task_of(
    summarizer: Summarizer,
    settings: NightGenerationSection | None = None,
    is_careful: bool = False,
    **keys: Any,
) -> Task:
    """Return a task with this summarizer; `keys` are its other fields."""
    loader = SummarizerLoader(lambda: summarizer)
    engine = CarefulEngine(loader, settings or NightGenerationSection(), is_careful=is_careful)
    return Task(engine, **keys)


def record_of(content: Conversation | Reject, chunk: int = 0) -> Record:
    """Return a record of the first file."""
    return Record(Origin(chunk, Position(0, content.source.line)), content)


def prepared(
    contents: Iterable[Conversation | Reject], task: Task, chunk: int = 0
) -> Iterator[Item]:
    """Return the records of a chunk, prepared."""
    return prepare_each((record_of(content, chunk) for content in contents), task)


def answered(
    chunks: Sequence[Iterable[Conversation | Reject]],
    task: Task,
    on_done: Done = lambda _count: None,
) -> Iterator[AnsweredWindow]:
    """Yield the windows of all chunks, answered."""

    def windows() -> Iterator[Window]:
        for number, contents in enumerate(chunks):
            yield from windows_of(number, prepared(contents, task, number))

    return answer_windows(windows(), task, on_done)


def results(
    contents: Iterable[Conversation | Reject],
    task: Task,
    on_done: Done = lambda _count: None,
) -> Iterator[Result]:
    """Yield the result of each record of one chunk."""
    for window in answered([contents], task, on_done):
        for outcome in window.outcomes:
            yield outcome.result
