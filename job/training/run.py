"""The training run on one page: prepare, fit, select, score, publish, gate, deliver.

It ends with an adapter in storage that carries its scores, or the reason why it has none. Runs in
every training process; only rank 0 writes to storage.

To follow a run in which nothing goes wrong, read these files in this order: run, prepare, rows,
build, fit, scoring, publish, gate, deliver. Behind one name each, for when something does:

- `read_examples` (examples): conversations read, cleaned, split and checked;
- `RecapTrainer` (trainer): TRL's trainer, exact when resumed, and divergence; methods: its losses;
- callbacks, samples, tensorboard: curves and texts; evaluations: the best adapter, and the end;
- `select` (selection, candidates, validation): the adapter that generates best;
- interruptions: stop signals, resume, roll-back;
- `checkpoints`, `Uploads`: the commit protocol, and the thread that runs it;
- `record_attempt` (attempt, journal): run.json, and which earlier attempts ended how;
- `finish_published` (published): the rest of a run whose adapter an earlier attempt published;
- `note_attempt` (silent_attempts): a run that is killed again and again at one step;
- `ranks`, `sharding`: several processes; `StopSignal`, `Watch`, worker: one of them and its end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from job.config.commands import TrainConfig
from job.errors import DivergedError, PreemptedError
from job.evaluation.charts import History
from job.evaluation.contest import begin_contest, judge_reload
from job.evaluation.systems import Scored, System
from job.identity import json_digest
from job.launch.outcome import wait_for_outcome
from job.model.load import free_memory
from job.storage.holder import this_process
from job.storage.lease import GuardedStore, Lease
from job.storage.open import open_store
from job.storage.store import Store
from job.telemetry import Phases, event, heartbeat, warn
from job.training import journal
from job.training.attempt import CurrentAttempt, record_attempt
from job.training.candidates import delete_candidates
from job.training.causes import PUBLISHING, explaining
from job.training.deliver import deliver
from job.training.fit import Session, fetch_checkpoint, fit, step_of
from job.training.gate import published_adapter, raise_verdict, settle_gate
from job.training.intervals import FREE_SECONDS
from job.training.prepare import Run, prepare
from job.training.publish import publish, scores_of, write_adapter
from job.training.publish_reward import score_and_publish_reward
from job.training.published import finish_published, is_published
from job.training.ranks import agree, first_then_others, from_first, is_first
from job.training.scoring import adapter_folder, score_or_reason, summarize_as_trained
from job.training.selection import select
from job.training.silent_attempts import note_attempt
from job.training.stop import StopSignal
from job.training.verify import process_ahead, verify_adapter
from job.training.watch import Watch

# For the other ranks, while rank 0 downloads a large base.
MAX_WAIT_IN_COLLECTIVE = timedelta(hours=2)


def train(config: TrainConfig, work: Path, stop: StopSignal, watch: Watch, phases: Phases) -> None:
    """Fine-tune, evaluate and publish. `phases` are those up to now.

    Raise PreemptedError if a later attempt can resume, GateError if the published adapter did not
    pass its gate, another RecapError if the run cannot go on.
    """
    started = journal.now()
    # Without `cpu`, accelerate would see a single process on a machine without GPUs.
    PartialState(cpu=not torch.cuda.is_available(), timeout=MAX_WAIT_IN_COLLECTIVE)
    folder = open_store(f"{config.output.rstrip('/')}/{config.run}", config.storage)

    with (
        _leave_together(config, work),
        hold_run(folder, watch) as store,
        note_attempt(store, config.limits.max_silent_attempts, work),
    ):
        with heartbeat("preparing"):
            run = prepare(config, work, store)
        phases.end("prepare")
        agree("bases, data or versions", json_digest(run.identity()))
        if _is_done(run):
            event("already done", run=config.run, output=config.output)
            if is_first():
                delete_candidates(run)
            return

        checkpoint = fetch_checkpoint(run)
        with record_attempt(run, step_of(checkpoint), started) as attempt:
            if from_first(lambda: is_published(run)):
                if is_first():
                    finish_published(attempt, checkpoint, stop)
            else:
                attempt.begin_anew()
                trained = _fit_and_write(run, checkpoint, Session(stop, watch, attempt, phases))
                free_memory()  # of the trainer's model: what serves must fit
                # The other ranks are done, also if they shared the model.
                if is_first() and config.writes_summaries:
                    _score_and_publish(attempt, trained, stop)
                elif is_first():
                    score_and_publish_reward(attempt, trained.history, stop)
        # Not before run.json says that it is finished: another attempt would choose among the rest.
        if is_first():
            delete_candidates(run)
        raise_verdict(attempt)


@dataclass(frozen=True)
class _Trained:
    """The remains of a training besides the adapter on disk.

    `systems` are what was summarized with the weights in memory.
    """

    history: History
    systems: list[System]


def _fit_and_write(run: Run, checkpoint: Path | None, session: Session) -> _Trained:
    """Collective: train, and write the adapter to the local disk.

    Keeps no reference to the trainer or its model.
    """
    trainer = fit(run, checkpoint, session)
    with explaining(PUBLISHING):
        write_adapter(run, trainer)
    systems: list[System] = []
    if run.config.evaluation.as_trained and is_first():
        attempt = session.attempt
        with attempt.timed("evaluate_seconds"), heartbeat("scoring"):
            systems = summarize_as_trained(attempt, trainer.model, session.stop)
    return _Trained(trainer.state.log_history, systems)


def _score_and_publish(attempt: CurrentAttempt, trained: _Trained, stop: StopSignal) -> None:
    """Choose the adapter, score it, publish it, and promote and deliver it if it passed."""
    run = attempt.run
    folder = adapter_folder(run)
    contest = begin_contest(run.config, run.data.examples.train)
    select(attempt, trained.history, stop)
    with process_ahead(attempt) as process:
        with attempt.timed("evaluate_seconds"), heartbeat("scoring"):
            result = score_or_reason(attempt, trained.systems, contest, stop)
        _log_share_of_scoring(attempt)
        with attempt.timed("publish_seconds"), heartbeat("publishing"):
            reload = verify_adapter(attempt, folder, result, process)
            if isinstance(result, Scored):
                result = judge_reload(result, reload, is_demanded=True)
            publish(attempt, trained.history, result, reload)
            settle_gate(attempt, contest, result, reload)
            deliver(attempt, folder, published_adapter(run), scores_of(result), reload)


def _log_share_of_scoring(attempt: CurrentAttempt) -> None:
    """Log the time for scoring, and warn if it is above its share. It is never cut.

    A verdict of the gate must not depend on how fast the machine is.
    """
    scoring = attempt.timings["evaluate_seconds"]
    share = scoring / (scoring + attempt.timings.get("train_seconds", 0.0))
    event("time of the run for scoring", seconds=round(scoring, 1), share=round(share, 3))
    if scoring > FREE_SECONDS and share > attempt.run.config.training.evaluation_share:
        warn("scoring took more than training.evaluation_share: lower evaluation.max_conversations")


@contextmanager
def _leave_together(config: TrainConfig, work: Path) -> Iterator[None]:
    """If all ranks stop, keep those of the first machine until rank 0 has written its outcome.

    torchrun asks the rest to stop as soon as one rank ends with an error, and kills them 30 seconds
    later: rank 0 may still be committing a checkpoint then.
    """
    try:
        yield
    except (PreemptedError, DivergedError):
        state = PartialState()
        is_beside_first = state.process_index == state.local_process_index
        if is_beside_first and not state.is_main_process:
            seconds = config.limits.upload_minutes * 60 + config.limits.grace_seconds
            wait_for_outcome(work, 0, seconds)
        raise


@contextmanager
def hold_run(store: Store, watch: Watch) -> Iterator[Store]:
    """Collective: hold the run's lease during the block, and yield the store to write to.

    Rank 0 holds it for all; the others wait until it has it.
    """
    if not is_first():
        first_then_others(lambda: None)
        yield store
        return

    lease = Lease(store, this_process())
    first_then_others(lease.acquire)
    guarded = GuardedStore(store, lease)
    try:
        with watch.writing(guarded.check_changes):
            yield guarded
    finally:
        guarded.end()


def _is_done(run: Run) -> bool:
    """Return True if another process finished the run while this one waited for its lease.

    Raise OutputError if the folder belongs to another run by now, or has its adapter, or if the
    base has changed since the run began; GateError if the finished run did not pass its gate.
    """
    found = journal.read_journal(run.store)
    if found is not None:
        journal.check_same_run(found, run.store, run.fingerprint())
    journal.check_same_adapter(run.store, run.fingerprint())
    if found is None:
        return False
    if journal.is_done(found, run.store, run.config):
        not_passed = journal.gate_error(found, run.config)
        if not_passed:
            raise not_passed
        return True
    journal.check_same_base(found, run.store, run.base.identity())
    return False
