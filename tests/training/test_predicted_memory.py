"""Claims about the predicted memory of a step, against the allocations of a real one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import (
    measured_peak,
    micro_batches_of,
    predicted_peak,
    write_base,
)
from job.config.commands import TrainConfig
from job.memory.devices import Rows
from tests.training.conftest import judged_records, records, write_jsonl

# Of so small a base, whose peak is ten megabytes: a third of one is not simulated.
MAX_ERROR = 0.04  # as a fraction of the measured peak


@pytest.mark.quality  # trainings with torch's profiler
@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("recomputes", [False, True])
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


def write_answers(
    method: str,
    folder: Path,
    rows: int = 24,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Write what the method learns from: references, pairs or thumbs on the same conversations."""
    for name, count, first in (("train", rows, 0), ("validation", rows // 4, 100)):
        is_judged = method != "sft"
        lines = judged_records(method, count, first) if is_judged else records(count, first)
        write_jsonl(folder / f"{name}.jsonl", [change(line) for line in lines])


def passes_of(trainer: Any) -> list[Any]:
    """Return the sequences of each pass of a step on answers, and True if others come before it."""
    rows = next(iter(trainer.get_train_dataloader()))
    found = []
    for number, batch in enumerate(trainer.collator.micro_batches(rows, trainer.budget)):
        count, tokens = batch["input_ids"].shape
        learned = int(batch["completion_mask"][:, 1:].sum())
        are_pairs = "ends_of_prompts" in batch
        found.append((Rows(count, tokens, learned, are_pairs=are_pairs), number > 0))
    return found


@pytest.mark.quality  # trainings with torch's profiler
@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_the_peak_of_judged_answers_is_as_predicted(
    recomputes: bool, method: str, config: dict[str, Any], trainer_of: Any, tmp_path: Path
) -> None:
    write_answers(method, tmp_path)
    config["method"] = method
    config["training"] |= {"max_steps": 2, "activation_checkpointing": recomputes}
    config["training"] |= {"gradient_accumulation_steps": 6}
    config["training"] |= {"optimizer": "adamw_torch_fused", "sample_summaries": 0}
    trainer = trainer_of(config)
    passes = passes_of(trainer)
    measured = measured_peak(trainer)
    peak, _ = predicted_peak(TrainConfig.model_validate(config), passes)
    print(f"{method}: {peak.tensors / measured - 1:+.1%} of {measured:,} bytes")
    # The simulated loss is that of references: of so small a base, others are a share of the peak.
    assert peak.tensors == pytest.approx(measured, rel=MAX_ERROR)


def longer(line: dict[str, Any]) -> dict[str, Any]:
    """Return a record of usual shape: some 600 tokens, of which the summary has a tenth."""
    turns = [{**turn, "text": " ".join([turn["text"]] * 3)} for turn in line["turns"]]
    answers = {name: " ".join([line[name]] * 2) for name in line if isinstance(line[name], str)}
    if "summaries" in line:
        answers["summaries"] = [" ".join([text] * 2) for text in line["summaries"]]
    return line | answers | {"turns": turns}


@pytest.mark.quality
@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("batch_size", [4, 1])
def test_pairs_and_thumbs_need_about_the_memory_of_references(
    batch_size: int, recomputes: bool, config: dict[str, Any], trainer_of: Any, tmp_path: Path
) -> None:
    # Of a tiny base, the head's buffers of 32,768 numbers by learned token are nearly all.
    write_base(tmp_path / "larger", "31M")
    config["model"]["base"] = str(tmp_path / "larger")
    config["training"] |= {"max_tokens": 2048, "activation_checkpointing": recomputes}
    config["training"] |= {"optimizer": "adamw_torch_fused", "sample_summaries": 0}
    config["training"] |= {"batch_size": batch_size, "gradient_accumulation_steps": 8 // batch_size}
    peaks = {}
    for method in ("sft", "dpo", "kto"):
        write_answers(method, tmp_path, 4 if method == "sft" else 8, longer)  # two references each
        trainer = trainer_of(config | {"method": method})
        passes = micro_batches_of(trainer) if method == "sft" else passes_of(trainer)
        peak, _ = predicted_peak(TrainConfig.model_validate(config), passes[:2])
        peaks[method] = peak.tensors
    ratios = {method: peak / peaks["sft"] for method, peak in peaks.items()}
    print(f"batch_size {batch_size}, peaks: {peaks}, of references: {ratios}")
    assert ratios["dpo"] < 1.3
    assert ratios["kto"] < 1.3
