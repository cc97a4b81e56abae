"""Callbacks of the trainer for interruptions: stop signals, checkpoints, exact resume, roll-backs.

transformers calls them in the order in which `fit` adds them.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from job.training.checkpoints import LOSS_WINDOW
from job.training.ranks import bring_together, share_stop
from job.training.stop import StopSignal


class StopAtStep(TrainerCallback):  # type: ignore[misc]
    """Save and stop at the first step boundary after a stop signal on any rank.

    Must be called before the callbacks that read `should_save`.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Collective, so it comes first: a rank that did not call it would block the others.
        is_stopped = share_stop(self._stop)
        if is_stopped and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
            control.should_evaluate = False

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the evaluation on every rank: it may be long, and changes nothing.

        Raise PreemptedError, which RecapTrainer turns into a save and the end.
        """
        if share_stop(self._stop):
            self._stop.check("stopped by a signal while evaluating")


class StopAfterEvaluation(TrainerCallback):  # type: ignore[misc]
    """Stop after an evaluation if the signal came too late in it for StopAtStep.

    Must be called after all other callbacks of an evaluation.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raise PreemptedError on every rank once any has received a stop signal."""
        if share_stop(self._stop):
            self._stop.check("stopped by a signal after evaluating")


class PublishCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Publish each checkpoint once every rank has written its part of it."""

    def __init__(
        self, publish: Callable[[Path, int], None], is_suspected: Callable[[], bool]
    ) -> None:
        self._publish = publish
        self._is_suspected = is_suspected
        self._is_postponed = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Postpone a save while the training may be diverging."""
        is_due = control.should_save or self._is_postponed
        self._is_postponed = is_due and self._is_suspected()
        control.should_save = is_due and not self._is_postponed

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        bring_together(folder)
        if state.is_world_process_zero:
            self._publish(folder, state.global_step)


class WatchTraining(TrainerCallback):  # type: ignore[misc]
    """Report each sign of progress to the watchdog, and raise the errors of the uploads."""

    def __init__(self, beat: Callable[[], None], check_uploads: Callable[[], None]) -> None:
        self._beat = beat
        self._check_uploads = check_uploads

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._beat()
        self._check_uploads()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._beat()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._beat()  # samples, which come next, have the whole limit to themselves

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._beat()


class OwnIntervals(TrainerCallback):  # type: ignore[misc]
    """Save, evaluate and log at this config's intervals, not at those that the checkpoint contains.

    Must be called before the callbacks that read them.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


class LossWindow(TrainerCallback):  # type: ignore[misc]
    """Store in each checkpoint what transformers does not, and an exact resume needs.

    That are the sums since the last log, of which the next means are made, and the size of
    micro-batches, which may have become smaller for want of memory. Each rank has a file of its
    own, as the sums differ. Must be called before PublishCheckpoints at a save.
    """

    def __init__(self, trainer: Any, resumed_from: Path | None) -> None:
        self._trainer = trainer
        self._resumed_from = resumed_from

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        path = self._resumed_from / _window_name(args) if self._resumed_from else None
        if path is None or not path.exists():
            return
        window = json.loads(path.read_text(encoding="utf-8"))
        # transformers has just set both to their values for a new training.
        self._trainer._tr_loss += window["loss_sum"]
        self._trainer.sums += self._trainer.sums.new_tensor(window["sums"])
        self._trainer._globalstep_last_logged = window["last_logged_step"]
        budget = self._trainer.budget
        self._trainer.budget = replace(budget, tokens=window["micro_batch_tokens"])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        window = {
            "loss_sum": self._trainer._tr_loss.item(),
            "sums": self._trainer.sums.tolist(),
            "last_logged_step": self._trainer._globalstep_last_logged,
            "micro_batch_tokens": self._trainer.budget.tokens,
        }
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / _window_name(args)).write_text(json.dumps(window), encoding="utf-8")


def _window_name(args: Any) -> str:
    # `bring_together` finds the file by the rank at its end.
    return f"{LOSS_WINDOW}{args.process_index}.json"


class ScaleLearningRate(TrainerCallback):  # type: ignore[misc]
    """Scale the learning rate of a training that went back to a checkpoint.

    Later checkpoints inherit the smaller rate.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)  # out of accelerate's wrapper
        # The scheduler computes each rate from base_lrs, but only after the next step: the rate of
        # that step is already in the optimizer, and _last_lr is the one that is logged for it.
        schedule.base_lrs = [rate * self._factor for rate in schedule.base_lrs]
        for group in optimizer.param_groups:
            group["lr"] *= self._factor
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]
