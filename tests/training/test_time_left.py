"""Claims about the time that a training predicts for the rest of its run."""

import json
import math
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest

from job.telemetry import configure_logging
from job.training.evaluations import BoundTime
from job.training.time_left import TimeLeft, WorkOfRun

TOKENS_OF_A_STEP = 100


class Training:
    """A training of 20 steps whose durations a test decides, on a clock of its own."""

    def __init__(
        self, allowed: Any = lambda seconds: math.inf, summary_seconds: Any = None
    ) -> None:
        self.now = 0.0
        self.work = WorkOfRun(
            tokens_per_epoch=10 * TOKENS_OF_A_STEP,
            steps_per_epoch=10,
            validation_tokens=400,
            summaries=50,
        )
        self.state = SimpleNamespace(
            global_step=0, max_steps=20, eval_steps=5, save_steps=10, num_input_tokens_seen=0
        )
        self.time_left = TimeLeft(
            self.work, allowed, lambda: summary_seconds, clock=lambda: self.now
        )
        self.time_left.on_train_begin(None, self.state, None)

    def steps(self, *seconds: float) -> None:
        for each in seconds:
            self.now += each
            self.state.global_step += 1
            self.state.num_input_tokens_seen += TOKENS_OF_A_STEP
            is_due = self.state.global_step % self.state.eval_steps == 0
            self.time_left.on_step_end(None, self.state, SimpleNamespace(should_evaluate=is_due))

    def evaluate(self, seconds: float) -> None:
        self.now += seconds
        self.time_left.on_evaluate(None, self.state, None)

    def save(self, seconds: float) -> None:
        self.now += seconds
        self.time_left.on_save(None, self.state, None)

    def rest(self) -> Any:
        found = self.time_left.rest(self.state)
        assert found is not None
        return found


def test_the_first_two_steps_predict_nothing():
    training = Training()
    training.steps(60, 20)
    assert training.time_left.seconds(training.state) is None
    training.steps(2)
    assert training.rest().steps == 17 * 2


def test_before_the_first_evaluation_one_is_half_a_training_on_its_tokens():
    training = Training()
    training.steps(60, 20, 2, 2)
    # 400 tokens, of which a step has 100 in 2 seconds, after steps 5, 10, 15 and 20.
    assert training.rest().evaluations == 4 * 400 / 100 * 2 / 2


def test_evaluations_and_checkpoints_still_to_come_are_counted():
    training = Training()
    training.steps(60, 20, 2, 2, 2)
    training.evaluate(30)
    rest = training.rest()
    assert (rest.steps, rest.evaluations, rest.checkpoints) == (15 * 2, 3 * 30, 0)
    training.steps(2, 2, 2, 2, 2)
    training.evaluate(10)
    training.save(7)
    rest = training.rest()
    # The first evaluation was slow, and counts no longer.
    assert (rest.steps, rest.evaluations, rest.checkpoints) == (10 * 2, 2 * 10, 7)
    assert rest.total == 20 + 20 + 7


def test_evaluations_are_no_slow_steps():
    training = Training()
    training.steps(60, 20, 2, 2, 2)
    training.evaluate(600)
    training.steps(2)
    assert training.rest().steps == 14 * 2


def test_an_evaluation_under_way_counts_as_far_as_it_is_left():
    training = Training()
    training.steps(60, 20, 2, 2, 2)
    training.evaluate(30)
    training.steps(2, 2, 2, 2, 2)
    before = training.rest().evaluations
    training.now += 12
    assert training.rest().evaluations == before - 12
    assert before == 3 * 30


def test_evaluations_that_will_be_skipped_are_not_counted():
    share = 0.1
    training = Training(allowed=lambda seconds: share * seconds)
    training.steps(60, 20, 2, 2, 2)
    training.evaluate(30)
    # Three more would be far above a tenth, and the last one is made in any case.
    assert training.rest().evaluations == 30


def test_the_bound_of_evaluations_is_the_one_that_skips_them():
    trainer = SimpleNamespace(evaluation_seconds=[])
    bound = BoundTime(trainer, 0.1, may_skip=True, anywhere=bool)
    assert (bound.seconds_allowed_in(10_000), bound.seconds_allowed_in(10)) == (1000, 60)
    for free in (
        BoundTime(trainer, 0.1, may_skip=False, anywhere=bool),
        BoundTime(trainer, 1, may_skip=True, anywhere=bool),
    ):
        assert free.seconds_allowed_in(10) == math.inf


def test_scores_count_by_the_time_of_a_sample_summary():
    training = Training(summary_seconds=3.0)
    training.steps(60, 20, 2)
    assert training.rest().scoring == 50 * 3
    unknown = Training()
    unknown.steps(60, 20, 2)
    assert unknown.rest().scoring is None


def test_after_the_last_evaluation_only_scores_are_left():
    training = Training(summary_seconds=3.0)
    training.steps(60, 20, *[2] * 18)
    training.evaluate(10)
    assert training.rest().total == 50 * 3


def test_a_resumed_training_counts_the_rest_alone():
    training = Training()
    training.state.global_step = 10
    training.state.num_input_tokens_seen = 10 * TOKENS_OF_A_STEP
    training.time_left.on_train_begin(None, training.state, None)
    training.steps(60, 20, 2)
    assert training.rest().steps == 7 * 2


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (4, []),
        (5, [30.0 + 4 * 4 * 2 / 2]),
    ],
)
def test_the_time_left_is_logged_after_the_first_steps(steps, wanted):
    log = StringIO()
    configure_logging(log, person=False)
    training = Training()
    training.steps(*[60, 20, 2, 2, 2][:steps])
    configure_logging()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["seconds"] for line in lines] == wanted
    assert all(line["scoring"] == "unknown" for line in lines)
