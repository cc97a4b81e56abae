"""The recipe of the notebooks from which people learn QLoRA: transformers' Trainer, all padded.

`python benchmarks/notebook_recipe.py BASE TRAIN.jsonl VALIDATION.jsonl OUT STEPS` prints its
training seconds as one line of JSON. 4-bit base, LoRA on all linear modules, 4 x 4 rows of one text
each, padded to the longest, in random order, activation checkpointing, logits and loss of all
tokens. Optimizer, schedule, evaluation and saving are those that `train_speed.py` gives to recap.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from sft_rows import prompts_and_completions
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

MAX_TOKENS = 512


def rows(path: str, tokenizer: Any) -> Dataset:
    """Return the tokens of prompt and summary as one text."""
    texts = [
        row["prompt"] + row["completion"] + tokenizer.eos_token
        for row in prompts_and_completions(Path(path))
    ]
    return Dataset.from_dict(dict(tokenizer(texts, truncation=True, max_length=MAX_TOKENS)))


def main(base: str, train: str, validation: str, out: str, steps: int) -> None:
    gpu = torch.cuda.is_available()
    dtype = torch.float16 if gpu else torch.float32
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantization, dtype=dtype, device_map={"": 0 if gpu else "cpu"}
    )
    adapter = LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear"
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = Trainer(
        model=get_peft_model(prepare_model_for_kbit_training(model), adapter),
        train_dataset=rows(train, tokenizer),
        eval_dataset=rows(validation, tokenizer),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        args=TrainingArguments(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            optim="paged_adamw_32bit",
            max_grad_norm=1.0,
            fp16=gpu,
            use_cpu=not gpu,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=steps,
            save_strategy="steps",
            save_steps=steps,
            seed=42,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    begun = time.monotonic()
    trainer.train()
    print(json.dumps({"train_seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
