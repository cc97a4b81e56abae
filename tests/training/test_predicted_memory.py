"""Claims about the predicted memory of a step, against the allocations of a real one."""

from typing import Any

import pytest

from benchmarks.memory import MAX_ERROR, measured_peak, micro_batches_of, predicted_peak
from job.config.commands import TrainConfig


@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("recomputes", [pytest.param(False, marks=pytest.mark.quality), True])
def test_the_peak_of_a_tiny_step_is_as_predicted(
    recomputes: bool, config: dict[str, Any], trainer_of: Any
) -> None:
    config["training"] |= {"max_steps": 2, "activation_checkpointing": recomputes}
    # All rows in each step.
    config["training"] |= {"gradient_accumulation_steps": 12}
    config["training"] |= {"optimizer": "adamw_torch_fused", "sample_summaries": 0}
    trainer = trainer_of(config)
    micro_batches = micro_batches_of(trainer)
    measured = measured_peak(trainer)
    peak, _ = predicted_peak(TrainConfig.model_validate(config), micro_batches)
    assert peak.tensors == pytest.approx(measured, rel=MAX_ERROR)
