"""An interrupted and resumed run ends like an undisturbed one: in each byte and logged number."""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.trials import (
    TrialRun,
    adapter_digest,
    journal_of,
    logged,
    on_tensorboard,
    store_of,
)
from tests.training.conftest import records, write_jsonl

Start = Callable[[dict[str, Any]], RealRun | TrialRun]
CURVES = {"train/loss": "loss", "validation/loss": "eval_loss"}  # and their names in the log


@pytest.fixture
def longer(small: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two epochs of 16 steps, saved at other steps than logged and evaluated."""
    data = small["data"] | {"train": str(write_jsonl(tmp_path / "more.jsonl", records(16)))}
    steps = {
        "epochs": 2,
        "log_every_steps": 1,
        "save_every_steps": 4,
        "evaluate_every_steps": 5,
        "batch_size": 2,
    }
    return small | {"data": data, "training": small["training"] | steps}


def assert_same_result(hurt: dict[str, Any], whole: dict[str, Any]) -> None:
    """Assert that an interrupted run ended with all that an undisturbed one has."""
    ours = store_of(hurt)
    theirs = store_of(whole)
    assert adapter_digest(ours) == adapter_digest(theirs), hurt["run"]
    assert logged(ours) == logged(theirs), hurt["run"]
    for tag, name in CURVES.items():
        curve = on_tensorboard(ours, tag)
        assert curve == on_tensorboard(theirs, tag), "one continuous curve"
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps)), "each step once"
        assert {step for step, each in logged(theirs) if each == name} <= set(steps)
    assert best_of(hurt) == best_of(whole)


def best_of(config: dict[str, Any]) -> Any:
    facts = journal_of(store_of(config))["facts"]
    return facts["best"], facts["selection"]


def interrupt_and_compare(
    config: dict[str, Any], start: Start, kills: dict[int, signal.Signals]
) -> list[str]:
    """Interrupt a run at each step by its signal, resume it, and compare with an undisturbed one.

    Return a line per signal with the steps of both attempts.
    """
    whole = config | {"run": "whole"}
    start(whole).finish()
    lines = []
    for step, number in kills.items():
        hurt = config | {"run": f"hurt-{step}"}
        run = start(hurt)
        assert run.interrupt(step, number) in (ExitCode.RETRY, -number), run.log
        run.finish()
        assert_same_result(hurt, whole)
        attempts = journal_of(store_of(hurt))["attempts"]
        assert len(attempts) == 2, "it was interrupted"
        steps = [(attempt["first_step"], attempt["last_step"]) for attempt in attempts]
        lines.append(f"{number.name}: {steps}")
    return lines


# Where gradients accumulate, the last step of each epoch has fewer batches than the others.
KINDS: dict[str, dict[str, Any]] = {
    "padded, adamw_torch": {"optimizer": "adamw_torch", "log_every_steps": 3},
    "padded, paged_adamw_32bit, accumulated": {
        "optimizer": "paged_adamw_32bit",
        "gradient_accumulation_steps": 3,
        "epochs": 5,
    },
    "grouped by length, adamw_8bit": {"optimizer": "adamw_8bit", "group_by_length": True},
    "packed, adamw_torch": {"optimizer": "adamw_torch", "packing": True, "batch_size": 1},
    "two processes, adamw_torch, accumulated": {
        "optimizer": "adamw_torch",
        "processes": 2,
        "gradient_accumulation_steps": 3,
        "epochs": 8,
    },
    "two processes, fsdp": {
        "optimizer": "adamw_torch",
        "processes": 2,
        "distribution": "fsdp",
        "epochs": 4,
    },
    "the best of a run that ends early": {
        "optimizer": "adamw_torch",
        "epochs": 9,
        "learning_rate": 0.5,
        "warmup_ratio": 0.9,
        "evaluate_every_steps": 1,
        "adapter_from": "best_evaluation",
        "patience": 5,
    },
    "the candidate that generates best": {
        "optimizer": "adamw_torch",
        "learning_rate": 0.05,
        "evaluate_every_steps": 3,
        "adapter_from": "best_metric",
        "selection": {"metric": "chrf", "candidates": 4},
    },
    "two processes, fsdp, the candidate that generates best": {
        "optimizer": "adamw_torch",
        "learning_rate": 0.05,
        "processes": 2,
        "distribution": "fsdp",
        "epochs": 4,
        "adapter_from": "best_metric",
        "selection": {"metric": "chrf", "candidates": 3},
    },
    "two processes, packed, paged_adamw_32bit": {
        "optimizer": "paged_adamw_32bit",
        "processes": 2,
        "packing": True,
        "batch_size": 1,
        "epochs": 4,
    },
}

REAL = "padded, adamw_torch"  # the kind of one process that runs below launcher and supervisor
KILLS = {3: signal.SIGTERM, 8: signal.SIGKILL, 18: signal.SIGTERM}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_is_the_same_as_never_interrupted(longer, tmp_path, trials, kind):
    config = longer | {"training": longer["training"] | KINDS[kind]}
    kills = KILLS
    start: Start = partial(TrialRun, trials=trials)
    if "processes" in KINDS[kind]:
        kills = {step: KILLS[step] for step in (8, 18)}
        start = partial(RealRun, folder=tmp_path)
    elif kind == REAL:
        start = partial(RealRun, folder=tmp_path)
    for line in interrupt_and_compare(config, start, kills):
        print(f"\n{kind}: {line}", end="")


@pytest.fixture
def much_validation(small: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """Data whose evaluation takes seconds, so that a signal comes within it."""
    validation = write_jsonl(tmp_path / "many.jsonl", records(80, first=100))
    return small["data"] | {"validation": str(validation)}


STOPS = [
    pytest.param(4, 4, id="last, amid an epoch"),
    pytest.param(5, 3, id="amid", marks=pytest.mark.faults),
    pytest.param(3, 3, id="last", marks=pytest.mark.faults),
]


@pytest.mark.parametrize(("steps", "stop_at"), STOPS)
def test_a_stop_in_an_evaluation_keeps_the_steps_before_it(
    trials, small, much_validation, steps, stop_at
):
    # As by default, a step is evaluated and then saved.
    training = {
        "max_steps": steps,
        "save_every_steps": 99,
        "evaluate_every_steps": 3,
        "log_every_steps": 1,
    }
    whole = small | {"data": much_validation, "training": small["training"] | training}
    hurt = whole | {"run": "hurt"}
    trials.finish(whole)

    child = trials.start_until(hurt, lambda log: f'"message": "step", "step": {stop_at}' in log)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()
    assert last_steps(hurt) == [stop_at]
    assert (stop_at, "eval_loss") not in logged(store_of(hurt)), "stopped in the evaluation, saved"

    trials.finish(hurt)
    assert adapter_digest(store_of(hurt)) == adapter_digest(store_of(whole))
    for tag in CURVES:
        assert on_tensorboard(store_of(hurt), tag) == on_tensorboard(store_of(whole), tag)
    assert best_of(hurt) == best_of(whole)


def test_a_stop_while_samples_are_written_stops_at_that_step(trials, small, much_validation):
    training = {
        "max_steps": 6,
        "save_every_steps": 99,
        "evaluate_every_steps": 3,
        "sample_summaries": 80,
    }
    config = small | {
        "data": much_validation,
        "training": small["training"] | training,
        "generation": {"max_new_tokens": 64},
    }
    child = trials.start_until(config, lambda log: '"eval_loss"' in log)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()
    assert last_steps(config) == [3]
    assert (3, "eval_loss") in logged(store_of(config)), "the evaluation itself is kept"


def last_steps(config: dict[str, Any]) -> list[int]:
    """Return the last step of each attempt."""
    return [attempt["last_step"] for attempt in journal_of(store_of(config))["attempts"]]


def test_a_resumed_run_saves_and_evaluates_as_its_config_says_now(trials, small):
    rarely = {"max_steps": 6, "save_every_steps": 99, "evaluate_every_steps": 99, "keep_last": 9}
    config = small | {"training": small["training"] | rarely | {"log_every_steps": 1}}
    child = trials.start_until(config, lambda log: '"message": "step", "step": 2' in log)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()
    (stopped,) = last_steps(config)

    config["training"] |= {"save_every_steps": 1, "evaluate_every_steps": 1}
    trials.finish(config)
    folders = {entry.key.split("/")[1] for entry in store_of(config).list("checkpoints")}
    assert folders == {f"step-{step:08d}" for step in range(stopped, 7)}
    evaluated = {step for step, name in logged(store_of(config)) if name == "eval_loss"}
    assert evaluated >= set(range(stopped + 1, 7))
