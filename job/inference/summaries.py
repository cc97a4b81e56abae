"""Summarize conversations that all fit into memory: for evaluations and samples.

A night does not: `job.summarization` has its own loop over chunks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from job.config.sections import GenerationSection
from job.conversations.record import Conversation
from job.errors import ConfigError
from job.inference.engine import Engine, Generated, why_only_thought
from job.prompt.encode import Encoder, NothingToSummarizeError, TooLongError
from job.telemetry import progress, warn

MIN_CONVERSATIONS_FOR_A_BAR = 11  # a few samples need none


@dataclass(frozen=True)
class Summaries:
    """A summary of each conversation, and why it ended; None where nothing was generated."""

    texts: list[str]
    finish_reasons: list[str | None]


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


def input_budget(engine: Engine, settings: GenerationSection) -> int:
    """Return how many tokens a prompt may have.

    It is the smaller one of the configured limit and what the answer leaves of the context.
    """
    left = engine.context_tokens - settings.max_new_tokens
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
    encoder: Encoder,
    settings: GenerationSection,
    on_done: Callable[[int], None] | None = None,
) -> Summaries:
    """Return a summary of each conversation, in order.

    A conversation that cannot become a prompt is logged as a warning and gets an empty summary, as
    do those for which the model only thinks.
    `on_done` is called with the number of prompts finished since the last call. Raise ConfigError
    if the model generates NaN in its dtype.
    """
    prompts: dict[int, list[int]] = {}
    for row, conversation in enumerate(conversations):
        try:
            prompts[row] = encoder.encode(conversation).ids
        except (TooLongError, NothingToSummarizeError) as error:
            warn("not summarized", id=conversation.id, reason=str(error))

    try:
        answers = engine.generate(list(prompts.values()), settings, on_done)
    except FloatingPointError as error:
        raise ConfigError(f"model.dtype: {error}") from error

    _warn_of_thoughts(answers)
    summaries = Summaries([""] * len(conversations), [None] * len(conversations))
    for row, answer in zip(prompts, answers, strict=True):
        summaries.texts[row] = answer.text.strip()
        summaries.finish_reasons[row] = answer.finish_reason
    return summaries


def _warn_of_thoughts(answers: Sequence[Generated]) -> None:
    thoughts = [answer for answer in answers if answer.is_only_thought]
    if thoughts:
        warn(
            "thoughts without a summary: they count as empty summaries",
            summaries=len(thoughts),
            of=len(answers),
            first=why_only_thought(thoughts[0]),
        )
