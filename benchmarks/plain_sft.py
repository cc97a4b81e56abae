"""The fine-tuning that a user would write without recap: TRL's SFTTrainer in one plain script.

`python -m benchmarks.plain_sft BASE DATA OUT STEPS WAY` prints its training seconds as one line of
JSON. DATA has train.jsonl and validation.jsonl. Base in 4-bit, LoRA, optimizer, batch, schedule,
evaluation and saving are those that `train_speed.py` gives to recap. The text is built by hand, and
TRL tokenizes it.

| WAY | is |
|---|---|
| grouped | rows of similar length in a batch |
| random | rows in random order, TRL's default |
| unsloth | grouped, with the model loaded and the adapter attached by Unsloth |

The adapter is float32, as recap keeps it. TRL's own cast to bfloat16 more than doubles the time on
a CPU (measured on an AMD EPYC), which would flatter recap.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

if sys.argv[-1] == "unsloth":
    importlib.import_module("unsloth")  # replaces parts of the libraries below, so it comes first

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from benchmarks.sft_rows import prompts_and_completions

MAX_TOKENS = 512
ADAPTER = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
DROPOUT = 0.05


def load(base: str) -> Any:
    """Return the base in 4 bits."""
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantization, dtype=dtype, device_map={"": 0 if gpu else "cpu"}
    )


def load_by_unsloth(base: str) -> Any:
    """Return the base in 4 bits with an adapter, both as Unsloth makes them fastest."""
    unsloth = importlib.import_module("unsloth").FastLanguageModel
    model, _ = unsloth.from_pretrained(base, max_seq_length=MAX_TOKENS, load_in_4bit=True)
    return unsloth.get_peft_model(
        model, **ADAPTER, lora_dropout=0, use_gradient_checkpointing=False, random_state=42
    )


def main(base: str, data: str, out: str, steps: int, way: str) -> None:
    gpu = torch.cuda.is_available()
    rows = {
        split: Dataset.from_list(prompts_and_completions(Path(data) / f"{split}.jsonl"))
        for split in ("train", "validation")
    }
    adapter = LoraConfig(task_type="CAUSAL_LM", lora_dropout=DROPOUT, **ADAPTER)
    trainer = SFTTrainer(
        model=load_by_unsloth(base) if way == "unsloth" else load(base),
        processing_class=AutoTokenizer.from_pretrained(base),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        peft_config=None if way == "unsloth" else adapter,
        args=SFTConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=16,
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            optim="adamw_torch",
            max_grad_norm=1.0,
            max_length=MAX_TOKENS,
            train_sampling_strategy="random" if way == "random" else "group_by_length",
            gradient_checkpointing=gpu,
            bf16=gpu,
            use_cpu=not gpu,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=steps,
            save_strategy="steps",
            save_steps=steps,
            seed=42,
            report_to="tensorboard",
            disable_tqdm=True,
        ),
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()

    # With the trainer's preparations, as recap counts. `train_runtime` leaves them out.
    begun = time.monotonic()
    result = trainer.train()
    seconds = time.monotonic() - begun
    print(json.dumps({"train_seconds": seconds, "train_loss": result.metrics["train_loss"]}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5])
