"""Records in, one outcome each out, in the same order, at constant memory.

Records are taken by windows: large enough to be batched by length, small enough to be held. A record that cannot be
summarized is a reject and costs no other record its summary. Windows end where chunks do, the engine's work need not.
Knows nothing of files.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from job.conversations.record import Conversation, Reject
from job.inference.each import Done
from job.summarization.levels import Answer, Unanswered, answer_each
from job.summarization.prepare import Prepared, Task, prepare
from job.summarization.records import Outcome, Skipped, Summary

WINDOW_RECORDS = 1024
WINDOWS_AHEAD = 8  # where they hold few prompts: most records are skipped, or rejected
WINDOW_TOKENS = 1_000_000  # of prompts; some 40 MB as Python's integers
WINDOW_CHARACTERS = 16 << 20  # of what else is held of the records: ids, metadata, values replaced

Item = Prepared | Reject | Skipped


def outcomes(
    chunks: Iterable[Iterable[Conversation | Reject]], task: Task, on_done: Done
) -> Iterator[Outcome]:
    """The outcome of each record of each chunk, in order; `on_done` is told how many more are done.

    An engine that asks for it is told of later windows, of the next chunks too, before it is asked for the answers to
    this one. ConfigError where the model fails on all that it is given first, and on a greeting; RetryError if it does
    so later.
    """
    ahead, wanted = deque[list[Item]](), 0

    def settle() -> Iterator[Outcome]:
        window = ahead.popleft()
        prepared = [item for item in window if isinstance(item, Prepared)]
        on_done(len(window) - len(prepared))
        answers = iter(answer_each(prepared, task, on_done))
        for item in window:
            yield _settle(item, next(answers), task) if isinstance(item, Prepared) else item

    for window in (
        window
        for records in chunks
        for window in windows(prepare(record, task) for record in records)
    ):
        ahead.append(window)
        if prompts := _prompts(window):
            engine = task.summarizer.engine
            wanted = 0 if task.suspects.is_careful else engine.prompts_ahead
            if wanted:
                engine.expect(prompts, task.generation)
        while ahead and (
            len(ahead) > WINDOWS_AHEAD
            or sum(len(_prompts(later)) for later in islice(ahead, 1, None)) >= wanted
        ):
            yield from settle()
    while ahead:
        yield from settle()


def windows(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists of at most WINDOW_RECORDS each, which end with who fills the tokens or the characters."""
    window: list[Item] = []
    tokens = characters = 0
    for item in items:
        window.append(item)
        characters += len(item.id or "")
        if isinstance(item, Prepared):
            tokens += sum(len(part.ids) for part in item.parts)
            characters += len(str(item.metadata)) + (
                item.placeholders.characters if item.placeholders else 0
            )
        if (
            len(window) == WINDOW_RECORDS
            or tokens >= WINDOW_TOKENS
            or characters >= WINDOW_CHARACTERS
        ):
            yield window
            window, tokens, characters = [], 0, 0
    if window:
        yield window


def _prompts(window: Iterable[Item]) -> list[list[int]]:
    """What the engine is asked first about a window."""
    return [part.ids for item in window if isinstance(item, Prepared) for part in item.parts]


def _settle(item: Prepared, answer: Answer | Unanswered, task: Task) -> Outcome:
    if isinstance(answer, Unanswered):
        return Reject(item.source, answer.reason, answer.detail, item.id)
    text = answer.text.strip()
    if not text:
        detail = f"the model answered {answer.output_tokens} tokens without text"
        return Reject(item.source, "empty_summary", detail, item.id)
    if answer.finish_reason == "length" and task.cut_summaries == "reject":
        detail = f"cut at generation.max_new_tokens ({task.generation.max_new_tokens}), and cut_summaries is reject"
        return Reject(item.source, "cut_at_limit", detail, item.id)
    redactions = item.placeholders.replaced if item.placeholders else 0
    summary = item.placeholders.redact_again(text) if item.placeholders else text
    return Summary(
        id=item.id,
        summary=summary,
        source=item.source,
        finish_reason=answer.finish_reason,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        dropped_turns=item.dropped_turns + answer.dropped_turns,
        metadata=item.metadata,
        parts=len(item.parts),
        levels=answer.levels,
        redactions=redactions,
        leaks=item.placeholders.replaced - redactions if item.placeholders else 0,
        digest=item.digest,
    )
