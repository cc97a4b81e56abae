"""Records in, one outcome each out, in the same order, at constant memory.

Records are taken by windows: large enough to be batched by length, small enough to be held. A record that cannot be
summarized is a reject and costs no other record its summary. Knows nothing of files.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from job.config.sections import GenerationSection
from job.conversations.cleaning import clean_or_reject
from job.conversations.record import BadRecord, Conversation
from job.errors import ConfigError
from job.inference.engine import Engine, Generated
from job.prompt import EncodedPrompt, NothingToSummarizeError, TooLongError, encode_prompt
from job.summarization.records import Outcome, Summary
from job.summarization.summarizer import Summarizer

WINDOW_RECORDS = 1024
WINDOW_TOKENS = 1_000_000  # of prompts; some 40 MB as Python's integers
# What libraries raise over an input; a mistake of recap's own (TypeError, AssertionError, …) ends the run instead.
FAILURES = (RuntimeError, ValueError, IndexError, ArithmeticError)

# What it means when the model fails on whatever it is given, by the name of the error, and what to do.
REMEDIES = {
    "FloatingPointError": "model.dtype: the base cannot compute in it",
    "OutOfMemoryError": "generation: one conversation alone does not fit into memory; lower "
    "generation.max_input_tokens or max_new_tokens, set model.quantization: nf4-double, or take a larger GPU",
}

Done = Callable[[int], None]


@dataclass(frozen=True)
class Encoded:
    """A conversation and its prompt."""

    conversation: Conversation
    prompt: EncodedPrompt


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: the error's name and words, not the error, which would hold the batch in memory."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True)
class Task:
    """What summarizes, and how it is told to."""

    summarizer: Summarizer
    generation: GenerationSection
    long_conversations: Literal["keep_ends", "reject"]


def outcomes(
    records: Iterable[Conversation | BadRecord], task: Task, on_done: Done, begun: bool = False
) -> Iterator[Outcome]:
    """The outcome of each record, in order; `on_done` is told how many more are done.

    ConfigError if the model fails in the same way on all that it is given first: then it would on everything. With
    `begun`, it was given others before.
    """
    for window in windows(_encode(record, task) for record in records):
        encoded = [item for item in window if isinstance(item, Encoded)]
        on_done(len(window) - len(encoded))
        prompts = [item.prompt.ids for item in encoded]
        answers = generate_each(task.summarizer.engine, prompts, task.generation, on_done)
        if not begun:
            check_model(answers)
        begun = begun or bool(answers)
        rest = iter(answers)
        for item in window:
            yield _settle(item, next(rest)) if isinstance(item, Encoded) else item


def windows(items: Iterable[Encoded | BadRecord]) -> Iterator[list[Encoded | BadRecord]]:
    """The items in lists of at most WINDOW_RECORDS, and about WINDOW_TOKENS, each."""
    window: list[Encoded | BadRecord] = []
    tokens = 0
    for item in items:
        window.append(item)
        tokens += len(item.prompt.ids) if isinstance(item, Encoded) else 0
        if len(window) == WINDOW_RECORDS or tokens >= WINDOW_TOKENS:
            yield window
            window, tokens = [], 0
    if window:
        yield window


def generate_each(
    engine: Engine, prompts: Sequence[list[int]], settings: GenerationSection, on_done: Done
) -> list[Generated | Failure]:
    """An answer to each prompt, or why there is none: prompts that fail together are halved until one fails alone."""
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        told += count
        on_done(count)

    try:
        return list(engine.generate(prompts, settings, tell))
    except FAILURES as error:
        if len(prompts) == 1:
            on_done(1 - told)
            return [Failure(type(error).__name__, str(error))]
    on_done(-told)  # they are generated again
    half = len(prompts) // 2
    return [
        *generate_each(engine, prompts[:half], settings, on_done),
        *generate_each(engine, prompts[half:], settings, on_done),
    ]


def check_model(answers: Sequence[Generated | Failure]) -> None:
    """ConfigError if all of them failed alike; a single one may be the record's fault, but for known errors."""
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    names = {failure.name for failure in failures}
    if len(failures) < len(answers) or len(names) != 1:
        return
    remedy = REMEDIES.get(failures[0].name)
    if remedy or len(failures) > 1:
        raise ConfigError(
            f"{remedy or 'model: it cannot be run as configured'}. It failed on each of the first {len(failures)} "
            f"conversations ({failures[0]})"
        )


def _encode(record: Conversation | BadRecord, task: Task) -> Encoded | BadRecord:
    summarizer = task.summarizer
    cleaned = record if isinstance(record, BadRecord) else clean_or_reject(record, summarizer.cleaning)
    if isinstance(cleaned, BadRecord):
        return cleaned
    room = summarizer.max_input_tokens
    try:
        prompt = encode_prompt(cleaned, summarizer.prompt, summarizer.tokenizer, room)
    except (TooLongError, NothingToSummarizeError) as error:
        detail = str(error).removeprefix(f"{cleaned.source}: ")
        reason: Literal["too_long", "nothing_to_summarize"] = (
            "too_long" if isinstance(error, TooLongError) else "nothing_to_summarize"
        )
        return BadRecord(cleaned.source, reason, detail, cleaned.id)
    if prompt.dropped_turns and task.long_conversations == "reject":
        detail = f"{prompt.dropped_turns} of {len(cleaned.turns)} turns do not fit into {room} tokens"
        return BadRecord(cleaned.source, "too_long", detail, cleaned.id)
    return Encoded(cleaned, prompt)


def _settle(item: Encoded, answer: Generated | Failure) -> Outcome:
    conversation, prompt = item.conversation, item.prompt
    if isinstance(answer, Failure):
        return BadRecord(conversation.source, "generation_failed", str(answer), conversation.id)
    text = answer.text.strip()
    if not text:
        detail = f"the model answered {answer.output_tokens} tokens without text"
        return BadRecord(conversation.source, "empty_summary", detail, conversation.id)
    return Summary(
        id=conversation.id,
        summary=text,
        source=conversation.source,
        finish_reason=answer.finish_reason,
        input_tokens=len(prompt.ids),
        output_tokens=answer.output_tokens,
        dropped_turns=prompt.dropped_turns,
        metadata=conversation.metadata,
    )
