"""Measure what an option of a training step is worth, in CPU seconds of steps on the same rows.

`python -m benchmarks.step_options [--only NAME …] [--rounds N] [--base DIR]` makes two trainers in
one process, with the option and without, and lets each take the same step by turns, on one thread.
It prints the median of the ratios (with / without; below 1 is faster) and their middle half. The
optimizer's part is left out, as it is the same.

| name | compares |
|---|---|
| fused-lora | `training.fused_lora` with peft's layers, on rows of the demo |
| shared-prompts | `training.dpo.share_prompts` with both summaries apart, on pairs of the demo |
| shared-long-prompts | the same with three conversations in each prompt |
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.pairs import machine, quartiles, ratios
from benchmarks.sft_rows import DEMO, SPLITS
from job.config.commands import TrainConfig
from job.storage.local import LocalStore
from job.training.build import build_trainer
from job.training.prepare import prepare

ROWS_OF_A_STEP = 16
ROWS = 250  # of a split, which are enough for the steps of all rounds
# For each name the key below `training` that is compared, and the conversations in each prompt of
# pairs; None for references.
OPTIONS: dict[str, tuple[str, int | None]] = {
    "fused-lora": ("fused_lora", None),
    "shared-prompts": ("dpo.share_prompts", 1),
    "shared-long-prompts": ("dpo.share_prompts", 3),
}


def write_pairs(folder: Path, joined: int) -> None:
    """Write pairs of the demo's conversations: the summary, and that of the next conversation."""
    for split in SPLITS:
        text = (DEMO / f"{split}.jsonl").read_text(encoding="utf-8")
        records = [json.loads(line) for line in text.splitlines()[:ROWS]]
        lines = []
        for number, record in enumerate(records):
            following = records[number + 1 :] + records[:number]
            chosen, rejected = record["summaries"][0], following[0]["summaries"][0]
            if chosen == rejected:
                continue
            together = [record, *following[: joined - 1]]
            pair = {
                "id": str(number),
                "turns": [turn for each in together for turn in each["turns"]],
                "chosen": chosen,
                "rejected": rejected,
            }
            lines.append(json.dumps(pair))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def trainer_with(base: str, data: Path, work: Path, method: str, training: dict[str, Any]) -> Any:
    """Return the trainer of a method, before its first step."""
    section = {
        "max_steps": 1,
        "batch_size": ROWS_OF_A_STEP,
        "gradient_accumulation_steps": 1,
        "max_tokens": 512,
        "sample_summaries": 0,
        "group_by_length": False,  # else both would take other rows, as their lengths differ
    }
    content: dict[str, Any] = {
        "run": "bench",
        "method": method,
        "model": {"base": base},
        "data": {
            **{split: str(data / f"{split}.jsonl") for split in SPLITS},
            "overlap": "allow",
        },
        "output": str(work / "runs"),
        "training": section | training,
    }
    if method == "dpo":
        content["data"]["test"] = str(DEMO / "validation.jsonl")
    work.mkdir()
    run = prepare(TrainConfig.model_validate(content), work, LocalStore(str(work)))
    trainer = build_trainer(run, lambda: None)
    if method == "dpo":
        # The log-probabilities of a reference are the same for both, and any will do.
        rows = len(trainer.train_dataset) + len(trainer.eval_dataset)
        trainer.reference = torch.zeros(rows, 2)
    trainer.choose_forward(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def steps_of(trainer: Any) -> Iterator[tuple[float, float]]:
    """Yield the CPU seconds and the loss of each step, which leaves the weights as they are."""
    torch.manual_seed(1)
    batches = iter(trainer.get_train_dataloader())
    while True:
        (step,), learned = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
        if len(step.rows) < ROWS_OF_A_STEP:
            batches = iter(trainer.get_train_dataloader())
            continue
        began = time.process_time()
        loss = trainer.training_step(trainer.model, step, learned)
        seconds = time.process_time() - began
        trainer.model.zero_grad()
        yield seconds, loss.item()


def measure(name: str, base: str, rounds: int) -> dict[str, Any]:
    """Let both take steps by turns; return the ratio of their CPU seconds, and what they took."""
    key, joined = OPTIONS[name]
    section, _, option = key.rpartition(".")
    with TemporaryDirectory(prefix="recap-bench-") as folder:
        data = DEMO
        if joined is not None:
            data = Path(folder)
            write_pairs(data, joined)
        steps = {}
        for is_on in (True, False):
            training: dict[str, Any] = {option: is_on}
            trainer = trainer_with(
                base,
                data,
                Path(folder) / str(is_on),
                "sft" if joined is None else "dpo",
                {section: training} if section else training,
            )
            steps[is_on] = steps_of(trainer)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(rounds + 1):
            order = (True, False) if number % 2 else (False, True)
            found = {is_on: next(steps[is_on]) for is_on in order}
            losses = [loss for _, loss in found.values()]
            assert math.isclose(*losses, rel_tol=1e-4), f"not the same step: {losses}"
            if number > 0:  # the first round warms up
                for is_on in order:
                    seconds[is_on].append(found[is_on][0])
    low, ratio, high = quartiles(ratios(seconds[True], seconds[False]))
    print(f"{name}: {ratio:.3f} of the CPU seconds of a step without {key},", end=" ")
    print(f"the middle half of {rounds} rounds from {low:.3f} to {high:.3f}")
    return {
        "benchmark": "step_options",
        "option": name,
        "ratio": round(ratio, 4),
        "middle_half": [round(low, 4), round(high, 4)],
        "cpu_seconds": {"with": seconds[True], "without": seconds[False]},
    }


def main() -> None:
    """Measure the options one after the other, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--base", default=str(DEMO / "base"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        print(json.dumps(measure(name, options.base, options.rounds) | machine()), flush=True)


if __name__ == "__main__":
    main()
