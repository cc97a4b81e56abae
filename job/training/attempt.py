"""The attempt of this process at the run: what it has reached, and its entry in run.json."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from job.config.load import resolved_yaml
from job.environment import describe
from job.errors import PreemptedError, RecapError, Stopped
from job.model.quantization import FourBitShare, WeightsInMemory
from job.prompt.template import prompt_digest
from job.telemetry import warn
from job.training import journal
from job.training.prepare import Run
from job.training.ranks import is_first
from job.training.run_prompt import FACT, write_run_prompt
from job.training.start import FACT as START

MAX_CRASHES = 2  # in the same work; one may be the machine's fault
# Facts of an attempt that hold for the next ones if all they do is to publish.
OF_PUBLISHING = ("timings", "best", "weights", "reload", "published", "left_out", "gate")


@dataclass
class CurrentAttempt:
    """The progress of this attempt. Its mappings become `facts` of run.json as they are filled."""

    run: Run
    step: int  # the last one done
    committed: int  # the newest one in storage; known to rank 0 only
    timings: dict[str, float] = field(default_factory=dict)  # seconds, by part
    best: dict[str, float] = field(default_factory=dict)  # step and validation loss
    selection: dict[str, Any] = field(default_factory=dict)  # facts of a `SelectionCurve`
    passes: dict[str, Any] = field(default_factory=dict)  # each `ChosenPass`, by its step
    rows: dict[str, Any] = field(default_factory=dict)  # facts of the rows of a pass
    weights: dict[str, Any] = field(default_factory=dict)  # facts of `weights_in_memory`
    reload: dict[str, Any] = field(default_factory=dict)  # facts of `Reload`
    published: dict[str, str] = field(default_factory=dict)  # where to, by `adapter` and `hub`
    left_out: dict[str, str] = field(default_factory=dict)  # why, by what is not published
    gate: dict[str, Any] = field(default_factory=dict)  # the verdict; empty without a gate
    entry: journal.Journal | None = None  # run.json; on rank 0 only
    weights_in_memory: WeightsInMemory | None = None  # of the base, once it is loaded

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note the duration of the block as `name`. Blocks of the same name add up."""
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = self.timings.get(name, 0.0) + time.monotonic() - start
            self.timings[name] = round(seconds, 3)

    def note_weights(self, weights: WeightsInMemory) -> None:
        """Note what of the base is in memory, for run.json, the report and the card."""
        self.weights_in_memory = weights
        self.weights.update(weights.facts())

    def take_over(self, before: journal.Journal) -> None:
        """Take over what the attempts before have noted: this one may only go on publishing."""
        for name in (*OF_PUBLISHING, "selection", "passes", "rows"):
            getattr(self, name).update(before.facts.get(name, {}))
        if "auto_class" in self.weights:
            self.weights_in_memory = _weights_of(self.weights)

    def begin_anew(self) -> None:
        """Forget what the attempts before have published: this one does it again.

        A selection stays: an attempt that ended after it need not have made it for nothing.
        """
        for name in OF_PUBLISHING:
            getattr(self, name).clear()
        self.weights_in_memory = None

    def published_step(self) -> int:
        """Return the step after which the adapter to be published was."""
        if self.selection:
            return int(self.selection["chosen"])
        if self.run.config.training.adapter_from == "best_evaluation" and self.best:
            return int(self.best["step"])
        return self.step

    def has_crashed_too_often(self, danger: journal.Danger) -> bool:
        """Return True if this killed earlier attempts. False except on rank 0."""
        return self.entry is not None and journal.crashes(self.entry, danger) >= MAX_CRASHES

    @contextmanager
    def noting(self, danger: journal.Danger) -> Iterator[None]:
        """Note in run.json that the block is under way, in case that kills the process.

        An exception leaves the note there, and a stop signal deletes it (`journal.end`).
        """
        self._note(danger, is_on=True)
        yield
        self._note(danger, is_on=False)

    def save_facts(self) -> None:
        """Write run.json with what the mappings have by now. A no-op except on rank 0.

        Where that fails, the next write has them.
        """
        if self.entry is None:
            return
        try:
            journal.save(self.run.store, self.entry)
        except RecapError as error:
            warn("run.json could not be written: its next version has it", why=str(error))

    def _note(self, danger: journal.Danger, is_on: bool) -> None:
        if self.entry is not None:
            self.entry = journal.note_danger(self.run.store, self.entry, danger, is_on)


@contextmanager
def record_attempt(run: Run, first_step: int, started: str) -> Iterator[CurrentAttempt]:
    """Write config.yaml, and to run.json that the attempt has begun, and how the block ended.

    `started` is when, in UTC. Only rank 0 writes.
    """
    attempt = CurrentAttempt(run, step=first_step, committed=first_step)
    if not is_first():
        yield attempt
        return

    run.store.write("config.yaml", resolved_yaml(run.config).encode())
    attempt.entry = _begin(attempt, started)
    try:
        yield attempt
    except BaseException as error:
        is_preempted = isinstance(error, PreemptedError | Stopped)
        reason = f"{type(error).__name__}: {error}"
        try:
            _end(attempt, "preempted" if is_preempted else "failed", reason)
        except RecapError as unwritten:
            # The error that ended the attempt matters more than this one.
            warn("run.json could not be written", why=str(unwritten))
        raise

    reason = "finished"
    for name, why in attempt.left_out.items():
        reason += f", without {name}: {why}"
    if attempt.gate:
        reason += f"; {attempt.gate['verdict']}"
    _end(attempt, "finished", reason)


def _begin(attempt: CurrentAttempt, started: str) -> journal.Journal:
    run = attempt.run
    before = journal.read_journal(run.store)
    if before:
        # Before anything is written: this attempt may be killed before it knows what it has to do.
        attempt.take_over(before)
    facts = {
        "environment": describe(),
        "processes": run.processes,
        "data": run.counts(),
        "files": run.data.examples.files,
        "base": run.base.identity(),
        FACT: prompt_digest(run.data.prompt),
        START: run.start.pin.facts() if run.start else None,
        # The same mappings that the attempt fills: each later write has what they have by then.
        "timings": attempt.timings,
        "best": attempt.best,
        "selection": attempt.selection,
        "passes": attempt.passes,
        "rows": attempt.rows,
        "weights": attempt.weights,
        "reload": attempt.reload,
        "published": attempt.published,
        "left_out": attempt.left_out,
        "gate": attempt.gate,
    }
    entry = journal.begin(run.store, run.config, run.fingerprint(), attempt.step, facts, started)
    write_run_prompt(run.store, run.data.prompt)
    return entry


def _end(attempt: CurrentAttempt, state: journal.State, reason: str) -> None:
    assert attempt.entry is not None
    journal.end(attempt.run.store, attempt.entry, state, attempt.step, reason)


def _weights_of(facts: Mapping[str, Any]) -> WeightsInMemory:
    """Return the weights of which `facts` are."""
    own = facts["quantization_of_the_base"]
    share = FourBitShare(facts["in_4_bits"], facts["parameters"], facts["of_embeddings"])
    own = None if own == "none" else own
    return WeightsInMemory(facts["quantization"], own, facts["auto_class"], share)
