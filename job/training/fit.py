"""The optimization of one attempt: from a checkpoint, or from nothing, to the last step.

A run that has read everything → a trained model. Checkpoints leave in the background; a training that runs away goes
back to one of them where the config says so. Knows nothing of evaluation reports or adapters' folders.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter

from job.errors import DivergedError, RetryError
from job.telemetry import warn
from job.training import checkpoints
from job.training.best import KeepBest, best_of
from job.training.callbacks import (
    Beat,
    EvaluateEnds,
    LossWindow,
    OwnIntervals,
    PublishCheckpoints,
    SampleSummaries,
    SlowDown,
    StopAfterEvaluation,
    StopAtStep,
    TellProgress,
)
from job.training.publish import sync_tensorboard
from job.training.ranks import agree, is_first, told_to_stop
from job.training.room import make_room
from job.training.scoring import ends_run, summarizer
from job.training.state import Attempt, Run
from job.training.stop import StopSignal
from job.training.trainer import RecapTrainer, build_trainer
from job.training.uploads import Patience, Uploads
from job.training.watch import Watch

ROLL_BACKS = 2
SLOWER = 0.5


@dataclass(frozen=True)
class Session:
    """What belongs to this process while it trains."""

    stop: StopSignal
    watch: Watch
    attempt: Attempt
    writer: SummaryWriter | None = None  # of the first process, for one try


def fit(run: Run, checkpoint: Path | None, session: Session) -> RecapTrainer:
    """Train to the end; PreemptedError after a stop signal, DivergedError when nothing helps."""
    slower: float | None = None
    for roll_backs in range(ROLL_BACKS + 1):
        try:
            with _event_writer(run, checkpoint) as writer:
                return _fit_once(run, checkpoint, replace(session, writer=writer), slower)
        except DivergedError as error:
            if run.config.limits.on_divergence == "stop" or roll_backs == ROLL_BACKS:
                raise _with_newest(error, session.attempt) from error
            checkpoint, slower = _go_back(run, error), SLOWER
        gc.collect()  # the model that diverged lives in cycles, and a GPU may have room for one
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise AssertionError


def _go_back(run: Run, error: DivergedError) -> Path:
    """The last checkpoint; every process fetches its own copy, as the first one's thread removes what it committed."""
    PartialState().wait_for_everyone()  # the first one has just committed what it had: all go back to the same
    folder = run.work / "rolled-back" / str(PartialState().process_index)
    checkpoint = checkpoints.fetch_newest(run.store, folder, run.identity())
    agree("checkpoints", checkpoint.name if checkpoint else "none")
    if checkpoint is None:
        raise DivergedError(f"{error}; there is no checkpoint to go back to") from error
    warn(
        "going back to the last checkpoint, with a smaller learning rate",
        factor=SLOWER,
        why=str(error),
    )
    return checkpoint


@contextmanager
def _event_writer(run: Run, checkpoint: Path | None) -> Iterator[SummaryWriter | None]:
    """TensorBoard's file of the first process; what an earlier one tells of steps beyond the checkpoint is void."""
    if not is_first():
        yield None
        return
    with SummaryWriter(str(run.work / "tensorboard"), purge_step=step_of(checkpoint) + 1) as writer:
        yield writer


def _fit_once(
    run: Run, checkpoint: Path | None, session: Session, slower: float | None
) -> RecapTrainer:
    limits, stop, watch, attempt = run.config.limits, session.stop, session.watch, session.attempt
    trainer = build_trainer(
        run.config, run.base, run.tokenizer, run.splits, run.work / "checkpoints"
    )

    def commit_and_note(folder: Path, step: int) -> None:
        commit(run, folder, step)
        attempt.committed = step

    patience = Patience(seconds=limits.upload_minutes * 60)
    uploads = Uploads(commit_and_note, lambda: copy_events(run, session.writer), patience)
    trainable = sum(
        each.numel() * each.element_size()
        for each in trainer.model.parameters()
        if each.requires_grad
    )
    trainer.make_room = lambda: make_room(Path(trainer.args.output_dir), trainable, uploads.wait)
    _add_callbacks(run, trainer, checkpoint, session, uploads)
    if slower is not None:
        trainer.add_callback(SlowDown(slower))
    begun, timings = time.monotonic(), attempt.timings
    try:
        with stop.between_steps():
            with _all_committed(uploads), watch.training(limits.stall_minutes * 60):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            told_to_stop(stop)
        stop.check(_reached(attempt, trainer.state.global_step))
    finally:
        timings["train_seconds"] = round(
            timings.get("train_seconds", 0.0) + time.monotonic() - begun, 3
        )
        attempt.step = trainer.state.global_step
        attempt.best.update(_best(trainer.state.log_history))
    return trainer


@contextmanager
def _all_committed(uploads: Uploads) -> Iterator[None]:
    """On leaving, wait for what was handed over: it is good, and what a later attempt goes on from."""
    try:
        yield
    except Exception:
        uploads.finish()
        raise
    uploads.finish()


def _with_newest(error: DivergedError, attempt: Attempt) -> DivergedError:
    """Return the error with the checkpoint that is left; the first process alone knows it."""
    if not is_first():
        return error
    if attempt.committed:
        left = f"the newest checkpoint, of step {attempt.committed}, is good"
    else:
        left = "there is no checkpoint yet"
    return DivergedError(f"{error}; {left}")


def _reached(attempt: Attempt, step: int) -> str:
    """How far a stopped training is; only the process that commits can say what is committed."""
    if not is_first():
        return f"stopped by a signal at step {step}; the first process tells what is committed"
    if attempt.committed == step:
        return f"stopped by a signal, with step {step} committed"
    newest = (
        f"step {attempt.committed} is the newest committed"
        if attempt.committed
        else "nothing is committed"
    )
    return f"stopped by a signal at step {step}; {newest}"


def _add_callbacks(
    run: Run, trainer: RecapTrainer, checkpoint: Path | None, session: Session, uploads: Uploads
) -> None:
    """In the order in which they hear of a step: who decides about saving comes before who saves."""
    section = run.config.training
    callbacks: list[Any] = [
        OwnIntervals(),
        StopAtStep(session.stop),
        LossWindow(trainer, checkpoint),
    ]
    callbacks.append(
        KeepBest(
            trainer.model, section.adapter_from == "best_evaluation", section.patience, checkpoint
        )
    )
    callbacks.append(PublishCheckpoints(uploads.put, lambda: trainer.divergence.suspected))
    callbacks.append(Beat(session.watch.beat, uploads.check))
    writer = session.writer
    if writer or trainer.is_fsdp_enabled:  # a sharded model answers only where all processes ask it
        samples = run.examples.validation[: section.sample_summaries]
        write: Callable[[str, str, int], None] = writer.add_text if writer else lambda *_: None
        spared = (
            partial(told_to_stop, session.stop)
            if trainer.is_fsdp_enabled
            else lambda: session.stop.requested
        )
        stop, model = session.stop, trainer.model
        ends = partial(ends_run, model=model, stop=stop)
        callbacks.append(SampleSummaries(samples, summarizer(run, model), write, spared, ends))
    if writer:
        callbacks.append(TellProgress(writer.add_scalar))
    for callback in [*callbacks, EvaluateEnds(trainer), StopAfterEvaluation(session.stop)]:
        trainer.add_callback(callback)


def commit(run: Run, folder: Path, step: int) -> None:
    """Make a checkpoint the newest in storage, then let older ones go."""
    checkpoints.publish_checkpoint(folder, run.store, step, run.identity())
    try:
        checkpoints.prune(run.store, run.config.training.keep_last, step)
    except RetryError as error:  # not to be tried again together with what is committed
        warn(
            "older checkpoints were not removed: the next commit tries again",
            step=step,
            why=str(error),
        )


def copy_events(run: Run, writer: SummaryWriter | None) -> None:
    """Bring TensorBoard's files in storage up to now."""
    if writer:
        writer.flush()
        sync_tensorboard(run)


def step_of(checkpoint: Path | None) -> int:
    """The step after which a checkpoint was written; 0 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _best(log_history: list[dict[str, float]]) -> dict[str, float]:
    """The smallest validation loss so far and its step."""
    evaluated = [entry for entry in log_history if "eval_loss" in entry]
    best = best_of([entry["eval_loss"] for entry in evaluated], None)[0]
    return (
        {}
        if best is None
        else {"step": evaluated[best]["step"], "validation_loss": evaluated[best]["eval_loss"]}
    )
