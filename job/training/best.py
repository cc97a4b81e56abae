"""The best evaluation: its adapter is remembered while the training goes on, and without a better one it may end.

Validation losses, in their order → which one counts, and whether it is over. What is remembered goes with each
checkpoint, so that a resumed run chooses as one that never stopped. Knows nothing of configs.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from job.model import Model
from job.telemetry import event
from job.training.sharding import put_back, trained_weights

FILE = "best_adapter.safetensors"


def best_of(losses: Sequence[float], patience: int | None) -> tuple[int | None, bool]:
    """The index of the smallest loss that is a number, and whether `patience` others came after it in a row.

    What comes after that does not count any more.
    """
    best, since = None, 0
    for index, loss in enumerate(losses):
        if math.isfinite(loss) and (best is None or loss < losses[best]):
            best, since = index, 0
        else:
            since += 1
        if patience is not None and since >= patience:
            return best, True
    return best, False


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Remember the adapter of the best evaluation, where that is wanted, and end the training without a better one.

    Needs to hear of a save before `PublishCheckpoints`.
    """

    def __init__(
        self, model: Model, wanted: bool, patience: int | None, resumed_from: Path | None
    ) -> None:
        self._model, self._wanted, self._patience, self._resumed_from = (
            model,
            wanted,
            patience,
            resumed_from,
        )
        self._weights: dict[str, torch.Tensor] | None = (
            None  # nothing in it where another process keeps them
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up what the checkpoint remembers; the training that it is of may have been over."""
        path = self._resumed_from / FILE if self._resumed_from else None
        if path is not None and path.exists():
            self._weights = load_file(str(path))
        control.should_training_stop = best_of(
            [each["eval_loss"] for each in _evaluations(state)], self._patience
        )[1]

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the adapter if it is the best so far; ask for the end if too many were not."""
        evaluated = _evaluations(state)
        best, over = best_of([entry["eval_loss"] for entry in evaluated], self._patience)
        if self._wanted and best == len(evaluated) - 1:
            self._weights = trained_weights(self._model)
        if over and not control.should_training_stop:
            control.should_training_stop = True
            event(
                "no smaller validation loss: the training ends",
                evaluations=self._patience,
                step=state.global_step,
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what is remembered beside the weights."""
        if self._weights and state.is_world_process_zero:
            save_file(
                self._weights, str(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the best adapter in place of the last one."""
        if self._weights is None:
            return
        put_back(self._model, self._weights)
        evaluated = _evaluations(state)
        best = best_of([entry["eval_loss"] for entry in evaluated], self._patience)[0]
        if best is not None:
            taken = evaluated[best]
            event(
                "the best evaluation's adapter is taken",
                step=taken["step"],
                validation_loss=taken["eval_loss"],
            )


def _evaluations(state: Any) -> list[dict[str, float]]:
    return [entry for entry in state.log_history if "eval_loss" in entry]
