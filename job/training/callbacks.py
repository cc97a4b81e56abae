"""Callbacks of the trainer that log and choose: progress, curves, samples, the best adapter.

transformers calls them in the order in which `fit` adds them.
"""

import math
import re
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from job.conversations.record import Conversation
from job.gpus.lines import mean_use
from job.gpus.nvml import Use
from job.model import Model
from job.printable import visible
from job.telemetry import Progress, event, log_metrics, progress, warn
from job.training.sharding import put_back, trained_weights

# Begins a link, an image, HTML, emphasis, code, a heading, a table, a list or a fence.
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>&#~=|+-]")
# TensorBoard's names, by the trainer's.
SCALARS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "tokens_per_second": "train/tokens_per_second",
    "memory_gib": "train/memory_gib",
    "epoch": "train/epoch",
    "eval_loss": "validation/loss",
    "gpu_utilization": "gpu/utilization",
    "gpu_memory": "gpu/memory",
}
BEST_ADAPTER = "best_adapter.safetensors"  # in a checkpoint
SECONDS_BETWEEN_METRICS = 60.0


class LogProgress(TrainerCallback):  # type: ignore[misc]
    """Show a progress bar over steps, log the trainer's numbers, and write them as curves.

    Adds tokens per second and memory to the trainer's own history, which checkpoints and the report
    have. Beside each number, the use of the GPUs at that moment is written as curves.
    """

    def __init__(
        self,
        write_scalar: Callable[[str, float, int], None],
        gpu_uses: Callable[[], list[Use]] = list,
    ) -> None:
        self._write_scalar = write_scalar
        self._gpu_uses = gpu_uses
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._last_time = time.monotonic()
        self._last_tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = self._stack.enter_context(progress("training steps", state.max_steps, "step"))
        self._bar.advance(state.global_step)
        self._restart_clock(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar:
            self._bar.advance()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        numbers = {name: float(value) for name, value in logs.items() if name in SCALARS}
        if "loss" not in numbers and "eval_loss" not in numbers:
            return

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

        event("step", step=state.global_step, of=state.max_steps, **numbers)
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


class LogMetrics(TrainerCallback):  # type: ignore[misc]
    """Log the training's numbers as metrics: at most once a minute, and at the end.

    A line shows that steps or evaluations advance. An alarm can watch for its absence.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
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
        log_metrics("training", metrics)
        self._last_line = self._clock()
        self._restart_clock(state)

    def _restart_clock(self, state: Any) -> None:
        self._last_time = self._clock()
        self._last_tokens = state.num_input_tokens_seen


class SampleSummaries(TrainerCallback):  # type: ignore[misc]
    """Write summaries of a few validation conversations as text, at each evaluation."""

    def __init__(
        self,
        conversations: list[Conversation],
        summarize: Callable[[list[Conversation]], list[str]],
        write_text: Callable[[str, str, int], None],
        is_stopping: Callable[[], bool],
        ends_run: Callable[[Exception], bool],
    ) -> None:
        self._conversations = conversations
        self._summarize = summarize
        self._write_text = write_text
        self._is_stopping = is_stopping
        self._ends_run = ends_run

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Summarize and write, unless the run is stopping. A failure is logged and ends nothing.

        Raises the errors for which `ends_run` returns True.
        """
        if not self._conversations or self._is_stopping():
            return
        try:
            self._write(state.global_step)
        except Exception as error:
            if self._ends_run(error):
                raise
            why = f"{type(error).__name__}: {error}"
            warn("no sample summaries at this evaluation", step=state.global_step, why=why)

    def _write(self, step: int) -> None:
        summaries = self._summarize(self._conversations)
        for conversation, summary in zip(self._conversations, summaries, strict=True):
            spoken = _paragraphs([(turn.role, turn.text) for turn in conversation.turns])
            reference = conversation.references[0]
            written = _paragraphs([("summary", summary), ("reference", reference)])
            name = visible(conversation.id, one_line=True)
            self._write_text(f"samples/{name}", f"{spoken}\n\n---\n\n{written}", step)


def _paragraphs(texts: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"**{_literal(name)}**: {_literal(text)}" for name, text in texts)


def _literal(text: str) -> str:
    """Return the text as Markdown that shows it as it is: TensorBoard would fetch its images."""
    return MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", visible(text))


class EvaluateLastStep(TrainerCallback):  # type: ignore[misc]
    """Evaluate the last step too, and on resume a step whose evaluation was interrupted."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate if the checkpoint's step was due and has no evaluation."""
        step = state.global_step
        is_due = step and (step % state.eval_steps == 0 or step >= state.max_steps)
        is_done = any(entry.get("step") == step for entry in evaluations_of(state.log_history))
        if is_due and not is_done:
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


def best_evaluation(
    log_history: list[dict[str, float]], patience: int | None
) -> dict[str, float] | None:
    """Return the trainer's log entry of the best evaluation, None if no loss is finite."""
    evaluations = evaluations_of(log_history)
    best = choose_best([entry["eval_loss"] for entry in evaluations], patience).best
    return None if best is None else evaluations[best]


def evaluations_of(log_history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the entries of the trainer's log that are evaluations."""
    return [entry for entry in log_history if "eval_loss" in entry]


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
