"""The fine-tuning that a user would write without recap: TRL's SFTTrainer in one plain script.

`python benchmarks/plain_sft.py BASE TRAIN.jsonl VALIDATION.jsonl OUT STEPS` prints its training
seconds as one line of JSON. Base in 4-bit, LoRA, optimizer, batch, schedule, evaluation and saving
are those that `train_speed.py` gives to recap. The text is built by hand, and TRL tokenizes it.

The adapter is float32, as recap keeps it. TRL's own cast to bfloat16 more than doubles the time on
a CPU (measured on an AMD EPYC), which would flatter recap.
"""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from sft_rows import prompts_and_completions
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer


def main(base: str, train: str, validation: str, out: str, steps: int) -> None:
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantization, dtype=dtype, device_map={"": 0 if gpu else "cpu"}
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(base),
        train_dataset=Dataset.from_list(prompts_and_completions(Path(train))),
        eval_dataset=Dataset.from_list(prompts_and_completions(Path(validation))),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=16,
            lora_alpha=32,
            lora_dropout=0.05,
            target_modules="all-linear",
        ),
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
            max_length=512,
            train_sampling_strategy="group_by_length",
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
    main(*sys.argv[1:5], int(sys.argv[5]))
