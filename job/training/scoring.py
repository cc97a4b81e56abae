"""The fresh adapter's summaries and scores, by the model that is still in memory.

Whatever goes wrong here is a reason for an adapter without scores, never for a run without an adapter.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule

from job.conversations.record import Conversation
from job.errors import DataError, RetryError
from job.evaluation.evaluate import choose_conversations, evaluate
from job.evaluation.result import Evaluation, NotScored
from job.inference.each import OneByOne
from job.inference.engine import Engine
from job.inference.summaries import input_budget, summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.model import Model
from job.model.families import WHILE_GENERATING, all_configs
from job.printable import entry, printable
from job.prompt.encode import Encoder
from job.telemetry import progress
from job.training.state import Run
from job.training.stop import StopSignal

TUNED, BASE = "tuned", "base without adapter"
MAX_CRASHES_WHILE_SCORING = 2  # one may be the machine's fault


@dataclass(frozen=True)
class Scored:
    """The evaluation, and the summaries by system behind it, in the order of the conversations."""

    evaluation: Evaluation
    conversations: list[Conversation]
    summaries: dict[str, list[str]]


def score_or_reason(run: Run, model: Model, stop: StopSignal) -> Scored | NotScored:
    """Score the adapter, or return the reason why that cannot be done.

    Raises what `ends_run` names.
    """
    try:
        return score(run, model)
    except Exception as error:
        if ends_run(error, model, stop):
            raise
        if not isinstance(error, DataError):
            print(entry(traceback.format_exc()), file=sys.stderr)
        return NotScored(_why(error), printable(f"{type(error).__name__}: {error}"))


def ends_run(error: Exception, model: Model, stop: StopSignal) -> bool:
    """Return True where a failure to summarize is not about summaries: another attempt may mend it.

    That is a stop, a GPU that fails, and of a sharded model what collectives raise where a process is gone.
    """
    is_of_collectives = isinstance(model, FSDPModule) and isinstance(error, RuntimeError)
    return stop.requested or is_of_collectives or isinstance(error, RetryError)


def no_more_tries() -> NotScored:
    """Return the reason after attempts that did not survive scoring: killed for memory, or by a library."""
    why = f"{MAX_CRASHES_WHILE_SCORING} attempts ended while it was scored"
    return NotScored(why, f"{why}; run.json has how each of them ended")


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
    """Return a function that summarizes with the model in training, and leaves it as it was."""

    def summarize(conversations: list[Conversation]) -> list[str]:
        with generating(model), _bar(len(conversations)) as done:
            engine: Engine = TransformersEngine(model, run.tokenizer)
            if not isinstance(model, FSDPModule):  # processes that share a model ask it the same
                engine = OneByOne(engine)
            budget = input_budget(engine, run.config.generation)
            encoder = Encoder(run.prompt, run.tokenizer, budget)
            return summarize_conversations(
                conversations, engine, encoder, run.config.generation, done
            )

    return summarize


@contextmanager
def generating(model: Model) -> Iterator[None]:
    """Set a model in training up for generation, and back.

    Generation wants a key-value cache, and neither dropout nor recomputed activations.
    """
    was_training = model.training
    before = []
    for config in all_configs(model):
        changed = {key: getattr(config, key) for key in WHILE_GENERATING if hasattr(config, key)}
        before.append((config, changed))
        for key in changed:
            setattr(config, key, WHILE_GENERATING[key])
    model.eval()
    try:
        yield
    finally:
        for config, changed in before:
            for key, value in changed.items():
                setattr(config, key, value)
        model.train(was_training)


@contextmanager
def _bar(conversations: int) -> Iterator[Callable[[int], None] | None]:
    """A bar for many; a few samples need none."""
    few = 10
    with (
        nullcontext()
        if conversations <= few
        else progress("summarizing", conversations, "conversation") as bar
    ):
        yield bar.advance if bar else None


def _why(error: Exception) -> str:
    """Return the cause in words that any card may carry: the text of an error can name places."""
    if isinstance(error, DataError):
        return "the validation conversations have no reference with a word to compare"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "the memory was too small to summarize the validation conversations"
    return f"summarizing or scoring the validation conversations failed ({type(error).__name__})"
