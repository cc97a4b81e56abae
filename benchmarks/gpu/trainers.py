"""Train steps on a random base by recap, by the classic recipe of notebooks, and by `trl sft`.

Each recipe returns a trainer that is built as its users build it. `Rounds` measures its steps.
"""

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.training_args import OptimizerNames

from benchmarks.gpu.bases import parameters_in_layers, random_base, write_base
from benchmarks.gpu.measurements import merged
from benchmarks.gpu.rows import counts_of, lengths_of, make_rows
from benchmarks.gpu.turns import Turn
from benchmarks.notebook_recipe import compute_dtype, make_trainer
from job.config.commands import TrainConfig
from job.config.sections import ModelSection
from job.model.fetch import Base
from job.model.load import free_memory, load_tokenizer
from job.training.build import build_trainer
from job.training.examine import examine_base
from job.training.prepare import Data, Run
from job.training.rows import Splits

MORE_STEPS_THAN_ANY_ROUNDS = 100_000

# examples/tweetsumm-llama2-7b.yaml, without evaluations and checkpoints. All activations are kept:
# `auto` would choose by the memory that other variants leave on the card.
CONFIG: dict[str, Any] = {
    "run": "bench",
    "model": {"quantization": "nf4"},
    "data": {"train": "none.jsonl", "validation": "none.jsonl"},
    "lora": {"r": 16, "alpha": 32, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]},
    "training": {
        "batch_size": 4,
        "gradient_accumulation_steps": 4,
        "learning_rate": 0.0001,
        "optimizer": "paged_adamw_32bit",
        "activation_checkpointing": False,
        "max_grad_norm": 0.3,
        "max_tokens": 4096,
        "max_steps": MORE_STEPS_THAN_ANY_ROUNDS,
        "evaluate_every_steps": MORE_STEPS_THAN_ANY_ROUNDS,
        "save_every_steps": MORE_STEPS_THAN_ANY_ROUNDS,
        "sample_summaries": 0,
    },
}

# The best that the flags of `trl sft` reach with rows of this kind on one GPU without flash-attn.
TRL_FLAGS = (
    "--model_name_or_path base --dataset_name rows --use_peft --load_in_4bit "
    "--lora_r 16 --lora_alpha 32 --lora_dropout 0 --lora_target_modules q_proj v_proj "
    "--gradient_checkpointing false --optim adamw_torch_fused --learning_rate 1e-4 "
    "--train_sampling_strategy group_by_length --max_length 4096 --logging_steps 10 "
    "--save_strategy no --eval_strategy no --report_to none --seed 42"
)


def train_by_rounds(specification: Mapping[str, Any], turn: Turn) -> None:
    """Train, and report each round: one pass over the rows."""
    work = Path(mkdtemp(prefix="recap-bench-"))
    with patched(specification):
        trainer = RECIPES[specification["recipe"]](specification, work)
        trainer.add_callback(Rounds(specification, turn))
        trainer.train()


class Rounds(TrainerCallback):
    """Report time and memory of each pass over the rows, and wait for the next turn."""

    def __init__(self, specification: Mapping[str, Any], turn: Turn) -> None:
        self._counts = counts_of(lengths_of(specification["rows"]))
        self._shape = specification["shape"]
        self._turn = turn
        self._started: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self._start()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        synchronize()
        seconds = time.perf_counter() - self._started
        tokens = self._counts["tokens"]
        found = {
            "seconds": seconds,
            "conversations_per_second": self._counts["rows"] / seconds,
            "tokens_per_second": tokens / seconds,
            # LoRA computes no gradients of weights: two products forward, two backward.
            "tflops": 4e-12 * parameters_in_layers(self._shape) * tokens / seconds,
            **memory(),
        }
        self._turn.report(found)
        self._start()

    def _start(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        synchronize()
        self._started = time.perf_counter()


@dataclass(frozen=True)
class Trained:
    """The outcome of a training: the adapter's weights, on the CPU, and what was logged."""

    weights: Mapping[str, torch.Tensor]
    losses: list[float]
    seconds: float  # of all steps
    optimizer: str  # the one that was taken in the end


def train_once(
    specification: Mapping[str, Any], work: Path, checkpoint: Path | None = None
) -> Trained:
    """Train by recap from the first step, or from a checkpoint, to `max_steps` of the config."""
    torch.manual_seed(0)
    with patched(specification):
        trainer = recap_trainer(specification, work)
        synchronize()
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        synchronize()
        seconds = time.perf_counter() - started
    weights = {
        name: parameter.detach().cpu().clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }
    optimizer = OptimizerNames(trainer.args.optim).value
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    del trainer
    free_memory()
    return Trained(weights, losses, seconds, optimizer)


@contextmanager
def patched(specification: Mapping[str, Any]) -> Iterator[None]:
    """Let the functions that the specification names return what it says."""
    with ExitStack() as patches:
        for name, answer in specification.get("patches", {}).items():
            patches.enter_context(patch(name, return_value=answer))
        yield


def synchronize() -> None:
    """Block until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory() -> dict[str, float]:
    """Return the peak of memory in GB: a GPU's by torch's allocator, else this process's."""
    if torch.cuda.is_available():
        return {
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
        }
    return {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def recap_trainer(specification: Mapping[str, Any], work: Path) -> Any:
    """Return recap's own trainer for the config of `specification`, over CONFIG."""
    run = make_run(specification, work)

    def load_random(base: Base, section: ModelSection, *_: Any) -> Any:
        return random_base(base.path, section)

    with patch("job.training.build.load_base", load_random):
        return build_trainer(run, lambda: None)


def make_run(specification: Mapping[str, Any], work: Path) -> Run:
    """Return a prepared run of random rows on a base without files of weights."""
    folder = write_base(work / "base", specification["shape"])
    content = merged(CONFIG, specification.get("config", {}))
    content = merged(content, {"model": {"base": str(folder)}, "output": str(work)})
    config = TrainConfig.model_validate(content)
    columns = make_rows(lengths_of(specification["rows"]))
    rows = SimpleNamespace(dataset=Dataset.from_dict(columns))  # all that a trainer takes of Rows
    return Run(
        config=config,
        store=None,  # nothing is committed
        work=work,
        base=Base(str(folder), None, "random", folder),
        examined=examine_base(folder, config),
        tokenizer=load_tokenizer(folder),
        data=Data(None, None, Splits(rows, rows)),
        processes=1,
    )


def classic_trainer(specification: Mapping[str, Any], work: Path) -> Any:
    """Return the trainer of the classic QLoRA notebook: float16, padded, all logits, 4 x 4 rows."""
    folder = write_base(work / "base", specification["shape"])
    dtype = str(compute_dtype()).removeprefix("torch.")
    base = random_base(folder, ModelSection(base=str(folder), quantization="nf4", dtype=dtype))
    ids = make_rows(lengths_of(specification["rows"]))["input_ids"]
    return make_trainer(
        base,
        load_tokenizer(folder),
        Dataset.from_dict({"input_ids": ids}),
        work / "out",
        ["q_proj", "v_proj"],
        max_steps=MORE_STEPS_THAN_ANY_ROUNDS,
        learning_rate=1e-4,
        max_grad_norm=0.3,
        save_strategy="no",
    )


def trl_trainer(specification: Mapping[str, Any], work: Path) -> Any:
    """Return the trainer that `trl sft` makes of TRL_FLAGS and the flags of `specification`."""
    from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser, get_peft_config

    has_gpu = torch.cuda.is_available()
    machine = "--bf16 true --dtype bfloat16" if has_gpu else "--use_cpu true --bf16 false"
    flags = f"{TRL_FLAGS} {machine} {specification['flags']} --output_dir {work / 'out'}".split()
    flags += ["--max_steps", str(MORE_STEPS_THAN_ANY_ROUNDS), "--disable_tqdm", "true"]
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig))
    _, settings, model = parser.parse_args_and_config(flags)
    settings.dataset_kwargs = {"skip_prepare_dataset": True}  # the rows are token ids already
    folder = write_base(work / "base", specification["shape"])
    return SFTTrainer(
        model=random_base(folder, ModelSection(base=str(folder), quantization="nf4")),
        args=settings,
        train_dataset=Dataset.from_dict(make_rows(lengths_of(specification["rows"]))),
        processing_class=load_tokenizer(folder),
        peft_config=get_peft_config(model),
    )


RECIPES: dict[str, Callable[[Mapping[str, Any], Path], Any]] = {
    "recap": recap_trainer,
    "classic": classic_trainer,
    "trl": trl_trainer,
}
