"""The training run: read, train, score, publish.

Config → an adapter in storage that carries its scores, or the reason why it has none: nothing that fails
after the last step keeps the adapter back. Runs in every training process; only the first one writes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from job.config.commands import TrainConfig
from job.environment import describe
from job.errors import DivergedError, PreemptedError, RecapError, Stopped
from job.evaluation.evaluate import why_unscorable
from job.evaluation.result import NotScored
from job.identity import json_digest
from job.inference.summaries import check_budget
from job.launch.outcome import wait_for_outcome
from job.model.fetch import fetch_base
from job.model.load import context_tokens, load_tokenizer
from job.prompt.encode import Encoder
from job.prompt.template import Prompt, make_prompt
from job.storage.holder import this_process
from job.storage.lease import GuardedStore, Lease
from job.storage.open import open_store
from job.storage.places import cache_folder
from job.storage.store import Store
from job.telemetry import event, warn
from job.training import checkpoints, journal
from job.training.examples import Examples, read_examples
from job.training.fit import Session, fit, step_of
from job.training.publish import publish, write_adapter, write_config
from job.training.ranks import agree, anywhere, first_does, is_first, once_per_machine
from job.training.rows import Rows, RowSettings, make_rows, row_tokens
from job.training.scoring import (
    MAX_CRASHES_WHILE_SCORING,
    Scored,
    no_more_tries,
    score_or_reason,
)
from job.training.sharding import trained_weights
from job.training.state import Attempt, Run
from job.training.stop import StopSignal
from job.training.trainer import RecapTrainer
from job.training.watch import Watch

LONGEST_WAIT = timedelta(
    hours=2
)  # of the other processes, while the first one fetches a large base


def train(config: TrainConfig, work: Path, stop: StopSignal, watch: Watch) -> None:
    """Fine-tune, evaluate and publish; a RecapError says why not, PreemptedError that it can go on later."""
    started = journal.now()
    PartialState(
        cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT
    )  # without cpu, it would see one process
    folder = open_store(f"{config.output.rstrip('/')}/{config.run}", config.storage)
    with _leaving_together(config, work), writing_run(folder, watch) as store:
        run = prepare(config, work, store)
        agree("bases, data or versions", json_digest(run.identity()))
        if _is_done(run):  # by another one, for whose lease this one waited
            event("already done", run=config.run, output=config.output)
            return
        checkpoint = first_does(
            lambda: checkpoints.fetch_newest(store, work / "checkpoints", run.identity())
        )
        agree("checkpoints", checkpoint.name if checkpoint else "none")
        with _journaled(run, step_of(checkpoint), started) as attempt:
            trainer = fit(run, checkpoint, Session(stop, watch, attempt))
            weights = trained_weights(trainer.model) if trainer.is_fsdp_enabled else None
            if is_first():
                write_adapter(run, trainer, weights)
            if is_first() or trainer.is_fsdp_enabled:  # a sharded model answers where all ask it
                with _timed(attempt.timings, "evaluate_seconds"):
                    result = _score(run, trainer, attempt, stop)
            if is_first():
                with _timed(attempt.timings, "publish_seconds"):
                    publish(run, trainer.state.log_history, result, attempt)


@contextmanager
def _leaving_together(config: TrainConfig, work: Path) -> Iterator[None]:
    """Where all processes stop together, the others stay until the first one has committed and said how it ended.

    A launcher that sees one end with an error asks the rest to stop, and kills them 30 seconds later.
    """
    try:
        yield
    except (PreemptedError, DivergedError):
        state = PartialState()
        if (
            not state.is_main_process and state.process_index == state.local_process_index
        ):  # on the first one's machine
            wait_for_outcome(
                work, 0, config.limits.upload_minutes * 60 + config.limits.grace_seconds
            )
        raise


@contextmanager
def writing_run(store: Store, watch: Watch) -> Iterator[Store]:
    """The run's folder for as long as this run holds its lease; only the first process writes, and holds it."""
    if not is_first():
        first_does(lambda: None)
        yield store
        return
    lease = Lease(store, this_process())
    first_does(lease.acquire)
    guarded = GuardedStore(store, lease)
    try:
        with watch.writing(guarded.check_changes):
            yield guarded
    finally:
        guarded.end()


def prepare(config: TrainConfig, work: Path, store: Store) -> Run:
    """Read and encode everything, and say where the run is and what it has."""
    event("environment", **describe(), processes=PartialState().num_processes)
    base = first_does(
        lambda: fetch_base(config.model.base, config.model.revision, config.storage, cache_folder())
    )
    check_budget(config.generation, context_tokens(base.path))
    tokenizer = load_tokenizer(base.path, config.model.trust_remote_code)
    max_tokens = row_tokens(config.training.max_tokens, context_tokens(base.path))

    def preprocess() -> tuple[Examples, Prompt, tuple[Rows, Rows]]:
        examples = read_examples(config)
        prompt = make_prompt(config.prompt, tokenizer, examples.cleaning)
        references, excluded = config.data.references, config.limits.max_excluded_fraction
        settings = RowSettings(Encoder(prompt, tokenizer, max_tokens), references, excluded)
        return (
            examples,
            prompt,
            (make_rows(examples.train, settings), make_rows(examples.validation, settings)),
        )

    examples, prompt, splits = once_per_machine(preprocess, work / "rows.pickle")
    event("rows", train=splits[0].counts(), validation=splits[1].counts())
    run = Run(
        config, store, work, base, tokenizer, prompt, examples, splits, PartialState().num_processes
    )
    _warn_if_unscorable(run)
    return run


def _is_done(run: Run) -> bool:
    """Whether nothing is left to do; OutputError if the folder is another run's by now."""
    found = journal.read_journal(run.store)
    if found is None:
        return False
    journal.check_same_run(
        found, run.store, journal.fingerprint(run.config, run.examples.digests())
    )
    return journal.is_done(found, run.store, run.config.publish.hub)


def _warn_if_unscorable(run: Run) -> None:
    """Warn before the first step where the adapter will have no scores, whatever it learns."""
    options = run.config.evaluation
    why = why_unscorable(run.examples.validation, options.max_conversations)
    if why:
        warn("the adapter will be published without scores", why=why)


def _score(
    run: Run, trainer: RecapTrainer, attempt: Attempt, stop: StopSignal
) -> Scored | NotScored:
    """Score the adapter in memory, unless earlier attempts did not survive that.

    run.json notes that it is under way. What ends a process without a word (the system kills it for
    memory, a library crashes) would end each next one too, so the note counts the tries.
    """
    entry = attempt.entry
    crashes = journal.crashes_while_scoring(entry) if entry else 0
    too_many = crashes >= MAX_CRASHES_WHILE_SCORING
    if anywhere(too_many) if trainer.is_fsdp_enabled else too_many:
        return no_more_tries()
    if entry:
        attempt.entry = journal.note_scoring(run.store, entry, True)
    result = score_or_reason(run, trainer.model, stop)
    if attempt.entry:
        attempt.entry = journal.note_scoring(run.store, attempt.entry, False)
    return result


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    timings[name] = round(time.monotonic() - start, 3)


@contextmanager
def _journaled(run: Run, first_step: int, started: str) -> Iterator[Attempt]:
    """Write down in run.json when the attempt began, and how it ended."""
    attempt = Attempt(step=first_step, committed=first_step)
    if not is_first():
        yield attempt
        return
    write_config(run)
    facts = {
        "environment": describe(),
        "processes": run.processes,
        "data": run.counts(),
        "files": run.examples.files,
        "base": run.base.identity(),
        "timings": attempt.timings,
        "best": attempt.best,
        "published": attempt.published,
        "left_out": attempt.left_out,
    }
    wanted = journal.fingerprint(run.config, run.examples.digests())
    attempt.entry = journal.begin(run.store, run.config, wanted, attempt.step, facts, started)
    try:
        yield attempt
    except BaseException as error:
        state: journal.State = (
            "preempted" if isinstance(error, PreemptedError | Stopped) else "failed"
        )
        try:
            reason = f"{type(error).__name__}: {error}"
            journal.end(run.store, attempt.entry, state, attempt.step, reason)
        except RecapError as unwritten:
            warn("run.json could not be written", why=str(unwritten))
        raise
    missing = "".join(f", without {name}: {why}" for name, why in attempt.left_out.items())
    journal.end(run.store, attempt.entry, "finished", attempt.step, f"finished{missing}")
