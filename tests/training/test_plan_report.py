"""Claims about what a report has of a plan, beside what the run did."""

from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.training.plan_report import GIB, Measured, comparison
from job.training.planned_steps import planned_steps
from job.training.predictions import find_predictions, store_predictions

CONTENT = {"run": "r", "model": {"base": "/b"}, "data": {"train": "/t"}, "output": "/o"}
CONFIG = TrainConfig.model_validate(CONTENT)
HISTORY = [
    {"step": 1, "loss": 2.0, "memory_gib": 3.0, "tokens": 500},
    {"step": 3, "eval_loss": 2.0, "tokens": 1600},
]
SECONDS = {
    "start_seconds": [60, 600],
    "training_seconds": [10, 7000],
    "evaluations_seconds": [20, 200],
    "scores_seconds": [1, 30],
}
PREDICTIONS = {
    "memory": {
        "gpus": [{"gpu": "NVIDIA L4", "reserved_bytes": 5 * GIB}],
        "cpu": {"process_bytes": 2 * GIB},
    },
    "time": {"devices": {"NVIDIA L4": SECONDS, "this CPU": SECONDS}},
}


def cells(predictions: dict[str, Any], device: str, **timings: float) -> dict[str, tuple[str, ...]]:
    measured = Measured(3, HISTORY, timings, device)
    table = comparison(planned_steps(CONFIG, 16, 1), 533, predictions, measured)
    return {name: tuple(rest) for name, *rest in table.rows}


def test_what_was_planned_is_beside_what_was_measured():
    found = cells(
        PREDICTIONS, "NVIDIA L4", plan_seconds=4, load_seconds=40, train_seconds=5400, x_seconds=9
    )
    assert found == {
        "Optimizer steps": ("3", "3"),
        "Tokens": ("1,599", "1,600"),
        "Peak memory": ("5.00 GiB", "3.00 GiB"),
        "Start": ("1.0 min to 10.0 min", "44 s"),
        "Steps and evaluations": ("30 s to 2.00 h", "1.50 h"),
        "Choosing and scoring": ("1 s to 30 s", "not measured"),
    }


@pytest.mark.parametrize(("predictions", "device"), [({}, "cpu"), (PREDICTIONS, "NVIDIA H100")])
def test_what_nobody_asked_is_not_predicted(predictions, device):
    found = cells(predictions, device)
    assert found["Peak memory"][0] == found["Start"][0] == "not asked"
    assert cells(PREDICTIONS, "cpu")["Peak memory"][0] == "2.00 GiB"


def test_predictions_are_found_for_the_same_training_alone(places):
    rows = {"data": "d"}
    store_predictions(CONFIG, rows, 1, PREDICTIONS)
    again = CONFIG.model_copy(update={"run": "other"})
    assert find_predictions(again, rows, 1) == PREDICTIONS
    assert find_predictions(CONFIG, rows, 2) == {}
    assert find_predictions(CONFIG, {"data": "e"}, 1) == {}
    other = TrainConfig.model_validate(CONTENT | {"training": {"max_tokens": 100}})
    assert find_predictions(other, rows, 1) == {}
    store_predictions(CONFIG, None, 1, PREDICTIONS)
    assert find_predictions(CONFIG, None, 1) == {}
