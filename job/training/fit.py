"""Train: from a checkpoint, or from the start, to the last step.

Checkpoints are committed in the background. A training that diverges goes back to the newest of
them if the config says so.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter

from job.config.method_sections import HAS_REFERENCE
from job.errors import DivergedError, RetryError
from job.gpus.nvml import Use, open_nvml
from job.model.load import free_memory
from job.telemetry import Phases, heartbeat, warn
from job.training import callbacks, checkpoints, evaluations, interruptions
from job.training.attempt import CurrentAttempt
from job.training.build import build_trainer
from job.training.candidates import Candidates, KeepCandidates, candidates_of
from job.training.causes import STEPPING, blaming_the_config, explaining
from job.training.passes import Passes, device_name
from job.training.preferences import PairTrainer
from job.training.prepare import Run
from job.training.ranks import (
    agree,
    anywhere,
    first_then_others,
    from_first,
    is_first,
    share_stop,
)
from job.training.reference import KeepReference
from job.training.samples import SampleSummaries
from job.training.scoring import ends_run, summarize_in_memory
from job.training.stop import StopSignal
from job.training.tensorboard import open_events, sync_tensorboard
from job.training.time_left import TimeLeft, work_of_trainer
from job.training.trainer import RecapTrainer
from job.training.uploads import Patience, Uploads
from job.training.validation import summaries_to_make
from job.training.watch import Watch

MAX_ROLL_BACKS = 2
RATE_FACTOR_OF_A_ROLL_BACK = 0.5


@dataclass(frozen=True)
class Session:
    """The parts of this process that a training needs besides its run."""

    stop: StopSignal
    watch: Watch
    attempt: CurrentAttempt
    phases: Phases


@dataclass(frozen=True)
class Start:
    """The point from which a training starts: a checkpoint, or None for the first step."""

    checkpoint: Path | None
    rate_factor: float | None = None  # of the learning rate, after a roll-back


def fit(run: Run, checkpoint: Path | None, session: Session) -> RecapTrainer:
    """Train to the last step and return the trainer.

    Raise PreemptedError after a stop signal, DivergedError if the training diverged and no
    roll-back is left or wanted.
    """
    start = Start(checkpoint)
    for roll_backs in range(MAX_ROLL_BACKS + 1):
        try:
            trainer = _fit_once(run, start, session)
        except DivergedError as error:
            if run.config.limits.on_divergence == "stop" or roll_backs == MAX_ROLL_BACKS:
                raise DivergedError(
                    f"{error}{_newest_checkpoint_clause(session.attempt)}"
                ) from error
            start = _roll_back(run, error)
        else:
            trainer.attend_as_loaded()
            # What scores the adapter may have no algorithm that adds in one order.
            torch.use_deterministic_algorithms(False)
            return trainer
        # Only here is the diverged model free: the exception held its frames, and the trainer is in
        # reference cycles. A GPU may have memory for one model.
        free_memory()
    raise AssertionError("the last try returned or raised")


def fetch_checkpoint(run: Run) -> Path | None:
    """Collective: download the newest valid checkpoint and return its folder, None without any.

    Raise OutputError if it belongs to another run, RetryError if the machines found different ones.
    """
    folder = run.work / "checkpoints"
    checkpoint = first_then_others(
        lambda: checkpoints.fetch_newest(run.store, folder, run.identity())
    )
    agree("checkpoints", checkpoint.name if checkpoint else "none")
    return checkpoint


def step_of(checkpoint: Path | None) -> int:
    """Return the step after which a checkpoint was written, 0 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _newest_checkpoint_clause(attempt: CurrentAttempt) -> str:
    """Return a clause about the newest checkpoint. Empty except on rank 0, which alone knows it."""
    if not is_first():
        return ""
    if attempt.committed:
        return f"; the newest checkpoint, of step {attempt.committed}, is good"
    return "; there is no checkpoint yet"


def _roll_back(run: Run, error: DivergedError) -> Start:
    """Collective: return the newest checkpoint as the new start, with a smaller learning rate.

    Raise DivergedError with the reason if there is none.
    """
    # Rank 0 has just committed all that it had. Whoever looked before would find an older one.
    PartialState().wait_for_everyone()

    # Each rank has a folder of its own: the uploads of rank 0 delete what they have committed.
    folder = run.work / "rolled-back" / str(PartialState().process_index)
    checkpoint = checkpoints.fetch_newest(run.store, folder, run.identity())
    agree("checkpoints", checkpoint.name if checkpoint else "none")
    if checkpoint is None:
        raise DivergedError(f"{error}; there is no checkpoint to go back to") from error
    warn(
        "going back to the last checkpoint, with a smaller learning rate",
        factor=RATE_FACTOR_OF_A_ROLL_BACK,
        why=str(error),
    )
    return Start(checkpoint, RATE_FACTOR_OF_A_ROLL_BACK)


def _fit_once(run: Run, start: Start, session: Session) -> RecapTrainer:
    """Train from `start` to the last step. Raise PreemptedError or DivergedError on the way."""
    attempt = session.attempt
    limits = run.config.limits
    step = step_of(start.checkpoint)
    with open_events(run, step) if is_first() else nullcontext() as writer:
        candidates = candidates_of(run)
        uploads = _make_uploads(attempt, candidates, writer)
        with blaming_the_config(), heartbeat("loading the base"):
            trainer = build_trainer(run, uploads.wait)
        attempt.note_weights(trainer.model.weights_in_memory)
        # Rank 0 alone has read run.json.
        attempt.passes.update(from_first(lambda: attempt.passes))
        trainer.passes = Passes(attempt.passes, device_name(), attempt.save_facts)
        session.phases.end("load")
        for callback in _make_callbacks(start, session, trainer, uploads, candidates, writer):
            trainer.add_callback(callback)

        def has_begun() -> bool:
            return start.checkpoint is not None or trainer.state.global_step > 0

        resumed_from = str(start.checkpoint) if start.checkpoint else None
        try:
            with attempt.timed("train_seconds"), session.stop.between_steps():
                # `uploads` is left last: it waits for what was handed over, without a time limit
                # on steps, and while signals only set the flag.
                with (
                    uploads,
                    session.watch.training(limits.stall_minutes * 60),
                    explaining(STEPPING),
                    blaming_the_config(has_begun),
                ):
                    trainer.train(resume_from_checkpoint=resumed_from)
                share_stop(session.stop)
            session.stop.check(_progress_at_a_stop(attempt, trainer.state.global_step))
        finally:
            attempt.step = trainer.state.global_step
            if isinstance(trainer, PairTrainer):
                attempt.rows["pairs_share_prompts"] = trainer.shares_prompts
            best = evaluations.best_evaluation(trainer.state.log_history, patience=None)
            if best is not None:
                attempt.best["step"] = best["step"]
                attempt.best["validation_loss"] = best["eval_loss"]
    return trainer


def _make_uploads(
    attempt: CurrentAttempt, candidates: Candidates | None, writer: SummaryWriter | None
) -> Uploads:
    run = attempt.run

    def commit_and_note(folder: Path, step: int) -> None:
        # Candidates first: a run that resumes from this checkpoint then finds those before it.
        if candidates:
            candidates.commit(folder)
        commit(run, folder, step)
        attempt.committed = step
        if candidates:
            candidates.prune(folder)

    def copy_events() -> None:
        if writer:
            writer.flush()
            sync_tensorboard(run)

    patience = Patience(seconds=run.config.limits.upload_minutes * 60)
    return Uploads(commit_and_note, copy_events, patience)


def commit(run: Run, folder: Path, step: int) -> None:
    """Make a checkpoint the newest in storage, then delete older ones."""
    checkpoints.publish_checkpoint(folder, run.store, step, run.identity())
    try:
        checkpoints.prune(run.store, run.config.training.keep_last, step)
    except RetryError as error:
        # Not raised: `Uploads` would commit the checkpoint again, which is in storage already.
        warn(
            "older checkpoints were not removed: the next commit tries again",
            step=step,
            why=str(error),
        )


def _make_callbacks(
    start: Start,
    session: Session,
    trainer: RecapTrainer,
    uploads: Uploads,
    candidates: Candidates | None,
    writer: SummaryWriter | None,
) -> list[Any]:
    """Return the trainer's callbacks in the order in which they must be called."""
    run = session.attempt.run
    section = run.config.training
    keeps_best = section.adapter_from == "best_evaluation"
    checkpoint = start.checkpoint
    made: list[Any] = [
        interruptions.OwnIntervals(),
        # Decides whether to save, so it comes before PublishCheckpoints.
        interruptions.StopAtStep(session.stop),
        # These write into the checkpoint, which PublishCheckpoints hands over.
        interruptions.LossWindow(trainer, checkpoint),
        *([KeepReference(trainer, checkpoint)] if run.config.method in HAS_REFERENCE else []),
        evaluations.KeepBest(trainer.model, keeps_best, section.patience, checkpoint),
        interruptions.PublishCheckpoints(uploads.put, lambda: trainer.divergence.is_suspected),
        interruptions.WatchTraining(session.watch.beat, uploads.check),
    ]
    if candidates:
        # After an evaluation that a stop ends, too, so before StopAfterEvaluation.
        made.append(KeepCandidates(trainer, candidates))
    decides = section.adapter_from != "last_step" or section.patience is not None
    bound = evaluations.BoundTime(trainer, section.evaluation_share, not decides, anywhere)
    samples = _make_samples(run, session.stop, trainer, writer, bound)
    made.append(bound)
    # All ranks must call a sharded model; of a whole one, rank 0 alone writes samples.
    if writer or trainer.is_fsdp_enabled:
        made.append(samples)
    if is_first():
        made.append(callbacks.LogPhases(session.phases, session.attempt.timings))
    if writer:
        left = TimeLeft(
            work_of_trainer(trainer, summaries_to_make(run.config, run.data.examples.scoring)),
            bound.seconds_allowed_in,
            lambda: samples.summary_seconds,
        )
        made.append(left)
        made.append(callbacks.LogProgress(writer.add_scalar, _gpu_uses(), left.seconds))
        made.append(callbacks.LogMetrics(seconds_left=left.seconds))
    made.append(evaluations.EvaluateLastStep(trainer))
    made.append(interruptions.StopAfterEvaluation(session.stop))
    if start.rate_factor is not None:
        made.append(interruptions.ScaleLearningRate(start.rate_factor))
    return made


def _gpu_uses() -> Callable[[], list[Use]]:
    nvml = open_nvml(os.environ)
    return nvml.uses if nvml else list


def _make_samples(
    run: Run,
    stop: StopSignal,
    trainer: RecapTrainer,
    writer: SummaryWriter | None,
    bound: evaluations.BoundTime,
) -> SampleSummaries:
    def write_text(name: str, text: str, step: int) -> None:
        if writer:
            writer.add_text(name, text, step)

    def is_skipped() -> bool:
        is_last = trainer.state.global_step >= trainer.state.max_steps
        is_used_up = not is_last and bound.is_used_up()
        # Ranks that share a model must skip the samples together; a single one need not ask.
        if trainer.is_fsdp_enabled:
            return share_stop(stop) or anywhere(is_used_up)
        return stop.requested or is_used_up

    summarize = summarize_in_memory(run, trainer.model)
    count = run.config.training.sample_summaries if run.config.writes_summaries else 0
    return SampleSummaries(
        run.data.examples.scoring[:count],
        lambda conversations: summarize(conversations).texts,
        write_text,
        is_skipped,
        partial(ends_run, stop=stop, model=trainer.model),
    )


def _progress_at_a_stop(attempt: CurrentAttempt, step: int) -> str:
    """Return how far a stopped training is. Only rank 0 knows what is committed."""
    if not is_first():
        return f"stopped by a signal at step {step}; see the log of rank 0 for what is committed"
    if attempt.committed == step:
        return f"stopped by a signal, with step {step} committed"
    newest = "nothing is committed"
    if attempt.committed:
        newest = f"step {attempt.committed} is the newest committed"
    return f"stopped by a signal at step {step}; {newest}"
