"""Summarize conversations that all fit into memory: for evaluations and samples.

A night does not: `job.summarization` has its own loop over chunks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from job.config.sections import GenerationSection
from job.conversations.record import Conversation, Reject, Source
from job.errors import ConfigError
from job.inference.each import Done, OneByOne
from job.inference.engine import Engine, Generated
from job.inference.levels import Answer, answer_each
from job.inference.reader import Prompts, Reader, Unreadable
from job.telemetry import progress, warn

MIN_CONVERSATIONS_FOR_A_BAR = 11  # a few samples need none


@dataclass(frozen=True)
class Summaries:
    """A summary of each conversation, and why it ended; None where nothing was generated.

    `read` has the conversations with placeholders, as the model read them; it is None if nothing
    was to be redacted.
    """

    texts: list[str]
    finish_reasons: list[str | None]
    read: list[Conversation] | None = None


@contextmanager
def summarizing_bar(conversations: int, name: str = "") -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar during the block, and yield the function that advances it.

    `name` is the system's. Yield None for a few conversations.
    """
    if conversations < MIN_CONVERSATIONS_FOR_A_BAR:
        yield None
        return
    what = f"summarizing ({name})" if name else "summarizing"
    with progress(what, conversations, "conversation") as bar:
        yield bar.advance


def input_budget(context_tokens: int, settings: GenerationSection) -> int:
    """Return how many tokens a prompt may have.

    It is the smaller one of the configured limit and what the answer leaves of the context.
    """
    left = context_tokens - settings.max_new_tokens
    return left if settings.max_input_tokens is None else min(left, settings.max_input_tokens)


def check_budget(settings: GenerationSection, context_tokens: int | None) -> None:
    """Raise ConfigError if the answer leaves no token of the context for a conversation.

    `context_tokens` is None for a model whose context has no limit.
    """
    if context_tokens is not None and settings.max_new_tokens >= context_tokens:
        raise ConfigError(
            f"generation.max_new_tokens: {settings.max_new_tokens} of the model's {context_tokens} "
            "tokens leave no room for a conversation; lower it"
        )


def summarize_conversations(
    conversations: Sequence[Conversation],
    engine: Engine,
    reader: Reader,
    settings: GenerationSection,
    on_done: Callable[[int], None] | None = None,
    isolates: bool = True,
) -> Summaries:
    """Return a summary of each cleaned conversation, in order, made as a night makes it.

    What cannot be summarized gets an empty summary, and is logged as a warning. `isolates` asks the
    prompts of a batch that fails once more, in halves; else its error is raised.
    `on_done` is called with the number of conversations finished since the last call. Raise
    ConfigError if the model generates NaN in its dtype, or answers nothing.
    """
    read = list(conversations)
    prompts: dict[int, Prompts] = {}
    for row, found in enumerate(reader.read_each(conversations)):
        if isinstance(found, Unreadable):
            warn("not summarized", id=conversations[row].id, reason=str(found))
        else:
            read[row], prompts[row] = found

    def generate(asked: Sequence[list[int]], _: Sequence[Source], done: Done) -> list[Generated]:
        return engine.generate(asked, settings, done)

    ask = OneByOne(engine, settings).generate if isolates else generate
    try:
        answers = answer_each(
            list(prompts.values()), ask, reader.encoder, on_done or (lambda _: None)
        )
    except FloatingPointError as error:
        raise ConfigError(f"model.dtype: {error}") from error

    _warn_of_rejects(answers)
    summaries = Summaries([""] * len(conversations), [None] * len(conversations))
    for row, answer in zip(prompts, answers, strict=True):
        if isinstance(answer, Reject):
            continue
        text = answer.text.strip()
        placeholders = prompts[row].placeholders
        # As in a night: a model may write values that are in no turn.
        summaries.texts[row] = placeholders.redact_again(text) if placeholders else text
        summaries.finish_reasons[row] = answer.finish_reason
    return summaries if reader.redactor is None else replace(summaries, read=read)


def _warn_of_rejects(answers: Sequence[Answer | Reject]) -> None:
    rejects = [answer for answer in answers if isinstance(answer, Reject)]
    if rejects:
        warn(
            "no summaries: they count as empty ones",
            summaries=len(rejects),
            of=len(answers),
            first=f"{rejects[0].reason}: {rejects[0].detail}",
        )
