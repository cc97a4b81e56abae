"""Claims that a training makes the steps and passes that its plan counted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.preflight.training import plan_training
from tests.training.conftest import judged_records, records, write_jsonl


def facts_of(config: dict[str, Any]) -> dict[str, Any]:
    found = plan_training(TrainConfig.model_validate(config))
    return {check.name: check.facts for check in found.checks}


def of_mixed_lengths(count: int, method: str = "sft") -> list[dict[str, Any]]:
    lines = records(count) if method == "sft" else judged_records(method, count)
    for number, line in enumerate(lines):
        line["turns"] *= 1 + number % 4
    return lines


@pytest.mark.faults  # half a minute: each plans, loads a base, and trains
@pytest.mark.parametrize(
    ("method", "section"),
    [
        ("sft", {"group_by_length": True}),
        ("sft", {"group_by_length": False}),
        ("sft", {"packing": True}),
        ("dpo", {"group_by_length": True}),
        ("dpo", {"batch_size": 1}),
        ("kto", {"group_by_length": True}),
    ],
)
def test_a_training_makes_the_steps_and_passes_of_its_plan(
    config, trainer_of, places, tmp_path, method, section
):
    write_jsonl(tmp_path / "train.jsonl", of_mixed_lengths(9, method))
    if method != "sft":
        write_jsonl(tmp_path / "validation.jsonl", judged_records(method, 6, first=100))
    config["method"] = method
    config["training"] |= section | {"epochs": 1.5, "gradient_accumulation_steps": 2}
    facts = facts_of(config)
    steps = facts["steps"]
    (planned,) = [each for each in facts["batches"].values() if each["is_chosen"]]
    trainer = trainer_of(config, sample_summaries=0)
    assert len(trainer.train_dataset) == steps["rows"]

    passes = 0
    padded = 0
    tokens = 0
    for rows in trainer.get_train_dataloader():
        tokens += sum(trainer.collator.tokens(rows))
        for batch in trainer.collator.micro_batches(rows, trainer.budget):
            passes += 1
            padded += batch["input_ids"].numel()
    assert passes == planned["passes_per_epoch"]
    assert padded == planned["padded_tokens"]
    assert tokens == planned["tokens"]
    trainer.train()
    assert trainer.state.global_step == steps["steps"]


@pytest.mark.faults  # half a minute: a plan, a launcher and two ranks load the libraries
@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_make_the_steps_and_count_the_rows_of_their_plan(
    config, write_config, places, tmp_path, packing
):
    write_jsonl(tmp_path / "train.jsonl", of_mixed_lengths(27))
    config["training"] |= {"epochs": 1.5, "max_tokens": 520, "processes": 2, "packing": packing}
    facts = facts_of(config)
    steps = facts["steps"]["steps"]
    rows = facts["rows"]
    assert rows["train"]["dropped_turns"] > 0

    words = [sys.executable, "-m", "job", "train", str(write_config(config))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = json.loads(Path(config["output"], "tiny", "run.json").read_text(encoding="utf-8"))
    for split in ("train", "validation"):
        counted = run["facts"]["data"][split]
        same = counted.keys() & rows[split].keys()
        assert len(same) == 7
        assert {name: counted[name] for name in same} == {name: rows[split][name] for name in same}
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    made = [(event["step"], event["of"]) for event in events if event["message"] == "step"]
    assert made[-1] == (steps, steps)
