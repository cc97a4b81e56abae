"""From prepared records to outcomes, window by window, at constant memory.

A window is large enough to be batched by length, and small enough to be held. It ends where its
chunk does. An engine that wants to know of later prompts hears of those of later windows, also of
the next chunks, before it is asked for the answers to the window at hand.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from job.conversations.record import Reject
from job.inference.each import Done
from job.summarization.candidates import Chosen, answer_with_candidates
from job.summarization.careful_engine import CarefulEngine
from job.summarization.prepare import Task
from job.summarization.quality import measure, size_of
from job.summarization.records import Outcome, Prepared, Summary

WINDOW_RECORDS = 1024
WINDOW_TOKENS = 1_000_000  # of prompts; some 40 MB as Python's integers
WINDOW_CHARACTERS = 16 << 20  # of ids, metadata and values replaced, which are held too

# Windows that are read ahead, even if they have few prompts: their records are skipped or rejected.
MAX_WINDOWS_AHEAD = 8

Item = Prepared | Outcome


class Window(NamedTuple):
    """Consecutive records of one chunk. The last window of a chunk may be empty."""

    chunk: int
    items: Sequence[Item]
    ends_chunk: bool

    def prepared(self, engine: CarefulEngine, task: Task) -> list[Prepared]:
        """Return what this engine has to answer."""
        found = [item for item in self.items if isinstance(item, Prepared)]
        return [item for item in found if task.engine_of(item.origin.writer) is engine]


class AnsweredWindow(NamedTuple):
    """The outcomes of a window, in the order of its records."""

    chunk: int
    outcomes: Sequence[Outcome]
    ends_chunk: bool


def windows_of(chunk: int, items: Iterable[Item]) -> Iterator[Window]:
    """Yield the items of a chunk in windows.

    A window is closed by the item with which it reaches a limit of records, tokens or characters.
    """
    window: list[Item] = []
    records = 0
    tokens = 0
    characters = 0
    for item in items:
        window.append(item)
        if item.origin.is_shadow:
            # Not counted: the batches of the adapter are those of a night without a challenger.
            continue
        if isinstance(item, Prepared):
            prompts = item.prompts
            tokens += sum(len(part.ids) for part in prompts.parts)
            characters += len(prompts.id) + len(str(item.metadata))
            if prompts.placeholders:
                characters += prompts.placeholders.characters
            if item.conversation is not None:
                characters += size_of(item.conversation)
        else:
            characters += len(item.result.id or "")

        records += 1
        is_full = (
            records == WINDOW_RECORDS or tokens >= WINDOW_TOKENS or characters >= WINDOW_CHARACTERS
        )
        if is_full:
            yield Window(chunk, window, ends_chunk=False)
            window = []
            records = 0
            tokens = 0
            characters = 0
    yield Window(chunk, window, ends_chunk=True)


def answer_windows(
    windows: Iterable[Window],
    task: Task,
    on_done: Done,
) -> Iterator[AnsweredWindow]:
    """Yield each window with the outcomes of its records, in order.

    `on_done` is called with the number of records that are done since the last call. Raise
    ConfigError if the model fails on everything from the first prompt on, also on a greeting, and
    RetryError if it does so later.
    """
    ahead = deque[Window]()
    prompts_in_flight = deque[int]()  # of each window in `ahead`
    prompts_wanted = 0
    for window in windows:
        ahead.append(window)
        in_flight = 0
        for engine in task.engines():
            prompts = _prompts_of(window.prepared(engine, task))
            in_flight += len(prompts) * len(engine.settings_of_each)
            if prompts:  # else no model may be needed, and asking the engine would load one
                prompts_wanted = engine.expect(prompts)
        prompts_in_flight.append(in_flight)

        # Answer the oldest window as soon as those after it keep the engine busy meanwhile. An
        # engine that wants no announcements has each window answered at once.
        while ahead:
            announced = sum(prompts_in_flight) - prompts_in_flight[0]
            if announced < prompts_wanted and len(ahead) <= MAX_WINDOWS_AHEAD:
                break
            prompts_in_flight.popleft()
            yield _answer(ahead.popleft(), task, on_done)
    while ahead:
        yield _answer(ahead.popleft(), task, on_done)


def _prompts_of(prepared: Sequence[Prepared]) -> list[list[int]]:
    """Return the prompts of the first level."""
    prompts = []
    for item in prepared:
        prompts += [part.ids for part in item.prompts.parts]
    return prompts


def _answer(window: Window, task: Task, on_done: Done) -> AnsweredWindow:
    decided = [item for item in window.items if isinstance(item, Outcome)]
    on_done(sum([not item.origin.is_shadow for item in decided]))
    answers: dict[CarefulEngine, Iterator[Chosen]] = {}
    for engine in task.engines():
        prepared = window.prepared(engine, task)
        if prepared:  # else no model may be needed, and asking for its encoder would load one
            report = _report_nothing if prepared[0].origin.is_shadow else on_done
            answers[engine] = iter(answer_with_candidates(engine, prepared, report))

    outcomes: list[Outcome] = []
    for item in window.items:
        if isinstance(item, Prepared):
            engine = task.engine_of(item.origin.writer)
            outcome = _outcome(item, next(answers[engine]), task)
            if item.conversation is not None and task.measures(item.origin):
                summarizer = engine.loader.load()
                around = summarizer.encoder.tokens_around if summarizer.seen else 0
                figures = measure(
                    item.conversation, item.prompts, outcome.result, summarizer.seen, around
                )
                outcome = outcome._replace(figures=figures)
            outcomes.append(outcome)
        else:
            outcomes.append(item)
    return AnsweredWindow(window.chunk, outcomes, window.ends_chunk)


def _report_nothing(_count: int) -> None:
    """Report no progress: a record whose line is delivered has been counted."""


def _outcome(item: Prepared, chosen: Chosen, task: Task) -> Outcome:
    """Return the outcome of a conversation: its summary, or a reject if its answer is none."""
    answer = chosen.answer
    if isinstance(answer, Reject):
        return Outcome(item.origin, answer)

    prompts = item.prompts
    text = answer.text.strip()
    if not text:
        detail = f"the model answered {answer.output_tokens} tokens without text"
        return Outcome(item.origin, Reject(prompts.source, "empty_summary", detail, prompts.id))
    if answer.finish_reason == "length" and task.cut_summaries == "reject":
        limit = task.engine.settings.max_new_tokens
        detail = f"cut at generation.max_new_tokens ({limit}), and cut_summaries is reject"
        return Outcome(item.origin, Reject(prompts.source, "cut_at_limit", detail, prompts.id))

    redactions = 0
    leaks = 0
    if prompts.placeholders:
        redactions = prompts.placeholders.replaced
        # The summary is redacted too: a model may write values that are in no turn.
        text = prompts.placeholders.redact_again(text)
        leaks = prompts.placeholders.replaced - redactions
    summary = Summary(
        id=prompts.id,
        summary=text,
        source=prompts.source,
        finish_reason=answer.finish_reason,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        dropped_turns=prompts.dropped_turns + answer.dropped_turns,
        metadata=item.metadata,
        parts=len(prompts.parts),
        levels=answer.levels,
        redactions=redactions,
        leaks=leaks,
        digest=item.digest,
        best=chosen.best,
    )
    return Outcome(item.origin, summary)
