"""Compare the predicted peak of a training step's memory with the allocations of real steps.

`python benchmarks/memory.py [--only NAME]` writes benchmarks/results/memory.md. Each case is a
process of its own, which trains two steps with recap's trainer on a base of random weights; torch's
profiler records each allocation. The prediction is made from the base's config.json alone, by what
`recap plan` uses. A case takes from seconds to minutes, and a GiB or two.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "results" / "memory.md"
MIB = 1 << 20
MAX_ERROR = 0.02
WORDS = ["my", "router", "does", "not", "work", "since", "monday", "and", "the", "parcel", "is"]

# Width, intermediate width, layers, heads, heads of keys and values, vocabulary.
BASES = {
    "tiny": (64, 192, 2, 4, 4, 1_000),
    "7M": (256, 704, 8, 4, 2, 2_000),
    "31M": (384, 1024, 12, 6, 2, 16_000),
    "60M": (512, 1408, 14, 8, 4, 16_000),
    "150M": (768, 2048, 20, 12, 4, 16_000),
}


@dataclass(frozen=True)
class Case:
    """A base and the settings of a training on it."""

    base: str
    quantization: str | None
    dtype: str
    recomputes: bool
    max_tokens: int
    packing: bool = False
    variant: str = "lora"

    @property
    def name(self) -> str:
        """The case in one word."""
        parts = [self.base, self.quantization or "none", self.dtype, str(self.max_tokens)]
        parts += ["recomputed"] * self.recomputes + ["packed"] * self.packing
        return "-".join([*parts, self.variant])


CASES = (
    Case("tiny", "nf4-double", "float32", False, 192),
    Case("tiny", "nf4-double", "float32", True, 512),
    Case("7M", "nf4-double", "float32", True, 256),
    Case("7M", "nf4", "float32", False, 256),
    Case("7M", None, "float32", False, 256, variant="dora"),
    Case("31M", "nf4-double", "float32", True, 192),
    Case("31M", "nf4-double", "float32", False, 384),
    Case("31M", "nf4-double", "bfloat16", True, 384),
    Case("31M", "nf4-double", "bfloat16", False, 192),
    Case("31M", None, "bfloat16", True, 192),
    Case("31M", None, "bfloat16", False, 384),
    Case("31M", "nf4-double", "float32", False, 256, packing=True),
    Case("31M", "nf4-double", "float32", True, 256, packing=True),
    Case("31M", None, "float32", False, 256, packing=True),
    Case("31M", None, "bfloat16", True, 256, packing=True),
    Case("60M", "nf4-double", "float32", True, 256),
    Case("60M", "nf4-double", "bfloat16", False, 384),
    Case("150M", "nf4-double", "float32", True, 192),
    Case("150M", None, "bfloat16", True, 192),
    Case("150M", "nf4-double", "bfloat16", False, 384),
)


@dataclass(frozen=True)
class Result:
    """Bytes at the peak: measured, and predicted for the largest micro-batch of the training."""

    rows: int
    tokens: int
    measured: int
    predicted: int
    phase: str

    @property
    def error(self) -> float:
        """The error of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1


def measured_peak(trainer: Any) -> int:
    """Train, and return the most bytes that tensors had at once, those of the model among them."""
    from torch.profiler import ProfilerActivity, profile

    before = weights_bytes(trainer.model)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.train()
    events = [each for each in profiler.profiler.kineto_results.events() if is_memory(each)]
    events.sort(key=lambda each: each.start_ns())
    now = peak = 0
    for each in events:
        now += each.nbytes()
        peak = max(peak, now)
    return before + peak


def is_memory(event: Any) -> bool:
    return bool(event.name() == "[memory]")


def weights_bytes(model: Any) -> int:
    """Return the bytes of all tensors of a model: weights, buffers, constants of quantization."""
    tensors = [*model.parameters(), *model.buffers()]
    for each in model.parameters():
        state = getattr(each, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code]
            if state.state2 is not None:
                tensors += [state.offset, state.state2.absmax, state.state2.code]
    sizes = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(sizes.values())


def micro_batches_of(trainer: Any) -> list[Any]:
    """Return the rows of each micro-batch of a step, and True if others come before it.

    Every step must have all rows: then each has the same micro-batches, and all but the first meet
    the optimizer's states.
    """
    from job.memory.devices import Rows
    from job.prompt.encode import IGNORED
    from job.training.batches import lengths_in

    [rows] = trainer.get_train_dataloader()
    lengths = lengths_in(rows)
    found = []
    for number, positions in enumerate(trainer.budget.divide(lengths)):
        labels = [rows[position]["labels"][1:] for position in positions]
        learned = sum(label != IGNORED for row in labels for label in row)
        longest = max(lengths[position] for position in positions)
        count = len(positions)
        if trainer.budget.joins_rows:
            longest = sum(lengths[position] for position in positions)
            count = 1
        found.append((Rows(count, longest, learned, trainer.budget.joins_rows), number > 0))
    return list(dict.fromkeys(found))


def predicted_peak(config: Any, micro_batches: Sequence[Any]) -> tuple[Any, Any]:
    """Return the largest simulated peak of a step on this machine's CPU, and its rows."""
    from job.memory.devices import Device
    from job.memory.simulate import make_subject, simulate
    from job.memory.step import Step

    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    section = config.model.model_copy(update={"dtype": dtype})
    subject = make_subject(Path(config.model.base), section, config.lora)
    level = 1 if config.training.activation_checkpointing is True else None
    peaks = []
    for rows, has_earlier in micro_batches:
        step = Step(rows, Device(), config.training.optimizer, level, has_earlier)
        peaks.append((simulate(subject, step), rows))
    return max(peaks, key=lambda each: each[0].tensors)


def write_base(folder: Path, name: str) -> None:
    """Write a Llama of random weights with a tokenizer of bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import make_byte_tokenizer

    width, inner, layers, heads, key_heads, vocabulary = BASES[name]
    tokenizer = make_byte_tokenizer()
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_records(path: Path, numbers: range, max_tokens: int) -> None:
    """Write conversations of unlike length, of which each letter is a token."""
    lines = []
    for number in numbers:
        turns = []
        for turn in range(max(2, max_tokens * (4 + number % 3) // 250)):
            words = [WORDS[(number + turn + each) % len(WORDS)] for each in range(4)]
            words.append(str(number))
            role = "agent" if turn % 2 else "customer"
            turns.append({"role": role, "text": " ".join(words)})
        summary = f"Case {number}: {' '.join(WORDS[:3])}."
        lines.append(json.dumps({"id": f"c{number}", "turns": turns, "summaries": [summary]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_case(case: Case, folder: Path) -> Result:
    """Train and predict one case in this process."""
    from job.config.commands import TrainConfig
    from job.storage.local import LocalStore
    from job.training.build import build_trainer
    from job.training.prepare import prepare

    base = folder / "base"
    write_base(base, case.base)
    for split, numbers in (("train", range(8)), ("validation", range(8, 10))):
        write_records(folder / f"{split}.jsonl", numbers, case.max_tokens)
    config = TrainConfig.model_validate(
        {
            "run": "memory",
            "model": {
                "base": str(base),
                "quantization": case.quantization,
                "dtype": case.dtype,
            },
            "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "validation")},
            "prompt": {"system": "Summarize."},
            "output": str(folder / "runs"),
            "lora": {"variant": case.variant},
            "training": {
                "max_steps": 2,
                "batch_size": 4,
                "gradient_accumulation_steps": 2,
                "max_tokens": case.max_tokens,
                "packing": case.packing,
                "activation_checkpointing": case.recomputes,
                "evaluate_every_steps": 100,
                "sample_summaries": 0,
            },
        }
    )
    trainer = build_trainer(prepare(config, folder, LocalStore(str(folder))), lambda: None)
    micro_batches = micro_batches_of(trainer)
    measured = measured_peak(trainer)
    peak, rows = predicted_peak(config, micro_batches)
    return Result(rows.count, rows.tokens, measured, peak.tensors, peak.phase)


def run_apart(case: Case) -> Result:
    """Run a case in a process of its own, which has no fake tensors of others."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        raise RuntimeError(f"{case.name}: {ended.stderr[-2000:]}")
    return Result(**json.loads(ended.stdout.splitlines()[-1]))


def table(results: dict[Case, Result]) -> str:
    """Return the page: a line for each case, and the largest error."""
    lines = [
        "# Predicted and measured memory of a training step",
        "",
        "## Against allocations on a CPU",
        "",
        "Written by `python benchmarks/memory.py`. Bases of random weights, LoRA of r 16 on all",
        "linear layers, micro-batches of up to four rows. Measured: the most bytes that tensors",
        "had at once in two steps of recap's trainer, by torch's record of allocations. Predicted:",
        "from config.json and the rows of each micro-batch. **Nothing of recap was measured on a",
        "GPU.** `recap plan` knows no micro-batches: it takes the largest that there can be, with",
        "the gradients of others beside it, so its numbers are a few percent higher.",
        "",
        "| base | weights | dtype | adapter | recomputes | rows | tokens | measured MiB | "
        "predicted MiB | error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, result in results.items():
        shape = f"{result.rows} | {result.tokens}{', packed' if case.packing else ''}"
        lines.append(
            f"| {case.base} | {case.quantization or '16 or 32 bits'} | {case.dtype} "
            f"| {case.variant} | {'yes' if case.recomputes else 'no'} | {shape} "
            f"| {result.measured / MIB:.1f} | {result.predicted / MIB:.1f} | {result.error:+.2%} |"
        )
    errors = [result.error for result in results.values()]
    worst = max(errors, key=abs)
    missed = [each for each in errors if abs(each) > MAX_ERROR]
    lines += ["", f"The largest error is {worst:+.2%}; the claim is {MAX_ERROR:.0%}."]
    if missed:
        lines.append(f"**{len(missed)} of {len(errors)} cases miss it.**")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the cases whose name has this text")
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    options = parser.parse_args()
    if options.case:
        with tempfile.TemporaryDirectory() as folder:
            result = run_case(Case(**json.loads(options.case)), Path(folder))
        print(json.dumps(asdict(result)))
        return
    from benchmarks import memory_published

    results = {}
    for case in CASES:
        if options.only in case.name:
            results[case] = run_apart(case)
            print(f"{case.name:50} {results[case].error:+.2%}", flush=True)
    if not options.only:
        PAGE.write_text(f"{table(results)}\n{memory_published.table()}", encoding="utf-8")


if __name__ == "__main__":
    main()
