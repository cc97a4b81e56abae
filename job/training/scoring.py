"""Summaries and scores of the fresh adapter, by the model that is still in memory.

A failure here is a reason for an adapter without scores, never for a run without an adapter.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.distributed.fsdp import FSDPModule

from job.conversations.record import Conversation
from job.errors import DataError, RetryError, is_out_of_memory
from job.evaluation.evaluate import SEED, choose_conversations, evaluate
from job.evaluation.inputs import read_others
from job.evaluation.metrics.named_models import compare_with_labels, fetch_models
from job.evaluation.result import NotScored
from job.evaluation.systems import BASE, TUNED, Scored, System
from job.inference.each import OneByOne
from job.inference.engine import Engine
from job.inference.summaries import input_budget, summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.model import Model
from job.printable import entry, printable
from job.prompt.encode import Encoder
from job.storage.scratch import cache_folder
from job.telemetry import progress
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.prepare import Run
from job.training.ranks import anywhere
from job.training.stop import StopSignal

MIN_CONVERSATIONS_FOR_A_BAR = 11  # a few samples need none


def score_or_reason(attempt: CurrentAttempt, model: Model, stop: StopSignal) -> Scored | NotScored:
    """Score the adapter in memory, or return the reason why that cannot be done.

    Collective if the model is sharded. Raises the errors for which `ends_run` returns True.
    """
    has_crashed = attempt.has_crashed_too_often("scoring")
    if isinstance(model, FSDPModule):
        has_crashed = anywhere(has_crashed)
    if has_crashed:
        why = f"{MAX_CRASHES} attempts ended while it was scored"
        return NotScored(why, f"{why}; run.json has how each of them ended")

    # A note in storage, since nothing can be caught if the system kills the process for memory or a
    # library crashes. Without it, each next attempt would end here too.
    with attempt.noting("scoring"):
        return _try_to_score(attempt.run, model, stop)


def _try_to_score(run: Run, model: Model, stop: StopSignal) -> Scored | NotScored:
    try:
        return score(run, model)
    except Exception as error:
        if ends_run(error, model, stop):
            raise
        if not isinstance(error, DataError):
            print(entry(traceback.format_exc()), file=sys.stderr)
        return NotScored(_why(error), printable(f"{type(error).__name__}: {error}"))


def ends_run(error: Exception, model: Model, stop: StopSignal) -> bool:
    """Return True if a failure to summarize is not about summaries, and another attempt may help.

    That is a stop, a GPU that fails, and for a sharded model any RuntimeError: collectives raise it
    if another process is gone.
    """
    is_of_collectives = isinstance(model, FSDPModule) and isinstance(error, RuntimeError)
    return stop.requested or is_of_collectives or isinstance(error, RetryError)


def score(run: Run, model: Model) -> Scored:
    """Summarize validation conversations and score the summaries.

    With the adapter, and also without it if configured.
    """
    options = run.config.evaluation
    examples = run.data.examples
    conversations = choose_conversations(examples.validation, options.max_conversations)
    storage = run.config.storage
    models = fetch_models(options, storage, cache_folder())
    if options.faithfulness_labels is not None:
        models = compare_with_labels(models, options, storage, examples.validation, SEED)
    others = read_others(options.others, run.config.storage, conversations)
    summarize = summarizer(run, model)

    systems = [System(TUNED, "judged", summarize(conversations), origin="the adapter in memory")]
    if options.base_without_adapter:
        with model.disable_adapter():
            systems.append(System(BASE, "base", summarize(conversations), origin=run.base.uri))

    systems += others
    references = [text for conversation in examples.train for text in conversation.references]
    return evaluate(systems, conversations, options, references, models)


def summarizer(run: Run, model: Model) -> Callable[[list[Conversation]], list[str]]:
    """Return a function that summarizes with the model in training, and leaves it as it was."""

    def summarize(conversations: list[Conversation]) -> list[str]:
        with in_evaluation_mode(model), _bar(len(conversations)) as done:
            engine: Engine = TransformersEngine(model, run.tokenizer)
            if not isinstance(model, FSDPModule):
                # Isolates a conversation that fails. Ranks that share a model cannot: all must ask
                # it the same.
                engine = OneByOne(engine)
            budget = input_budget(engine, run.config.generation)
            encoder = Encoder(run.data.prompt, run.tokenizer, budget)
            return summarize_conversations(
                conversations, engine, encoder, run.config.generation, done
            ).texts

    return summarize


@contextmanager
def in_evaluation_mode(model: Model) -> Iterator[None]:
    """Set a model in training to evaluation during the block: no dropout, and a cache.

    transformers drops the cache of a model that trains with recomputed activations.
    """
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _bar(conversations: int) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar during the block, and yield the function that advances it.

    Yield None for a few samples.
    """
    if conversations < MIN_CONVERSATIONS_FOR_A_BAR:
        yield None
        return
    with progress("summarizing", conversations, "conversation") as bar:
        yield bar.advance


def _why(error: Exception) -> str:
    """Return the cause in words that are safe on a public card.

    The text of an error may contain paths and bucket names.
    """
    if isinstance(error, DataError):
        return "the validation conversations have no reference with a word to compare"
    if is_out_of_memory(error.__cause__ or error):
        return "the memory was too small to summarize the validation conversations"
    return f"summarizing or scoring the validation conversations failed ({type(error).__name__})"
