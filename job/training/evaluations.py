"""Evaluations between steps: when they happen, which is the best, and when they end the training.

Its callbacks are called by transformers in the order in which `fit` adds them.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from job.model import Model
from job.telemetry import event
from job.training.intervals import seconds_for_evaluations
from job.training.sharding import put_back, trained_weights

LogEntry = Mapping[str, float]  # in the trainer's history
BEST_ADAPTER = "best_adapter.safetensors"  # in a checkpoint
SKIPPED = "evaluation_skipped"  # in the trainer's history


class EvaluateLastStep(TrainerCallback):  # type: ignore[misc]
    """Evaluate the last step too, and on resume a step whose evaluation was interrupted."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate if the checkpoint's step was due, has no evaluation, and was not skipped."""
        step = state.global_step
        is_due = step and (step % state.eval_steps == 0 or step >= state.max_steps)
        decided = [entry for entry in state.log_history if "eval_loss" in entry or SKIPPED in entry]
        is_decided = any(entry.get("step") == step for entry in decided)
        if is_due and not is_decided:
            self._trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


@dataclass(frozen=True)
class Choice:
    """The best evaluation so far, by index, and whether the training should end with it."""

    best: int | None
    is_over: bool


def choose_best(losses: Sequence[float], patience: int | None) -> Choice:
    """Return the smallest finite loss. It is over once `patience` others follow it in a row.

    Later losses do not count any more.
    """
    best: int | None = None
    others = 0
    for index, loss in enumerate(losses):
        if math.isfinite(loss) and (best is None or loss < losses[best]):
            best = index
            others = 0
        else:
            others += 1
        if patience is not None and others >= patience:
            return Choice(best, is_over=True)
    return Choice(best, is_over=False)


def best_evaluation(log_history: Sequence[LogEntry], patience: int | None) -> LogEntry | None:
    """Return the trainer's log entry of the best evaluation, None if no loss is finite."""
    evaluations = evaluations_of(log_history)
    best = choose_best([entry["eval_loss"] for entry in evaluations], patience).best
    return None if best is None else evaluations[best]


def evaluations_of(log_history: Sequence[LogEntry]) -> list[LogEntry]:
    """Return the entries of the trainer's log that are evaluations."""
    return [entry for entry in log_history if "eval_loss" in entry]


class BoundTime(TrainerCallback):  # type: ignore[misc]
    """Skip an evaluation that is due where those so far have had their share of the time.

    A minute is always allowed, and evaluations that decide are never skipped. Must be called before
    EvaluateLastStep, which evaluates in any case.
    """

    def __init__(
        self,
        trainer: Any,
        share: float,
        may_skip: bool,
        anywhere: Callable[[bool], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._share = share
        self._may_skip = may_skip
        self._anywhere = anywhere
        self._clock = clock
        self._began = clock()
        self._skipped = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        is_last = state.global_step >= state.max_steps
        if not control.should_evaluate or is_last or not self._may_skip:
            return
        seconds = self._trainer.evaluation_seconds
        expected = seconds[-1] if seconds else 0.0
        # Collective: the ranks' clocks differ.
        if self._anywhere(self.is_used_up(expected)):
            control.should_evaluate = False
            self._skipped += 1
            # Goes with the checkpoint: a run that resumes at this step skips it, too.
            state.log_history.append({SKIPPED: 1.0, "step": state.global_step})
            event("evaluation skipped: training.evaluation_share", step=state.global_step)

    def is_used_up(self, expected_seconds: float = 0.0) -> bool:
        """Return True if evaluations, with one more of this time, have more than their share."""
        spent: float = sum(self._trainer.evaluation_seconds) + expected_seconds
        return spent > seconds_for_evaluations(self._share, self._clock() - self._began)

    def seconds_allowed_in(self, seconds: float) -> float:
        """Return how much of a training of so many seconds evaluations may take in all."""
        return seconds_for_evaluations(self._share, seconds) if self._may_skip else math.inf

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        spent = sum(self._trainer.evaluation_seconds)
        share = spent / max(self._clock() - self._began, 1e-9)
        event(
            "time of the training for evaluations and sample summaries",
            seconds=round(spent, 1),
            share=round(share, 3),
            evaluations=len(self._trainer.evaluation_seconds),
            skipped=self._skipped,
        )


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Keep the adapter of the best evaluation, and end the training if no better one follows.

    The copy goes with each checkpoint, so that a resumed run chooses as one that was never
    interrupted. Must be called before PublishCheckpoints at a save.
    """

    def __init__(
        self, model: Model, keeps: bool, patience: int | None, resumed_from: Path | None
    ) -> None:
        self._model = model
        self._keeps = keeps
        self._patience = patience
        self._resumed_from = resumed_from
        # None before the first evaluation. Empty on the ranks of a sharded model but the first.
        self._weights: dict[str, torch.Tensor] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Load the checkpoint's copy. Its evaluations may have ended the training already."""
        path = self._resumed_from / BEST_ADAPTER if self._resumed_from else None
        if path is not None and path.exists():
            self._weights = load_file(str(path))
        control.should_training_stop = self._choose(state).is_over

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the adapter if it is the best so far. Stop the training if patience has run out."""
        choice = self._choose(state)
        is_best = choice.best == len(evaluations_of(state.log_history)) - 1
        if self._keeps and is_best:
            self._weights = trained_weights(self._model)
        if choice.is_over and not control.should_training_stop:
            control.should_training_stop = True
            event(
                "no smaller validation loss: the training ends",
                evaluations=self._patience,
                step=state.global_step,
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._weights and state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(self._weights, str(folder / BEST_ADAPTER))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the best adapter back into the model. Collective if it is sharded."""
        if self._weights is None:
            return
        put_back(self._model, self._weights)
        best = best_evaluation(state.log_history, self._patience)
        if best is not None:
            event(
                "the best evaluation's adapter is taken",
                step=best["step"],
                validation_loss=best["eval_loss"],
            )

    def _choose(self, state: Any) -> Choice:
        evaluations = evaluations_of(state.log_history)
        return choose_best([entry["eval_loss"] for entry in evaluations], self._patience)
