"""Claims about training.batch_size: auto: the step keeps its rows, and a pass has what fits."""

from typing import Any

import pytest

from job.config.training_sections import TrainingSection


def test_a_step_has_as_many_rows_as_by_default():
    section = TrainingSection(batch_size="auto", gradient_accumulation_steps=3)
    assert section.rows_of_a_step == TrainingSection(gradient_accumulation_steps=3).rows_of_a_step


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"batch_size": 4}, False),
        ({"activation_checkpointing": True}, False),
        ({"deterministic": True}, False),
    ],
)
def test_passes_fill_the_memory_only_if_nothing_forbids_it(changes: Any, wanted: bool) -> None:
    section = TrainingSection.model_validate({"batch_size": "auto"} | changes)
    assert section.fills_memory == wanted


@pytest.mark.usefixtures("places", "one_thread")
def test_a_pass_is_the_whole_step_if_that_fits(config: dict[str, Any], trainer_of: Any) -> None:
    config["training"] |= {"max_steps": 1, "sample_summaries": 0}
    trainer = trainer_of(config, batch_size="auto", gradient_accumulation_steps=2)
    trainer._fills_memory = True  # as on a GPU
    before = trainer.budget.tokens
    trainer.train()
    assert trainer.budget.tokens == 2 * before
    assert trainer.state.global_step == 1
