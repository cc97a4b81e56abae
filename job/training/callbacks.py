"""What happens at the trainer's steps: progress, logs, TensorBoard, sample summaries, checkpoints, the stop signal.

Each callback does one thing and is called by transformers' Trainer. Knows nothing of configs.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from job.conversations.record import Conversation
from job.telemetry import Progress, event, progress
from job.training.stop import StopSignal

SCALARS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "tokens_per_second": "train/tokens_per_second",
    "epoch": "train/epoch",
    "eval_loss": "validation/loss",
}


class TellProgress(TrainerCallback):  # type: ignore[misc]
    """A progress bar over optimizer steps, and an event with the numbers whenever the trainer logs."""

    def __init__(self, write_scalar: Callable[[str, float, int], None]) -> None:
        self._write_scalar = write_scalar
        self._stack = ExitStack()
        self._progress: Progress | None = None
        self._time, self._tokens = time.monotonic(), 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar where the run goes on."""
        self._progress = self._stack.enter_context(progress("training", state.max_steps, "step"))
        self._progress.advance(state.global_step)
        self._time, self._tokens = time.monotonic(), state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance; the last step is evaluated like the others."""
        if self._progress:
            self._progress.advance()
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Tell the trainer's numbers and the tokens per second since the last ones."""
        numbers = {name: float(value) for name, value in logs.items() if name in SCALARS}
        if "loss" in numbers:
            now, tokens = time.monotonic(), state.num_input_tokens_seen
            numbers["tokens_per_second"] = (tokens - self._tokens) / max(now - self._time, 1e-9)
            self._time, self._tokens = now, tokens
        if "loss" not in numbers and "eval_loss" not in numbers:
            return
        event("step", step=state.global_step, of=state.max_steps, **numbers)
        for name, value in numbers.items():
            if math.isfinite(value):
                self._write_scalar(SCALARS[name], value, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An evaluation's time is not training time."""
        self._time, self._tokens = time.monotonic(), state.num_input_tokens_seen

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._stack.close()


class SampleSummaries(TrainerCallback):  # type: ignore[misc]
    """Summaries of a few validation conversations as text, at each evaluation."""

    def __init__(
        self,
        conversations: list[Conversation],
        summarize: Callable[[list[Conversation]], list[str]],
        write_text: Callable[[str, str, int], None],
    ) -> None:
        self._conversations, self._summarize, self._write_text = conversations, summarize, write_text

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Summarize and write down."""
        if not self._conversations:
            return
        for conversation, summary in zip(self._conversations, self._summarize(self._conversations), strict=True):
            turns = "\n\n".join(f"**{turn.role}**: {turn.text}" for turn in conversation.turns)
            text = f"{turns}\n\n---\n\n**summary**: {summary}\n\n**reference**: {conversation.references[0]}"
            self._write_text(f"samples/{conversation.id}", text, state.global_step)


class PublishCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Commit each checkpoint to storage, once every process has written its part of it."""

    def __init__(self, publish: Callable[[Path, int], None]) -> None:
        self._publish = publish

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the other processes' random states, then publish from the first."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            self._publish(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)


class StopAtStep(TrainerCallback):  # type: ignore[misc]
    """Save and stop at the step boundary at which any process was told to stop: none runs on alone."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agree with the other processes, then save and stop."""
        flag = torch.tensor([int(self._stop.requested)], device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        if flag.item() and state.global_step < state.max_steps:
            self._stop.requested = True
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
