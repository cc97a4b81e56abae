"""The fresh adapter's summaries and scores, by the model that is still in memory. Knows nothing of storage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from job.conversations.record import Conversation
from job.evaluation.evaluate import choose_conversations, evaluate
from job.evaluation.result import Evaluation
from job.inference.summaries import summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.model import Model
from job.telemetry import progress
from job.training.state import Run

TUNED, BASE = "tuned", "base without adapter"


@dataclass(frozen=True)
class Scored:
    """The evaluation, and what it was made of: summaries by system, in the order of the conversations."""

    evaluation: Evaluation
    conversations: list[Conversation]
    summaries: dict[str, list[str]]


def score(run: Run, model: Model) -> Scored:
    """Summarize validation conversations with the adapter (and without, if configured) and score them."""
    options = run.config.evaluation
    conversations = choose_conversations(run.examples.validation, options.max_conversations)
    summarize = summarizer(run, model)
    systems = {TUNED: summarize(conversations)}
    if options.base_without_adapter:
        with model.disable_adapter():
            systems[BASE] = summarize(conversations)
    references = [text for conversation in run.examples.train for text in conversation.references]
    return Scored(evaluate(systems, conversations, options, references), conversations, systems)


def summarizer(run: Run, model: Model) -> Callable[[list[Conversation]], list[str]]:
    """A function that summarizes with the model in training, and leaves it as it was."""

    def summarize(conversations: list[Conversation]) -> list[str]:
        with _generating(model), _bar(len(conversations)) as done:
            engine = TransformersEngine(model, run.tokenizer)
            encoding = run.prompt, run.tokenizer
            return summarize_conversations(conversations, engine, encoding, run.config.generation, done)

    return summarize


@contextmanager
def _generating(model: Model) -> Iterator[None]:
    """Generation wants what training does not: a key-value cache, no dropout, no recomputed activations."""
    was_training, use_cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        yield
    finally:
        model.config.use_cache = use_cache
        model.train(was_training)


@contextmanager
def _bar(conversations: int) -> Iterator[Callable[[int], None] | None]:
    """A bar for many; a few samples need none."""
    few = 10
    with nullcontext() if conversations <= few else progress("summarizing", conversations, "conversation") as bar:
        yield bar.advance if bar else None
