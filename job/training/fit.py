"""The optimization of one attempt: from a checkpoint, or from nothing, to the last step.

A run that has read everything → a trained model. Checkpoints leave in the background; a training that runs away goes
back to one of them where the config says so. Knows nothing of evaluation reports or adapters' folders.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter

from job.errors import DivergedError, RetryError
from job.telemetry import warn
from job.training import checkpoints
from job.training.best import KeepBest
from job.training.callbacks import (
    Beat,
    EvaluateEnds,
    LossWindow,
    PublishCheckpoints,
    SampleSummaries,
    SlowDown,
    StopAtStep,
    TellProgress,
)
from job.training.publish import sync_tensorboard
from job.training.ranks import agree
from job.training.room import make_room
from job.training.scoring import summarizer
from job.training.state import Run
from job.training.stop import StopSignal
from job.training.trainer import RecapTrainer, build_trainer
from job.training.uploads import Patience, Uploads
from job.training.watch import Watch

ROLL_BACKS = 2
SLOWER = 0.5


@dataclass
class Attempt:
    """How far this attempt is, for run.json: last step, seconds by phase, best validation loss, what was published."""

    step: int
    timings: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """What belongs to this process while it trains."""

    writer: SummaryWriter
    stop: StopSignal
    watch: Watch
    attempt: Attempt


def fit(run: Run, checkpoint: Path | None, session: Session) -> RecapTrainer:
    """Train to the end; PreemptedError after a stop signal, DivergedError when nothing helps."""
    slower: float | None = None
    for roll_backs in range(ROLL_BACKS + 1):
        try:
            return _fit_once(run, checkpoint, session, slower)
        except DivergedError as error:
            if run.config.limits.on_divergence == "stop" or roll_backs == ROLL_BACKS:
                raise
            checkpoint, slower = _go_back(run, error), SLOWER
    raise AssertionError


def _go_back(run: Run, error: DivergedError) -> Path:
    """The last checkpoint; every process fetches its own copy, as the first one's thread removes what it committed."""
    PartialState().wait_for_everyone()  # the first one has just committed what it had: all go back to the same
    folder = run.work / "rolled-back" / str(PartialState().process_index)
    checkpoint = checkpoints.fetch_newest(run.store, folder, run.identity())
    agree("checkpoints", checkpoint.name if checkpoint else "none")
    if checkpoint is None:
        raise DivergedError(f"{error}; there is no checkpoint to go back to") from error
    warn("going back to the last checkpoint, with a smaller learning rate", factor=SLOWER, why=str(error))
    return checkpoint


def _fit_once(run: Run, checkpoint: Path | None, session: Session, slower: float | None) -> RecapTrainer:
    limits, stop, watch = run.config.limits, session.stop, session.watch
    trainer = build_trainer(run.config, run.base, run.tokenizer, run.splits, run.work / "checkpoints")
    uploads = Uploads(
        lambda folder, step: commit(run, folder, step),
        lambda: copy_events(run, session.writer),
        Patience(seconds=limits.upload_minutes * 60),
    )
    _add_callbacks(run, trainer, checkpoint, session, uploads)
    if slower is not None:
        trainer.add_callback(SlowDown(slower))
    begun, timings = time.monotonic(), session.attempt.timings
    try:
        with stop.between_steps():
            with watch.training(limits.stall_minutes * 60):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            uploads.finish()
    except Exception:
        uploads.finish()  # whatever happened: what was handed over is good, and what a later attempt goes on from
        raise
    finally:
        timings["train_seconds"] = round(timings.get("train_seconds", 0.0) + time.monotonic() - begun, 3)
        session.attempt.step = trainer.state.global_step
        session.attempt.best.update(_best(trainer.state.log_history))
    return trainer


def _add_callbacks(
    run: Run, trainer: RecapTrainer, checkpoint: Path | None, session: Session, uploads: Uploads
) -> None:
    """In the order in which they hear of a step: who decides about saving comes before who saves."""
    trainable = sum(each.numel() * each.element_size() for each in trainer.model.parameters() if each.requires_grad)
    trainer.make_room = lambda: make_room(Path(trainer.args.output_dir), trainable, uploads.wait)
    section = run.config.training
    callbacks: list[Any] = [StopAtStep(session.stop), LossWindow(trainer, checkpoint)]
    callbacks.append(KeepBest(trainer.model, section.adapter_from == "best_evaluation", section.patience, checkpoint))
    callbacks.append(PublishCheckpoints(uploads.put, lambda: trainer.divergence.suspected))
    callbacks.append(Beat(session.watch.beat, uploads.check))
    first = PartialState().is_main_process
    if first or trainer.is_fsdp_enabled:  # a sharded model answers only where all processes ask it
        samples = run.examples.validation[: section.sample_summaries]
        write: Callable[[str, str, int], None] = session.writer.add_text if first else lambda *_: None
        callbacks.append(SampleSummaries(samples, summarizer(run, trainer.model), write))
    if first:
        callbacks.append(TellProgress(session.writer.add_scalar))
    for callback in [*callbacks, EvaluateEnds(trainer)]:
        trainer.add_callback(callback)


def commit(run: Run, folder: Path, step: int) -> None:
    """Make a checkpoint the newest in storage, then let older ones go."""
    checkpoints.publish_checkpoint(folder, run.store, step, run.identity())
    try:
        checkpoints.prune(run.store, run.config.training.keep_last, step)
    except RetryError as error:  # not to be tried again together with what is committed
        warn("older checkpoints were not removed: the next commit tries again", step=step, why=str(error))


def copy_events(run: Run, writer: SummaryWriter) -> None:
    """Bring TensorBoard's files in storage up to now."""
    if PartialState().is_main_process:
        writer.flush()
        sync_tensorboard(run)


def _best(log_history: list[dict[str, float]]) -> dict[str, float]:
    """The smallest validation loss so far and its step."""
    evaluated = [entry for entry in log_history if "eval_loss" in entry]
    best = min(evaluated, key=lambda entry: entry["eval_loss"], default=None)
    return {"step": best["step"], "validation_loss": best["eval_loss"]} if best else {}
