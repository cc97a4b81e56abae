"""Summaries and scores of the fresh adapter, from the disk and as it will serve.

The memory of the training is free by then, so that another engine and other weights fit. A failure
here is a reason for an adapter without scores, never for a run without an adapter.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch.distributed.fsdp import FSDPModule

from job.config.commands import TrainConfig
from job.config.gate_mistakes import needs_base
from job.config.sections import AdapterModelSection
from job.conversations.record import Conversation
from job.conversations.redaction import make_redactor
from job.environment import count_gpus
from job.errors import ConfigError, DataError, RetryError, is_out_of_memory
from job.evaluation.contest import Contest, judge_contest, summarize_rivals
from job.evaluation.evaluate import SEED, evaluate
from job.evaluation.inputs import all_references, read_others
from job.evaluation.metrics.named_models import compare_with_labels, fetch_models
from job.evaluation.result import NotScored
from job.evaluation.reward_pairs import read_reward_pairs, with_trust
from job.evaluation.served import serve_judged
from job.evaluation.systems import TUNED, Scored, System
from job.gpus.visible import gpus_of_ranks
from job.identity import json_digest
from job.inference.choose import check_installed, serving_in_memory
from job.inference.from_disk import Candidate, Place
from job.inference.open import model_on_disk
from job.inference.reader import Reader
from job.inference.serving import Reading, ServingWish
from job.inference.summaries import (
    Summaries,
    input_budget,
    summarize_conversations,
    summarizing_bar,
)
from job.inference.transformers_engine import TransformersEngine
from job.model import Model
from job.model.load import compute_dtype
from job.printable import entry, printable
from job.prompt.encode import Encoder
from job.storage.folders import sha256_file
from job.storage.scratch import cache_folder
from job.telemetry import warn
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.prepare import Run
from job.training.stop import StopSignal
from job.training.validation import split_validation

HOW_TO_SERVE = "`recap evaluate` scores it on a machine that serves it"
WITHOUT_VLLM = "vLLM is to serve it, and is not installed where it was trained"


def score_or_reason(
    attempt: CurrentAttempt, as_trained: Sequence[System], contest: Contest, stop: StopSignal
) -> Scored | NotScored:
    """Score the written adapter, or return the reason why that cannot be done.

    `as_trained` are systems that were summarized in the training's memory, and `contest` is what
    the gate compares with. Raise the errors for which `ends_run` returns True.
    """
    if attempt.has_crashed_too_often("scoring"):
        why = f"{MAX_CRASHES} attempts ended while it was scored"
        return NotScored(why, f"{why}; run.json has how each of them ended")
    missing = missing_engine(attempt.run.config)
    if missing is not None:
        return NotScored(f"{WITHOUT_VLLM}; {HOW_TO_SERVE}", missing)

    # A note in storage, since nothing can be caught if the system kills the process for memory or a
    # library crashes. Without it, each next attempt would end here too.
    with attempt.noting("scoring"):
        try:
            return score(attempt.run, as_trained, contest)
        except Exception as error:
            if ends_run(error, stop):
                raise
            if not isinstance(error, DataError):
                print(entry(traceback.format_exc()), file=sys.stderr)
            return NotScored(_why(error), printable(f"{type(error).__name__}: {error}"))


def missing_engine(config: TrainConfig) -> str | None:
    """Return that the engine that is to serve is not installed here; None if it is.

    The plan has warned of it: it is no failure with a traceback.
    """
    try:
        check_installed(config.serve.engine, config.serve.tensor_parallel)
    except ConfigError as error:
        return str(error)
    return None


def ends_run(error: Exception, stop: StopSignal, model: Model = None) -> bool:
    """Return True if a failure to summarize is not about summaries, and another attempt may help.

    That is a stop, a GPU that fails, and for a sharded model any RuntimeError: collectives raise it
    if another process is gone.
    """
    is_of_collectives = isinstance(model, FSDPModule) and isinstance(error, RuntimeError)
    return stop.requested or is_of_collectives or isinstance(error, RetryError)


def score(run: Run, as_trained: Sequence[System], contest: Contest) -> Scored:
    """Summarize validation conversations with the adapter on disk, score the summaries, and judge.

    With the base alone and with the champion, too, if configured.
    """
    options = run.config.evaluation
    examples = run.data.examples
    conversations = _chosen(run)
    storage = run.config.storage
    models = fetch_models(options, storage, cache_folder())
    pairs = read_reward_pairs(options.reward_model, run.config.data, storage)
    models = with_trust(models, pairs, options.bootstrap_samples)
    if options.faithfulness_labels is not None:
        models = compare_with_labels(models, options, storage, examples.scoring, SEED)
    others = read_others(options.others, storage, conversations)

    judged = judged_candidate(run, adapter_folder(run), conversations)
    place = Place(run.work, run.work, gpus_of_ranks(os.environ, count_gpus))
    served = serve_judged(judged, needs_base(run.config), "this training", place)
    contest = replace(contest, models=models)
    rivals = summarize_rivals(contest, judged, conversations, examples.uncleaned, place)
    references = all_references(examples.train)
    systems = [*served.systems, *rivals.champion, *as_trained, *others]
    scored = evaluate(systems, conversations, options, references, models)
    return judge_contest(contest, scored, rivals)


def judged_candidate(run: Run, adapter: Path, conversations: Sequence[Conversation]) -> Candidate:
    """Return the adapter in a folder of this machine as it will be served."""
    wish = serving_wish(run.config)
    digest = json_digest({file.name: sha256_file(file) for file in sorted(adapter.glob("*.*"))})
    model = model_on_disk(run.base, adapter, digest, wish.section)
    return Candidate(TUNED, model, wish, conversations)


def serving_wish(config: TrainConfig) -> ServingWish:
    """Return how the adapter of a training is to be served, by the sections of its config."""
    model = config.model
    serve = config.serve
    section = AdapterModelSection(
        base=model.base,
        revision=model.revision,
        quantization=serve.quantization,
        dtype=serve.dtype,
        trust_remote_code=model.trust_remote_code,
    )
    return ServingWish(
        section,
        config.generation,
        serve.engine,
        serve.adapter_weights,
        serve.tensor_parallel,
        Reading(None, serve.long_conversations, serve.redaction),
    )


def summarize_as_trained(attempt: CurrentAttempt, model: Model, stop: StopSignal) -> list[System]:
    """Summarize with the weights in the training's memory; return nothing if that fails.

    Raise the errors for which `ends_run` returns True.
    """
    run = attempt.run
    if attempt.has_crashed_too_often("scoring"):
        return []
    with attempt.noting("scoring"):
        try:
            found = summarize_in_memory(run, model)(_chosen(run))
        except Exception as error:
            if ends_run(error, stop):
                raise
            attempt.left_out["as_trained"] = printable(f"{type(error).__name__}: {error}")
            warn("the weights in memory are not scored", why=attempt.left_out["as_trained"])
            return []
    dtype = compute_dtype(run.config.model.dtype)
    serving = serving_in_memory(model, dtype, serving_wish(run.config), run.data.prompt)
    name = f"{TUNED}, as trained ({serving.quantization}, transformers)"
    origin = "the weights in the training's memory"
    return [
        System(
            name,
            "as_trained",
            found.texts,
            found.finish_reasons,
            origin,
            serving.to_json(),
            found.read,
        )
    ]


def _chosen(run: Run) -> list[Conversation]:
    return split_validation(run.config, run.data.examples.scoring).scoring


def adapter_folder(run: Run) -> Path:
    """Return the folder of this machine to which the adapter is written."""
    return run.work / "adapter"


def summarize_in_memory(run: Run, model: Model) -> Callable[[list[Conversation]], Summaries]:
    """Return a function that summarizes with the model in training, and leaves it as it was.

    Conversations are read as they will be when the adapter serves. Collective if the model is
    sharded.
    """
    generation, serve = run.config.generation, run.config.serve
    redactor = make_redactor(serve.redaction)
    # Ranks that share a model must all ask it the same, so none can ask again what failed.
    isolates = not isinstance(model, FSDPModule)

    def summarize(conversations: list[Conversation]) -> Summaries:
        with in_evaluation_mode(model), summarizing_bar(len(conversations)) as done:
            engine = TransformersEngine(model, run.tokenizer)
            encoder = Encoder(
                run.data.prompt, run.tokenizer, input_budget(engine.context_tokens, generation)
            )
            reader = Reader(encoder, serve.long_conversations, redactor)
            return summarize_conversations(
                conversations, engine, reader, generation, done, isolates
            )

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


def _why(error: Exception) -> str:
    """Return the cause in words that are safe on a public card.

    The text of an error may contain paths and bucket names.
    """
    if isinstance(error, DataError):
        return (
            "the validation conversations have no reference with a word to compare, or a file of "
            "evaluation.others or faithfulness_labels does not fit them"
        )
    if is_out_of_memory(error.__cause__ or error):
        return (
            "the memory was too small to summarize the validation conversations as it would serve; "
            f"{HOW_TO_SERVE}"
        )
    failed = f"failed ({type(error).__name__})"
    if isinstance(error, ConfigError):
        failed += f"; {HOW_TO_SERVE}"
    return f"summarizing or scoring the validation conversations {failed}"
