"""Claims about the predicted memory of a step, against the allocations of a real one."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import MAX_ERROR, measured_peak, micro_batches_of, predicted_peak
from job.config.commands import TrainConfig
from tests.training.conftest import judged_records, records, write_jsonl


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


@pytest.mark.quality  # three trainings with torch's profiler
@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("recomputes", [False, True])
def test_pairs_and_thumbs_need_about_the_memory_of_references(
    recomputes: bool, config: dict[str, Any], trainer_of: Any, tmp_path: Path
) -> None:
    config["training"] |= {"max_steps": 2, "activation_checkpointing": recomputes}
    config["training"] |= {"optimizer": "adamw_torch_fused", "sample_summaries": 0}
    peaks = {}
    for method in ("sft", "dpo", "kto"):
        lines = {"train": records(24), "validation": records(6, first=100)}
        if method != "sft":
            lines["train"] = judged_records(method, 24)
            lines["validation"] = judged_records(method, 6, first=100)
        for name, some in lines.items():
            write_jsonl(tmp_path / f"{name}.jsonl", some)
        peaks[method] = measured_peak(trainer_of(config | {"method": method}))
    ratios = {method: peak / peaks["sft"] for method, peak in peaks.items()}
    print(f"peaks: {peaks}, of references: {ratios}")
    assert ratios["dpo"] < 1.3
    assert ratios["kto"] < 1.3
