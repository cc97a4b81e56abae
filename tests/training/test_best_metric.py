"""Claims about adapter_from: best_metric in real trainings: what is chosen and left behind."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from job.errors import ExitCode
from tests.faults.trials import adapter_digest, journal_of, on_tensorboard, store_of
from tests.training.conftest import records, write_jsonl

pytestmark = [pytest.mark.usefixtures("places"), pytest.mark.quality]
SERVED = "job.training.selection:summarize_candidates"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def selecting(config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A run of six steps with a candidate at every second one, by the length of what it writes."""
    lines = records(24, first=100)
    config["data"]["validation"] = str(write_jsonl(tmp_path / "validation.jsonl", lines))
    config["training"] |= {
        "max_steps": 6,
        "learning_rate": 0.05,
        "save_every_steps": 2,
        "evaluate_every_steps": 2,
        "keep_last": 9,
        "sample_summaries": 0,
        "adapter_from": "best_metric",
        "selection": {"metric": "chrf", "conversations": 4},
    }
    return config


def weights_at(path: Path) -> dict[str, torch.Tensor]:
    return load_file(str(path / WEIGHTS))


def test_a_run_publishes_the_adapter_that_generates_best(selecting, trials):
    code, log = trials.run(selecting)
    assert code == ExitCode.DONE, log
    run = Path(selecting["output"]) / "tiny"
    facts = journal_of(store_of(selecting))["facts"]
    curve = facts["selection"]
    assert [each["step"] for each in curve["candidates"]] == [2, 4, 6]
    assert (curve["conversations"], curve["held_out"]) == (4, True)
    scores = {each["step"]: each["score"]["mean"] for each in curve["candidates"]}
    assert scores[curve["chosen"]] == max(scores.values()) > 0
    assert len(set(scores.values())) > 1, "they differ, so that there is a choice"

    there = weights_at(run / "adapter")
    chosen = weights_at(run / "checkpoints" / f"step-{curve['chosen']:08d}")
    assert all(torch.equal(there[name], chosen[name]) for name in there)
    evaluation = json.loads((run / "adapter" / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["conversations"] == 6, "max_conversations of the 20 that did not choose"
    assert not (run / "candidates").exists() or not any((run / "candidates").rglob("*.*"))
    assert on_tensorboard(store_of(selecting), "selection/chrf") == [
        (step, pytest.approx(score)) for step, score in scores.items()
    ]


def test_a_run_killed_while_it_selects_ends_as_one_left_alone(selecting, trials):
    whole = selecting | {"run": "whole"}
    trials.finish(whole)
    assert trials.run(selecting, BROKEN=f"{SERVED}:kill")[0] == -signal.SIGKILL
    assert journal_of(store_of(selecting))["attempts"][0]["selecting"]
    assert trials.run(selecting, BROKEN="job.training.scoring:evaluate:kill")[0] == -signal.SIGKILL
    trials.finish(selecting)
    assert adapter_digest(store_of(selecting)) == adapter_digest(store_of(whole))
    selection = journal_of(store_of(selecting))["facts"]["selection"]
    assert selection == journal_of(store_of(whole))["facts"]["selection"]


def test_a_selection_that_breaks_leaves_the_smallest_loss(selecting, trials):
    code, log = trials.run(selecting, BROKEN=f"{SERVED}:raise")
    assert code == ExitCode.DONE, log
    run = Path(selecting["output"]) / "tiny"
    journal = journal_of(store_of(selecting))
    assert journal["attempts"][-1]["reason"].startswith("finished, without selection")
    curve = journal["facts"]["selection"]
    losses = {each["step"]: each["validation_loss"] for each in curve["candidates"]}
    assert curve["chosen"] == min(losses, key=losses.__getitem__)
    there = weights_at(run / "adapter")
    chosen = weights_at(run / "checkpoints" / f"step-{curve['chosen']:08d}")
    assert all(torch.equal(there[name], chosen[name]) for name in there)
