"""The recipe of the notebooks from which people learn QLoRA: transformers' Trainer, all padded.

`python -m benchmarks.notebook_recipe BASE DATA OUT STEPS` prints its training seconds as one line
of JSON; DATA has train.jsonl and validation.jsonl. 4-bit base, LoRA, 4 x 4 rows of one text each,
padded to the longest, in random order, activation checkpointing, logits and loss of all tokens,
float16 on a GPU. `train_speed.py` gives recap the same schedule, evaluation and saving.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from benchmarks.sft_rows import prompts_and_completions

MAX_TOKENS = 512


def compute_dtype() -> torch.dtype:
    return torch.float16 if torch.cuda.is_available() else torch.float32


def make_trainer(
    base: Any, tokenizer: Any, rows: Dataset, out: Path, target_modules: Any, **arguments: Any
) -> Trainer:
    """Return the trainer of a 4-bit base and rows of `input_ids`, of which all are learned."""
    gpu = torch.cuda.is_available()
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=16,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=target_modules,
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return Trainer(
        model=get_peft_model(prepare_model_for_kbit_training(base), adapter),
        train_dataset=rows,
        eval_dataset=arguments.pop("evaluated", None),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        args=TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            optim="paged_adamw_32bit",
            fp16=gpu,
            use_cpu=not gpu,
            logging_steps=10,
            seed=42,
            report_to="none",
            disable_tqdm=True,
            **arguments,
        ),
    )


def main(base: str, data: str, out: str, steps: int) -> None:
    dtype = compute_dtype()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base,
        quantization_config=quantization,
        dtype=dtype,
        device_map={"": 0 if torch.cuda.is_available() else "cpu"},
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = make_trainer(
        model,
        tokenizer,
        _rows(Path(data) / "train.jsonl", tokenizer),
        Path(out),
        "all-linear",
        evaluated=_rows(Path(data) / "validation.jsonl", tokenizer),
        max_steps=steps,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        eval_strategy="steps",
        eval_steps=steps,
        save_strategy="steps",
        save_steps=steps,
    )
    begun = time.monotonic()
    trainer.train()
    print(json.dumps({"train_seconds": time.monotonic() - begun}))


def _rows(path: Path, tokenizer: Any) -> Dataset:
    """Return the tokens of prompt and summary as one text."""
    texts = [
        row["prompt"] + row["completion"] + tokenizer.eos_token
        for row in prompts_and_completions(path)
    ]
    return Dataset.from_dict(dict(tokenizer(texts, truncation=True, max_length=MAX_TOKENS)))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
