"""Conversations in, one text each out: for evaluations and samples, where all of them fit into memory.

Knows nothing of files or outcomes (`summarization` does).
"""

from collections.abc import Callable, Sequence

from job.config.sections import GenerationSection
from job.conversations.record import Conversation
from job.errors import ConfigError
from job.inference.engine import Engine
from job.prompt import NothingToSummarizeError, Prompt, Tokenizer, TooLongError, encode_prompt
from job.telemetry import warn


def input_budget(engine: Engine, settings: GenerationSection) -> int:
    """Tokens that a prompt may have: what is configured, and what the engine's context leaves beside the answer."""
    left = engine.context_tokens - settings.max_new_tokens
    return left if settings.max_input_tokens is None else min(left, settings.max_input_tokens)


def check_budget(settings: GenerationSection, context_tokens: int | None) -> None:
    """ConfigError where the answer leaves no token of the context for a conversation; None is a context without end."""
    if context_tokens is not None and settings.max_new_tokens >= context_tokens:
        raise ConfigError(
            f"generation.max_new_tokens: {settings.max_new_tokens} of the model's {context_tokens} tokens leave no "
            "room for a conversation; lower it"
        )


def summarize_conversations(
    conversations: Sequence[Conversation],
    engine: Engine,
    encoding: tuple[Prompt, Tokenizer],
    settings: GenerationSection,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """A summary per conversation, in order; an empty one, with a warning, where the conversation cannot be a prompt.

    ConfigError where the model's answers are no numbers in its dtype.
    """
    prompt, tokenizer = encoding
    budget = input_budget(engine, settings)
    prompts: dict[int, list[int]] = {}
    for row, conversation in enumerate(conversations):
        try:
            prompts[row] = encode_prompt(conversation, prompt, tokenizer, budget).ids
        except (TooLongError, NothingToSummarizeError) as error:
            warn("not summarized", id=conversation.id, reason=str(error))
    try:
        answers = engine.generate(list(prompts.values()), settings, on_done)
    except FloatingPointError as error:
        raise ConfigError(f"model.dtype: {error}") from error
    texts = dict(zip(prompts, (answer.text.strip() for answer in answers), strict=True))
    return [texts.get(row, "") for row in range(len(conversations))]
