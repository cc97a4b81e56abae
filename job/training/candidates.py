"""Candidates of a selection: the adapter as it was at each evaluation of the validation loss.

Each is written to the local disk at its evaluation, and committed to storage before the next
checkpoint. So a run that resumes from a checkpoint finds there what an uninterrupted one has here.
Which ones are kept depends on the trainer's history alone.
"""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from job.errors import DamagedError, MissingError, RecapError, RetryError
from job.model.adapter import save_weights
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.storage.folders import delete_folder, fetch_folder, publish_folder
from job.storage.store import Store
from job.telemetry import warn
from job.training.checkpoints import list_steps
from job.training.evaluations import LogEntry, evaluations_of
from job.training.prepare import Run
from job.training.sharding import trained_weights

FOLDER = "candidates"
LOSS_KEY = "validation_loss"


@dataclass(frozen=True)
class Candidate:
    """The adapter after a step: the file with its weights, and the validation loss there."""

    step: int
    epoch: float
    validation_loss: float
    weights: Path


def kept_evaluations(evaluations: Sequence[LogEntry], limit: int) -> list[LogEntry]:
    """Return the evaluations whose adapters are candidates, by step.

    They are the last one, and of the others the `limit` - 1 with the smallest validation loss, the
    earlier of two equal ones. One whose loss is no number is never kept. No evaluation that was
    dropped once is kept when later ones follow.
    """
    finite = [each for each in evaluations if math.isfinite(each["eval_loss"])]
    last = [each for each in finite if each is evaluations[-1]]
    others = [each for each in finite if each is not evaluations[-1]]
    best = sorted(others, key=lambda each: each["eval_loss"])[: limit - 1]
    return sorted(best + last, key=lambda each: each["step"])


class Candidates:
    """The candidates of a run, in a local folder and in storage.

    The training's thread calls `new_file` and `drop_unsaved`, and the thread of the uploads
    `commit` and `prune`. `collect` is for afterwards.
    """

    def __init__(self, store: Store, folder: Path, limit: int) -> None:
        self._store = store
        self._folder = folder
        self._limit = limit
        self._committed: set[int] = set()  # steps, of this process
        self.saved_step = 0  # of the newest checkpoint that was handed to the uploads

    def new_file(self, step: int) -> Path:
        """Return the path at which the weights of a new candidate belong. Makes its folder."""
        folder = self._local(step)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / ADAPTER_WEIGHTS

    def drop_unsaved(self, evaluations: Sequence[LogEntry]) -> None:
        """Delete the local candidates that are not kept and that no checkpoint refers to."""
        kept = {int(each["step"]) for each in kept_evaluations(evaluations, self._limit)}
        for each in evaluations:
            step = int(each["step"])
            # Those up to the newest checkpoint may be on their way to storage.
            if step > self.saved_step and step not in kept:
                shutil.rmtree(self._local(step), ignore_errors=True)

    def commit(self, checkpoint: Path) -> None:
        """Commit the candidates that a checkpoint refers to, unless they are in storage."""
        for entry in kept_evaluations(_evaluations_in(checkpoint), self._limit):
            step = int(entry["step"])
            folder = self._local(step)
            # Without a local one, it was committed before the checkpoint that this run began with.
            if step not in self._committed and folder.exists():
                extra = {"step": step, LOSS_KEY: entry["eval_loss"]}
                publish_folder(folder, self._store, _prefix(step), extra)
                self._committed.add(step)

    def prune(self, checkpoint: Path) -> None:
        """Delete the candidates that no checkpoint in storage refers to.

        `checkpoint` is the newest one, which the older ones led to. A failure is only logged: the
        next call deletes what is left.
        """
        try:
            self._prune(_evaluations_in(checkpoint))
        except RetryError as error:
            warn("candidates were not removed: the next commit tries again", why=str(error))

    def collect(self, evaluations: Sequence[LogEntry]) -> list[Candidate]:
        """Return the candidates that are kept, by step. Fetches from storage what is not here.

        One that is missing or damaged there is left out, with a warning.
        """
        found = []
        for entry in kept_evaluations(evaluations, self._limit):
            step = int(entry["step"])
            try:
                if not self._local(step).exists():
                    self._fetch(step, entry["eval_loss"])
            except (MissingError, DamagedError) as error:
                warn("a candidate is left out of the selection", step=step, why=str(error))
                continue
            weights = self._local(step) / ADAPTER_WEIGHTS
            found.append(Candidate(step, entry["epoch"], entry["eval_loss"], weights))
        return found

    def _prune(self, evaluations: Sequence[LogEntry]) -> None:
        needed: set[int] = set()
        for step in list_steps(self._store):
            before = [each for each in evaluations if each["step"] <= step]
            needed |= {int(each["step"]) for each in kept_evaluations(before, self._limit)}
        keys = [entry.key for entry in self._store.list(FOLDER)]
        for name in {key.split("/")[1] for key in keys}:
            if name not in map(_name, needed):
                delete_folder(self._store, f"{FOLDER}/{name}", keys)
        passed = {int(each["step"]) for each in evaluations}
        for step in passed - needed:
            shutil.rmtree(self._local(step), ignore_errors=True)

    def _fetch(self, step: int, loss: float) -> None:
        manifest = fetch_folder(self._store, _prefix(step), self._local(step))
        if manifest.extra.get(LOSS_KEY) != loss:
            shutil.rmtree(self._local(step))
            raise DamagedError(
                f"{self._store.uri}/{_prefix(step)} is not the adapter of this training's step "
                f"{step}: its validation loss is {manifest.extra.get(LOSS_KEY)}, not {loss}"
            )

    def _local(self, step: int) -> Path:
        return self._folder / _name(step)


def candidates_of(run: Run) -> Candidates | None:
    """Return the candidates of the run's selection, None if it has none."""
    section = run.config.training
    if section.adapter_from != "best_metric":
        return None
    return Candidates(run.store, run.work / "candidates", section.selection.candidates)


class KeepCandidates(TrainerCallback):  # type: ignore[misc]
    """Write the adapter of each evaluation as a candidate. Must be called before samples are."""

    def __init__(self, trainer: Any, candidates: Candidates) -> None:
        self._trainer = trainer
        self._candidates = candidates

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the adapter. Collective if the model is sharded."""
        model = self._trainer.model
        weights = trained_weights(model) if self._trainer.is_fsdp_enabled else None
        if not state.is_world_process_zero:
            return
        path = self._candidates.new_file(state.global_step)
        save_weights(self._trainer.accelerator.unwrap_model(model), path, weights)
        self._candidates.drop_unsaved(evaluations_of(state.log_history))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the checkpoint: the candidates before it belong to the uploads from now on."""
        self._candidates.saved_step = state.global_step


def delete_candidates(run: Run) -> None:
    """Delete all candidates of a run that has finished, if it has a selection.

    A failure is only logged: nothing reads them any more.
    """
    if candidates_of(run) is None:
        return
    try:
        for entry in run.store.list(FOLDER):
            run.store.delete(entry.key)
    except RecapError as error:
        remedy = f"delete {run.store.uri}/{FOLDER}"
        warn("candidates of the finished run were not removed", why=str(error), remedy=remedy)


def _evaluations_in(checkpoint: Path) -> list[LogEntry]:
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())
    return evaluations_of(state["log_history"])


def _prefix(step: int) -> str:
    return f"{FOLDER}/{_name(step)}"


def _name(step: int) -> str:
    return f"step-{step:08d}"
