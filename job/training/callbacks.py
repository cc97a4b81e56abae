"""What happens at the trainer's steps: progress, logs, TensorBoard, sample summaries, checkpoints, the stop signal.

Each callback does one thing and is called by transformers' Trainer. Knows nothing of configs.
"""

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from job.conversations.record import Conversation
from job.printable import visible
from job.telemetry import Progress, event, progress, warn
from job.training.ranks import bring_together, told_to_stop
from job.training.stop import StopSignal

# What begins a link, an image, HTML, emphasis, code, a heading, a table, a list or a fence.
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>&#~=|+-]")
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
        """Advance."""
        if self._progress:
            self._progress.advance()

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
        """An evaluation's time is not training time; samples are written before this hears of it."""
        self._time, self._tokens = time.monotonic(), state.num_input_tokens_seen

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Nor is a checkpoint's."""
        self._time, self._tokens = time.monotonic(), state.num_input_tokens_seen

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._stack.close()


class SampleSummaries(TrainerCallback):  # type: ignore[misc]
    """Summaries of a few validation conversations as text, at each evaluation: a stop spares them."""

    def __init__(
        self,
        conversations: list[Conversation],
        summarize: Callable[[list[Conversation]], list[str]],
        write_text: Callable[[str, str, int], None],
        spared: Callable[[], bool],
        ends_run: Callable[[Exception], bool],
    ) -> None:
        self._conversations, self._summarize = conversations, summarize
        self._write_text, self._spared, self._ends_run = write_text, spared, ends_run

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Summarize and write down, unless they are `spared`; a failure is logged and ends nothing."""
        if not self._conversations or self._spared():
            return
        try:
            self._write(state.global_step)
        except Exception as error:
            if self._ends_run(error):
                raise
            why = f"{type(error).__name__}: {error}"
            warn("no sample summaries at this evaluation", step=state.global_step, why=why)

    def _write(self, step: int) -> None:
        for conversation, summary in zip(
            self._conversations, self._summarize(self._conversations), strict=True
        ):
            spoken = [(turn.role, turn.text) for turn in conversation.turns]
            written = [("summary", summary), ("reference", conversation.references[0])]
            text = "\n\n---\n\n".join(map(_paragraphs, (spoken, written)))
            name = visible(conversation.id, one_line=True)
            self._write_text(f"samples/{name}", text, step)


def _paragraphs(texts: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"**{_literal(name)}**: {_literal(text)}" for name, text in texts)


def _literal(text: str) -> str:
    """Return the text as Markdown that shows it as it is: TensorBoard would fetch its images."""
    return MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", visible(text))


class OwnIntervals(TrainerCallback):  # type: ignore[misc]
    """Save, evaluate and log as this attempt's config says: the trainer would do as the checkpoint's did.

    Comes before whoever looks at these intervals.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put them in place of those that came with the checkpoint."""
        state.compute_steps(args, state.max_steps)


class LossWindow(TrainerCallback):  # type: ignore[misc]
    """The part of a logged mean loss that lies before a checkpoint goes with it, so that the next mean is the same.

    A process's own file, as the sums differ between processes. Needs to hear of a save before `PublishCheckpoints`.
    """

    def __init__(self, trainer: Any, resumed_from: Path | None) -> None:
        self._trainer, self._resumed_from = trainer, resumed_from

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the sum where the checkpoint left it."""
        path = self._resumed_from / self._name(args) if self._resumed_from else None
        if path is not None and path.exists():
            window = json.loads(path.read_text(encoding="utf-8"))
            self._trainer._tr_loss += window["loss_sum"]
            self._trainer._globalstep_last_logged = window["last_logged_step"]

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the sum beside the weights."""
        window = {
            "loss_sum": self._trainer._tr_loss.item(),
            "last_logged_step": self._trainer._globalstep_last_logged,
        }
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / self._name(args)).write_text(json.dumps(window), encoding="utf-8")

    def _name(self, args: Any) -> str:
        return f"loss_window_{args.process_index}.json"


class EvaluateEnds(TrainerCallback):  # type: ignore[misc]
    """The last step is evaluated like the others; one whose evaluation a stop left, when the run goes on."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate if the step that the checkpoint stands at was due and has no evaluation."""
        step = state.global_step
        due = step and (step % state.eval_steps == 0 or step >= state.max_steps)
        done = any(
            "eval_loss" in entry and entry.get("step") == step for entry in state.log_history
        )
        if due and not done:
            self._trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for the evaluation of the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class PublishCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Hand each checkpoint over to be committed, once every process has written its part of it."""

    def __init__(self, publish: Callable[[Path, int], None], suspected: Callable[[], bool]) -> None:
        self._publish, self._suspected = publish, suspected
        self._postponed = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save only what seems good, later if need be."""
        wanted = control.should_save or self._postponed
        self._postponed = wanted and self._suspected()
        control.should_save = wanted and not self._postponed

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the other processes' random states, then publish from the first."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        bring_together(folder)
        if state.is_world_process_zero:
            self._publish(folder, state.global_step)


class StopAtStep(TrainerCallback):  # type: ignore[misc]
    """Save and stop at the step boundary at which any process was told to stop: none runs on alone.

    It decides about saving, so it comes before whoever looks at that.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agree with the other processes, then save and stop."""
        if told_to_stop(self._stop) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An evaluation may be long and changes nothing: all processes leave it, and the trainer saves and stops."""
        if told_to_stop(self._stop):
            self._stop.check("stopped by a signal while evaluating")


class StopAfterEvaluation(TrainerCallback):  # type: ignore[misc]
    """A stop that came late in an evaluation, when its batches were done, waits for no further step.

    Comes after everything else that an evaluation does.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agree with the other processes; the trainer saves and stops."""
        if told_to_stop(self._stop):
            self._stop.check("stopped by a signal after evaluating")


class Beat(TrainerCallback):  # type: ignore[misc]
    """Tell the watchdog that the training moves, and look after whatever may have failed meanwhile."""

    def __init__(self, beat: Callable[[], None], check: Callable[[], None]) -> None:
        self._beat, self._check = beat, check

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done."""
        self._beat()
        self._check()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """So is a batch of an evaluation."""
        self._beat()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """So is the whole of it; the samples come after."""
        self._beat()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """So is a checkpoint."""
        self._beat()


class SlowDown(TrainerCallback):  # type: ignore[misc]
    """After going back to a checkpoint: a smaller learning rate from there on, which later checkpoints inherit."""

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
        """Scale what the scheduler computes from and what the next step uses."""
        schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)
        schedule.base_lrs = [rate * self._factor for rate in schedule.base_lrs]
        for group in optimizer.param_groups:
            group["lr"] *= self._factor
        schedule._last_lr = [
            group["lr"] for group in optimizer.param_groups
        ]  # what is logged for the next step
