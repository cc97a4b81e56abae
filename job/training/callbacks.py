"""Callbacks of the trainer that log its numbers: progress, curves, metrics.

transformers calls them in the order in which `fit` adds them.
"""

import math
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from transformers import TrainerCallback

from job.gpus.lines import mean_use
from job.gpus.nvml import Use
from job.telemetry import Phases, Progress, event, log_metrics, progress

# TensorBoard's names, by the trainer's.
SCALARS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "tokens_per_second": "train/tokens_per_second",
    "memory_gib": "train/memory_gib",
    "epoch": "train/epoch",
    "eval_loss": "validation/loss",
    # Of preferences, by TRL's names.
    "rewards/chosen": "train/reward_chosen",
    "rewards/rejected": "train/reward_rejected",
    "rewards/margins": "train/reward_margin",
    "rewards/accuracies": "train/reward_accuracy",
    "kl": "train/kl",
    "eval_rewards/chosen": "validation/reward_chosen",
    "eval_rewards/rejected": "validation/reward_rejected",
    "eval_rewards/margins": "validation/reward_margin",
    "eval_rewards/accuracies": "validation/reward_accuracy",
    "eval_kl": "validation/kl",
    "gpu_utilization": "gpu/utilization",
    "gpu_memory": "gpu/memory",
}
SECONDS_BETWEEN_METRICS = 60.0
SecondsLeft = Callable[[Any], float | None]  # of a run, by the trainer's state


def unknown_time(state: Any) -> None:
    """Return None, as before steps were measured."""


class LogProgress(TrainerCallback):  # type: ignore[misc]
    """Show a progress bar over steps, log the trainer's numbers, and write them as curves.

    Adds tokens, tokens per second and memory to the trainer's own history, which checkpoints and
    the report have. Beside each number, the use of the GPUs at that moment is written as curves.
    """

    def __init__(
        self,
        write_scalar: Callable[[str, float, int], None],
        gpu_uses: Callable[[], list[Use]] = list,
        seconds_left: SecondsLeft = unknown_time,
    ) -> None:
        self._write_scalar = write_scalar
        self._gpu_uses = gpu_uses
        self._seconds_left = seconds_left
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._last_time = time.monotonic()
        self._last_tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        bar = progress("training steps", state.max_steps, "step", state.global_step)
        self._bar = self._stack.enter_context(bar)
        self._restart_clock(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar:
            self._bar.advance()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        numbers = {name: float(value) for name, value in logs.items() if name in SCALARS}
        if "loss" not in numbers and "eval_loss" not in numbers:
            return

        state.log_history[-1]["tokens"] = state.num_input_tokens_seen
        if "loss" in numbers:
            tokens = state.num_input_tokens_seen - self._last_tokens
            seconds = time.monotonic() - self._last_time
            measured = {
                "tokens_per_second": tokens / max(seconds, 1e-9),
                "memory_gib": used_memory_gib(),
            }
            numbers |= measured
            state.log_history[-1] |= measured
            self._restart_clock(state)

        left = self._seconds_left(state)
        eta = {} if left is None else {"eta_seconds": left}
        event("step", step=state.global_step, of=state.max_steps, **numbers, **eta)
        for name, value in numbers.items():
            if math.isfinite(value):
                self._write_scalar(SCALARS[name], value, state.global_step)
        for name, (value, _unit) in mean_use(self._gpu_uses()).items():
            self._write_scalar(SCALARS[name], value, state.global_step)

    # Evaluations and checkpoints are no training time. Samples are generated before LogProgress
    # hears of the evaluation.

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restart_clock(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restart_clock(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stack.close()

    def _restart_clock(self, state: Any) -> None:
        self._last_time = time.monotonic()
        self._last_tokens = state.num_input_tokens_seen


def used_memory_gib() -> float:
    """Return the largest memory that this process has held: of its GPU, or of the host without."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_reserved()) / 2**30
    # In KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class LogPhases(TrainerCallback):  # type: ignore[misc]
    """Log after the first step how long each phase up to it took, and note it in `timings`."""

    def __init__(self, phases: Phases, timings: dict[str, float]) -> None:
        self._phases = phases
        self._timings = timings

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._phases.end_last("first_step")
        self._timings.update(self._phases.seconds)


class LogMetrics(TrainerCallback):  # type: ignore[misc]
    """Log the training's numbers as metrics: at most once a minute, and at the end.

    A line shows that steps or evaluations advance. An alarm can watch for its absence.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        seconds_left: SecondsLeft = unknown_time,
    ) -> None:
        self._clock = clock
        self._seconds_left = seconds_left
        self._last_line = clock()
        self._last_time = self._last_line  # of the tokens that the next line counts
        self._last_tokens = 0.0
        self._loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_line = self._clock()
        self._restart_clock(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        self._loss = logs.get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._is_due():
            self._log(state)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._is_due():
            self._restart_clock(state)  # an evaluation is no slow training
            self._log(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restart_clock(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restart_clock(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._log(state)

    def _is_due(self) -> bool:
        return self._clock() - self._last_line >= SECONDS_BETWEEN_METRICS

    def _log(self, state: Any) -> None:
        metrics: dict[str, tuple[float, str]] = {
            "step": (state.global_step, "Count"),
            "steps": (state.max_steps, "Count"),
        }
        if self._loss is not None and math.isfinite(self._loss):
            metrics["loss"] = (self._loss, "None")
        # None right after an evaluation or a checkpoint.
        tokens = state.num_input_tokens_seen - self._last_tokens
        if tokens:
            seconds = self._clock() - self._last_time
            metrics["tokens_per_second"] = (tokens / max(seconds, 1e-9), "Count/Second")
        left = self._seconds_left(state)
        eta = {} if left is None else {"eta_seconds": left}
        log_metrics("training", metrics, **eta)
        self._last_line = self._clock()
        self._restart_clock(state)

    def _restart_clock(self, state: Any) -> None:
        self._last_time = self._clock()
        self._last_tokens = state.num_input_tokens_seen
