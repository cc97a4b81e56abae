"""Claims about how often a run saves and evaluates: by the rows it trains on, packed or not."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.trials import adapter_digest, journal_of, logged, store_of
from tests.training.conftest import records, write_jsonl

pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture
def packed(config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return a config for an epoch of many short rows, saved and evaluated four times."""
    data = config["data"] | {"train": str(write_jsonl(tmp_path / "many.jsonl", records(48)))}
    training = {
        "epochs": 1, "batch_size": 1, "max_tokens": 512, "packing": True, "keep_last": 99,
        "save_every_epochs": 0.25, "evaluate_every_epochs": 0.25, "sample_summaries": 0,
        "optimizer": "adamw_torch",
        "log_every_steps": 1, "learning_rate": 1e-3, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    return config | {"data": data | {"references": "first"}, "training": training}


def steps_saved(config: dict[str, Any]) -> list[int]:
    folders = (Path(config["output"]) / config["run"] / "checkpoints").iterdir()
    return sorted(int(folder.name.removeprefix("step-")) for folder in folders)


def steps_evaluated(config: dict[str, Any]) -> list[int]:
    return sorted(step for step, name in logged(store_of(config)) if name == "eval_loss")


def test_a_quarter_epoch_counts_packed_rows_also_after_a_kill(packed, trials):
    whole = packed | {"run": "whole"}
    trials.finish(whole)
    last = journal_of(store_of(whole))["attempts"][-1]["last_step"]
    assert 8 <= last < 48, "several rows to a step"
    every = round(last / 4)
    due = sorted({*range(every, last, every), last})
    assert len(due) >= 4
    assert steps_saved(whole) == due
    assert steps_evaluated(whole) == due

    committed = f"step-{due[1]:08d}"
    child = trials.start_until(packed, lambda log: committed in log)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    trials.finish(packed)
    attempts = journal_of(store_of(packed))["attempts"]
    assert attempts[-1]["first_step"] >= due[1], "half of the epoch was kept"
    assert adapter_digest(store_of(packed)) == adapter_digest(store_of(whole))
    assert steps_evaluated(packed) == due


def test_patience_counts_the_evaluations_within_a_packed_epoch(packed, trials):
    # With a rate of nothing no evaluation is better than the first.
    choice = {"learning_rate": 1e-30, "adapter_from": "best_evaluation", "patience": 1}
    packed["training"] |= choice
    code, log = trials.run(packed)
    assert code == 0, log
    assert "no smaller validation loss: the training ends" in log
    best = int(journal_of(store_of(packed))["facts"]["best"]["step"])
    assert steps_evaluated(packed) == [best, 2 * best]
    assert journal_of(store_of(packed))["attempts"][-1]["last_step"] == 2 * best
    assert f'"of": {4 * best}' in log, "half of the epoch was spared"
