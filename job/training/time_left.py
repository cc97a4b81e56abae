"""Predict during a training how long the rest of the run takes, and log it.

Everything is measured in this process: steps by their tokens and without the first ones, and
evaluations, checkpoints and sample summaries as they happen.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from job.pace import Pace
from job.telemetry import event
from job.training.intervals import multiples, steps_per_epoch

SLOW_STEPS = 2  # at the start: the first one chooses kernels, the second one allocates, too
STEPS_BEFORE_THE_FIRST_ESTIMATE = 5
# A frozen base takes as long for the gradients as for the forward pass, which is all that an
# evaluation has.
TRAINED_TOKENS_OF_AN_EVALUATED_ONE = 0.5


@dataclass(frozen=True)
class WorkOfRun:
    """The work of a run: tokens and steps of an epoch over all ranks, and what follows steps.

    `summaries` is how many are generated after the last step, to choose and to score the adapter.
    """

    tokens_per_epoch: int
    steps_per_epoch: int
    validation_tokens: int
    summaries: int

    def tokens_of(self, steps: int) -> float:
        """Return the tokens of so many steps."""
        return self.tokens_per_epoch * steps / self.steps_per_epoch


def work_of_trainer(trainer: Any, summaries: int) -> WorkOfRun:
    """Return the work of a trainer, after whose last step so many summaries are generated."""
    lengths = trainer.lengths_of_rows(trainer.train_dataset)
    rows_per_step = trainer.args.train_batch_size * trainer.args.world_size
    return WorkOfRun(
        tokens_per_epoch=sum(lengths),
        steps_per_epoch=steps_per_epoch(len(lengths), rows_per_step),
        validation_tokens=sum(trainer.lengths_of_rows(trainer.eval_dataset)),
        summaries=summaries,
    )


@dataclass(frozen=True)
class Rest:
    """The seconds that a run still needs, by what takes them.

    `scoring` is by the time of samples, which is too long where a large batch takes less for each
    summary than a small one. It is None, and no part of the total, until samples were generated.
    """

    steps: float
    evaluations: float
    checkpoints: float
    scoring: float | None

    @property
    def total(self) -> float:
        """All of them."""
        return self.steps + self.evaluations + self.checkpoints + (self.scoring or 0.0)


class TimeLeft(TrainerCallback):  # type: ignore[misc]
    """Measure steps, evaluations and checkpoints, and log the time that is left.

    It is logged after the first steps and after each evaluation. Must be called after BoundTime and
    SampleSummaries, and before the callbacks that log numbers.
    """

    def __init__(
        self,
        work: WorkOfRun,
        evaluation_seconds_allowed: Callable[[float], float],
        summary_seconds: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count evaluations only as far as they are allowed in a training of so many seconds.

        `summary_seconds` returns the time of one sample summary, None before the first.
        """
        self._work = work
        self._evaluation_seconds_allowed = evaluation_seconds_allowed
        self._summary_seconds = summary_seconds
        self._clock = clock
        self._steps = Pace(warm_up=SLOW_STEPS)  # by token
        self._evaluations = Pace()
        self._checkpoints = Pace()
        self._evaluated = 0.0  # seconds
        self._began = self._lap_began = clock()
        self._tokens = 0.0
        self._steps_here = 0
        self._is_evaluating = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._lap_began = self._clock()
        self._tokens = state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps.add(state.num_input_tokens_seen - self._tokens, self._end_lap())
        self._tokens = state.num_input_tokens_seen
        self._steps_here += 1
        is_last = state.global_step >= state.max_steps
        self._is_evaluating = control.should_evaluate or is_last
        if self._steps_here == STEPS_BEFORE_THE_FIRST_ESTIMATE and not is_last:
            self._log(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._is_evaluating = False
        seconds = self._end_lap()
        self._evaluated += seconds
        self._evaluations.add(1, seconds)
        self._log(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._checkpoints.add(1, self._end_lap())

    def seconds(self, state: Any) -> float | None:
        """Return the seconds that the run still needs; None before steps were measured."""
        rest = self.rest(state)
        return None if rest is None else round(rest.total, 1)

    def rest(self, state: Any) -> Rest | None:
        """Return what the run still needs; None before steps were measured."""
        if not self._steps.is_steady:
            return None
        tokens = self._work.tokens_of(state.max_steps) - state.num_input_tokens_seen
        steps = self._steps.seconds_for(max(0.0, tokens)) or 0.0
        if state.global_step >= state.max_steps:
            steps = 0.0
        saves = multiples(state.save_steps, state.global_step, state.max_steps)
        checkpoints = self._checkpoints.seconds_for(saves) or 0.0
        each = self._summary_seconds()
        return Rest(
            steps,
            self._rest_of_evaluations(state, steps + checkpoints),
            checkpoints,
            None if each is None else each * self._work.summaries,
        )

    def _rest_of_evaluations(self, state: Any, others: float) -> float:
        """Return the seconds for evaluations, if everything else still takes `others`."""
        each = self._evaluations.unit_seconds
        if each is None:
            tokens = TRAINED_TOKENS_OF_AN_EVALUATED_ONE * self._work.validation_tokens
            each = self._steps.seconds_for(tokens) or 0.0
        now = self._clock()
        present = max(0.0, each - (now - self._lap_began)) if self._is_evaluating else 0.0
        if state.global_step >= state.max_steps:
            return present

        # The last step's is always made. Of those before it, some may be skipped.
        between = each * multiples(state.eval_steps, state.global_step, state.max_steps - 1)
        whole = now - self._began + others + between + each
        allowed = self._evaluation_seconds_allowed(whole) - self._evaluated - each
        return present + max(0.0, min(between, allowed)) + each

    def _end_lap(self) -> float:
        """Return the seconds since the last step, evaluation or checkpoint ended."""
        began = self._lap_began
        self._lap_began = self._clock()
        return self._lap_began - began

    def _log(self, state: Any) -> None:
        rest = self.rest(state)
        if rest is None:
            return
        event(
            "time left",
            seconds=round(rest.total, 1),
            steps=round(rest.steps, 1),
            evaluations=round(rest.evaluations, 1),
            checkpoints=round(rest.checkpoints, 1),
            scoring="unknown" if rest.scoring is None else round(rest.scoring, 1),
        )
