"""Claims that a training makes the steps and passes that its plan counted."""

from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.preflight.training import plan_training
from tests.training.conftest import records, write_jsonl


def facts_of(config: dict[str, Any], name: str) -> Any:
    found = plan_training(TrainConfig.model_validate(config))
    (check,) = [each for each in found.checks if each.name == name]
    return check.facts


@pytest.mark.parametrize(
    "section",
    [
        {"group_by_length": True},
        {"group_by_length": False},
        {"packing": True},
    ],
    ids=["by length", "as they come", "packed"],
)
def test_a_training_makes_the_steps_and_passes_of_its_plan(
    config, trainer_of, places, tmp_path, section
):
    lines = records(27)
    for number, line in enumerate(lines):
        line["turns"] *= 1 + number % 4
    write_jsonl(tmp_path / "train.jsonl", lines)
    config["training"] |= section | {"epochs": 1.5, "gradient_accumulation_steps": 2}
    steps = facts_of(config, "steps")
    (planned,) = [each for each in facts_of(config, "batches").values() if each["is_chosen"]]
    trainer = trainer_of(config, sample_summaries=0)
    assert len(trainer.train_dataset) == steps["rows"]

    passes = 0
    padded = 0
    for rows in trainer.get_train_dataloader():
        for batch in trainer._collator.micro_batches(rows, trainer.budget):
            passes += 1
            padded += batch["input_ids"].numel()
    assert passes == planned["passes_per_epoch"]
    assert padded == planned["padded_tokens"]
    trainer.train()
    assert trainer.state.global_step == steps["steps"]
