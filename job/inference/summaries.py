"""Conversations in, one text each out: for evaluations and samples, where all of them fit into memory.

Knows nothing of files or outcomes (`summarization` does).
"""

from collections.abc import Callable, Sequence

from job.config.sections import GenerationSection
from job.conversations.record import Conversation
from job.inference.engine import Engine
from job.prompt import NothingToSummarizeError, Prompt, Tokenizer, TooLongError, encode_prompt
from job.telemetry import warn


def input_budget(engine: Engine, settings: GenerationSection) -> int:
    """Tokens that a prompt may have: what is configured, and what the engine's context leaves beside the answer."""
    left = engine.context_tokens - settings.max_new_tokens
    return left if settings.max_input_tokens is None else min(left, settings.max_input_tokens)


def summarize_conversations(
    conversations: Sequence[Conversation],
    engine: Engine,
    encoding: tuple[Prompt, Tokenizer],
    settings: GenerationSection,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """A summary per conversation, in order; an empty one, with a warning, where the conversation cannot be a prompt."""
    prompt, tokenizer = encoding
    budget = input_budget(engine, settings)
    prompts: dict[int, list[int]] = {}
    for row, conversation in enumerate(conversations):
        try:
            prompts[row] = encode_prompt(conversation, prompt, tokenizer, budget).ids
        except (TooLongError, NothingToSummarizeError) as error:
            warn("not summarized", id=conversation.id, reason=str(error))
    answers = engine.generate(list(prompts.values()), settings, on_done)
    texts = dict(zip(prompts, (answer.text.strip() for answer in answers), strict=True))
    return [texts.get(row, "") for row in range(len(conversations))]
