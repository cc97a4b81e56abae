"""Interrupted and resumed is the same as never interrupted: weights byte for byte, and every logged number."""

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


@pytest.fixture
def longer(small: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two epochs of 16 steps, to be met in the middle of each, saved at other steps than logged and evaluated."""
    data = small["data"] | {"train": str(write_jsonl(tmp_path / "more.jsonl", records(16)))}
    steps = {
        "epochs": 2,
        "log_every_steps": 1,
        "save_every_steps": 4,
        "evaluate_every_steps": 5,
        "batch_size": 2,
    }
    return small | {"data": data, "training": small["training"] | steps}


def story_of_equal_runs(
    config: dict[str, Any], start: Start, kills: dict[int, signal.Signals]
) -> list[Any]:
    """Interrupt at each step by its signal, resume, compare with a run that was left alone; what happened."""
    whole = config | {"run": "whole"}
    start(whole).finish()
    story = []
    for step, number in kills.items():
        hurt = config | {"run": f"hurt-{step}"}
        run = start(hurt)
        assert run.interrupt(step, number) in (ExitCode.RETRY, -number), run.said
        run.finish()
        assert adapter_digest(store_of(hurt)) == adapter_digest(store_of(whole)), hurt["run"]
        assert logged(store_of(hurt)) == logged(store_of(whole)), hurt["run"]
        for tag, name in (("train/loss", "loss"), ("validation/loss", "eval_loss")):
            curve = on_tensorboard(store_of(hurt), tag)
            assert curve == on_tensorboard(store_of(whole), tag), "one continuous curve"
            steps = [step for step, _ in curve]
            assert steps == sorted(set(steps)), "each step once"
            assert {step for step, each in logged(store_of(whole)) if each == name} <= set(steps)
        assert (
            journal_of(store_of(hurt))["facts"]["best"]
            == journal_of(store_of(whole))["facts"]["best"]
        )
        attempts = journal_of(store_of(hurt))["attempts"]
        assert len(attempts) == 2, "it was interrupted"
        story.append(
            (number.name, [(attempt["first_step"], attempt["last_step"]) for attempt in attempts])
        )
    return story


# Of the accumulated kinds, the last step of each epoch has fewer batches than the others.
KINDS = {
    "padded, adamw_torch": {"optimizer": "adamw_torch", "log_every_steps": 3},
    "padded, paged_adamw_32bit, accumulated": {
        "optimizer": "paged_adamw_32bit", "gradient_accumulation_steps": 3, "epochs": 5,
    },
    "grouped by length, adamw_8bit": {"optimizer": "adamw_8bit", "group_by_length": True},
    "packed, adamw_torch": {"optimizer": "adamw_torch", "packing": True, "batch_size": 1},
    "two processes, adamw_torch, accumulated": {
        "optimizer": "adamw_torch", "processes": 2, "gradient_accumulation_steps": 3, "epochs": 8,
    },
    "two processes, fsdp": {"optimizer": "adamw_torch", "processes": 2, "distribution": "fsdp", "epochs": 4},
    "the best of a run that ends early": {
        "optimizer": "adamw_torch", "epochs": 9, "learning_rate": 0.5, "warmup_ratio": 0.9, "evaluate_every_steps": 1,
        "adapter_from": "best_evaluation", "patience": 5,
    },
    "two processes, packed, paged_adamw_32bit": {
        "optimizer": "paged_adamw_32bit", "processes": 2, "packing": True, "batch_size": 1, "epochs": 4,
    },
}  # fmt: skip


REAL = "padded, adamw_torch"  # of the kinds of one process, the one through launcher and supervisor
KILLS = {3: signal.SIGTERM, 8: signal.SIGKILL, 18: signal.SIGTERM}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_is_the_same_as_never_interrupted(longer, tmp_path, trials, kind):
    config = longer | {"training": longer["training"] | KINDS[kind]}
    several = "processes" in KINDS[kind]
    start = (
        partial(RealRun, folder=tmp_path)
        if several or kind == REAL
        else partial(TrialRun, trials=trials)
    )
    kills = {step: KILLS[step] for step in (8, 18)} if several else KILLS
    for line in story_of_equal_runs(config, start, kills):
        print(f"\n{kind}: {line}", end="")


STOPS = [
    pytest.param(4, 4, id="last, amid an epoch"),
    pytest.param(5, 3, id="amid", marks=pytest.mark.faults),
    pytest.param(3, 3, id="last", marks=pytest.mark.faults),
]


@pytest.mark.parametrize(("steps", "stop_at"), STOPS)
def test_a_stop_in_an_evaluation_keeps_the_steps_before_it(trials, small, tmp_path, steps, stop_at):
    # As by default, a step is saved and evaluated; the evaluation, which comes first, takes seconds.
    many = {"validation": str(write_jsonl(tmp_path / "many.jsonl", records(80, first=100)))}
    training = {
        "max_steps": steps,
        "save_every_steps": 99,
        "evaluate_every_steps": 3,
        "log_every_steps": 1,
    }
    whole = small | {
        "run": "whole",
        "data": small["data"] | many,
        "training": small["training"] | training,
    }
    hurt = whole | {"run": "hurt"}
    trials.finish(whole)
    child = trials.start_until(hurt, lambda log: f'"message": "step", "step": {stop_at}' in log)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()
    assert [attempt["last_step"] for attempt in journal_of(store_of(hurt))["attempts"]] == [stop_at]
    assert (stop_at, "eval_loss") not in logged(store_of(hurt)), (
        "it was stopped in the evaluation, and saved"
    )
    trials.finish(hurt)
    assert adapter_digest(store_of(hurt)) == adapter_digest(store_of(whole))
    for tag in ("train/loss", "validation/loss"):
        assert on_tensorboard(store_of(hurt), tag) == on_tensorboard(store_of(whole), tag)
    assert (
        journal_of(store_of(hurt))["facts"]["best"] == journal_of(store_of(whole))["facts"]["best"]
    )


def test_a_stop_while_samples_are_written_stops_at_that_step(trials, small, tmp_path):
    many = {"validation": str(write_jsonl(tmp_path / "many.jsonl", records(80, first=100)))}
    training = {
        "max_steps": 6,
        "save_every_steps": 99,
        "evaluate_every_steps": 3,
        "sample_summaries": 80,
    }
    whole = small | {"data": small["data"] | many, "training": small["training"] | training}
    whole["generation"] = {"max_new_tokens": 64}
    child = trials.start_until(whole, lambda log: '"eval_loss"' in log)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()
    assert [attempt["last_step"] for attempt in journal_of(store_of(whole))["attempts"]] == [3]
    assert (3, "eval_loss") in logged(store_of(whole)), "the evaluation itself is kept"


def test_how_often_a_resumed_run_saves_and_evaluates_is_as_its_config_says_now(trials, small):
    training = {"max_steps": 6, "save_every_steps": 99, "evaluate_every_steps": 99, "keep_last": 9}
    config = small | {"training": small["training"] | training | {"log_every_steps": 1}}
    child = trials.start_until(config, lambda log: '"message": "step", "step": 2' in log)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()
    stopped = journal_of(store_of(config))["attempts"][0]["last_step"]
    config["training"] |= {"save_every_steps": 1, "evaluate_every_steps": 1}
    trials.finish(config)
    saved = {
        int(entry.key.split("/")[1].removeprefix("step-"))
        for entry in store_of(config).list("checkpoints")
    }
    assert saved == set(range(stopped, 7))
    assert {step for step, name in logged(store_of(config)) if name == "eval_loss"} >= set(
        range(stopped + 1, 7)
    )
