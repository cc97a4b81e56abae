"""Names that other libraries use, and what to write here instead.

Purpose: someone who copies a setting from a notebook is told its name here instead of "unknown key". Plain tables;
knows nothing of how configs are read. Names are compared in lower case with `_` for `-`.
"""

import re

# Foreign name → path here. Only paths that the config at hand has are suggested.
CALLED: dict[str, tuple[str, ...]] = {
    "adapter_name_or_path": ("adapter",),
    "adapter_path": ("adapter",),
    "attn_implementation": ("model.attention",),
    "auto_find_batch_size": ("training.batch_size",),
    "base_model": ("model.base",),
    "batch_size": ("training.batch_size", "generation.max_batch_size"),
    "bnb_4bit_compute_dtype": ("model.dtype",),
    "bnb_4bit_quant_type": ("model.quantization",),
    "bnb_4bit_use_double_quant": ("model.quantization",),
    "data_seed": ("training.seed",),
    "dataset": ("data", "input"),
    "dataset_format": ("data.format",),
    "dataset_name": ("data.train", "input"),
    "dataset_path": ("data.train", "input"),
    "datasets": ("data.train", "input"),
    "do_sample": ("generation.temperature",),
    "endpoint": ("storage.endpoint_url",),
    "eval_dataset": ("data.validation",),
    "eval_steps": ("training.evaluate_every_steps",),
    "eval_strategy": ("training.evaluate_every_epochs",),
    "evaluation_strategy": ("training.evaluate_every_epochs",),
    "experiment_name": ("run",),
    "grad_accum": ("training.gradient_accumulation_steps",),
    "gradient_accumulation": ("training.gradient_accumulation_steps",),
    "gradient_checkpointing": ("training.activation_checkpointing",),
    "hub_model_id": ("publish.hub",),
    "hub_private_repo": ("publish.private",),
    "input_path": ("input",),
    "instruction": ("prompt.system",),
    "learning_rate_scheduler": ("training.scheduler",),
    "load_in_4bit": ("model.quantization",),
    "logging_steps": ("training.log_every_steps",),
    "lora_alpha": ("lora.alpha",),
    "lora_dropout": ("lora.dropout",),
    "lora_r": ("lora.r",),
    "lora_rank": ("lora.r",),
    "lora_target_modules": ("lora.target_modules",),
    "lr": ("training.learning_rate",),
    "lr_scheduler": ("training.scheduler",),
    "lr_scheduler_type": ("training.scheduler",),
    "max_completion_length": ("generation.max_new_tokens",),
    "max_length": ("training.max_tokens", "generation.max_input_tokens"),
    "max_model_len": ("generation.max_input_tokens",),
    "max_num_batched_tokens": ("generation.max_batch_tokens",),
    "max_num_seqs": ("generation.max_batch_size",),
    "max_seq_len": ("training.max_tokens", "generation.max_input_tokens"),
    "max_seq_length": ("training.max_tokens", "generation.max_input_tokens"),
    "max_tokens": ("generation.max_new_tokens",),
    "micro_batch_size": ("training.batch_size",),
    "model_id": ("model.base",),
    "model_name": ("model.base",),
    "model_name_or_path": ("model.base",),
    "num_epochs": ("training.epochs",),
    "num_train_epochs": ("training.epochs",),
    "optim": ("training.optimizer",),
    "output_dir": ("output",),
    "output_path": ("output",),
    "peft": ("lora",),
    "peft_config": ("lora",),
    "per_device_eval_batch_size": ("training.batch_size", "generation.max_batch_size"),
    "per_device_train_batch_size": ("training.batch_size",),
    "precision": ("model.dtype",),
    "push_to_hub": ("publish.hub",),
    "push_to_hub_model_id": ("publish.hub",),
    "quantization_config": ("model.quantization",),
    "rank": ("lora.r",),
    "run_name": ("run",),
    "s3_endpoint": ("storage.endpoint_url",),
    "save_steps": ("training.save_every_steps",),
    "save_strategy": ("training.save_every_epochs",),
    "save_total_limit": ("training.keep_last",),
    "sequence_len": ("training.max_tokens",),
    "sft": ("training",),
    "sft_config": ("training",),
    "system_prompt": ("prompt.system",),
    "test_size": ("data.validation_fraction",),
    "torch_dtype": ("model.dtype",),
    "train_dataset": ("data.train", "train"),
    "train_file": ("data.train", "train"),
    "train_path": ("data.train", "train"),
    "train_sampling_strategy": ("training.group_by_length",),
    "training_args": ("training",),
    "training_arguments": ("training",),
    "use_gradient_checkpointing": ("training.activation_checkpointing",),
    "val_size": ("data.validation_fraction",),
    "validation_file": ("data.validation",),
    "validation_path": ("data.validation",),
    "validation_split": ("data.validation_fraction",),
    "warmup": ("training.warmup_ratio",),
    "warmup_steps": ("training.warmup_ratio",),
}

# What the value becomes, where the name alone would mislead.
VALUES: dict[str, str] = {
    "auto_find_batch_size": "a number",
    "bnb_4bit_quant_type": "nf4 or nf4-double",
    "bnb_4bit_use_double_quant": "nf4-double is with, nf4 without",
    "do_sample": "0 is greedy, above 0 samples",
    "eval_strategy": "a number of epochs; or training.evaluate_every_steps",
    "evaluation_strategy": "a number of epochs; or training.evaluate_every_steps",
    "load_in_4bit": "nf4, nf4-double, or null for none",
    "push_to_hub": "org/name",
    "quantization_config": "nf4, nf4-double, or null for none",
    "save_strategy": "a number of epochs; or training.save_every_steps",
    "train_sampling_strategy": "true or false",
    "warmup_steps": "a share of all steps, from 0 to below 1",
}

# Foreign names with no counterpart here: what recap does instead.
ANSWERS: dict[str, str] = {
    "bf16": "not a switch here: model.dtype is bfloat16, float16, float32 or auto",
    "fp16": "not a switch here: model.dtype is bfloat16, float16, float32 or auto",
    "bias": "biases are never trained; remove it",
    "completion_only_loss": "the loss is always on the summary alone; remove it",
    "assistant_only_loss": "the loss is always on the summary alone; remove it",
    "train_on_inputs": "the loss is always on the summary alone; remove it",
    "dataset_text_field": "rows are made of conversations: data.format, and data.columns for tables; remove it",
    "formatting_func": "rows are made of conversations by prompt.style; remove it",
    "eval_packing": "validation is never packed; remove it",
    "load_best_model_at_end": "the adapter is the one at the end of training; remove it",
    "packing_strategy": "packing is on or off: training.packing",
    "padding_side": "the side of padding is recap's own business; remove it",
    "predict_with_generate": "summaries are always generated and scored at the end: see evaluation; remove it",
    "remove_unused_columns": "recap chooses its columns itself; remove it",
    "report_to": "TensorBoard is always written, below the output; remove it",
    "logging_dir": "TensorBoard is always written, below the output; remove it",
    "resume_from_checkpoint": "a run always goes on from its newest checkpoint; remove it",
    "overwrite_output_dir": "a run never overwrites another: choose another run name; remove it",
    "save_safetensors": "weights are always safetensors; remove it",
    "task_type": "the task is always a causal language model; remove it",
    "tokenizer": "the tokenizer comes with model.base; remove it",
    "tokenizer_name": "the tokenizer comes with model.base; remove it",
    "processing_class": "the tokenizer comes with model.base; remove it",
    "use_cache": "the cache is recap's own business; remove it",
    "use_liger_kernel": "not used; remove it",
}

_PACKING = re.compile(r"packing_\w+")
_HUB_TOKEN = re.compile(r"((use_)?auth_|access_|bearer_|hub_|hf_|huggingface_|push_to_hub_)?token")
_AWS_KEY = re.compile(r"aws_.*(key|token|secret|id)(_id)?|access_key(_id)?|secret_(access_)?key|session_token")
_SECRET = re.compile(
    r"(.*_)?(password|passwd|secret|credentials?|api_?key|private_key|client_secret|(api|github)_token)"
)


def secret_key(key: str) -> str | None:
    """What to do instead, if `key` is the name of a secret."""
    name = _normal(key)
    if _HUB_TOKEN.fullmatch(name):
        return "never in a config: set HF_TOKEN in the environment"
    if _AWS_KEY.fullmatch(name):
        return "never in a config: credentials of AWS come from the environment, a profile or a role"
    return "never in a config: secrets come from the environment" if _SECRET.fullmatch(name) else None


def answer(key: str, paths: set[str]) -> str | None:
    """What to write instead of a foreign name, in a config that has `paths`; None if the name is not known."""
    name = _normal(key)
    known = [path for path in CALLED.get(name, ()) if path in paths]
    if known:
        return f"it is called {known[0]} here" + (f" ({VALUES[name]})" if name in VALUES else "")
    return ANSWERS.get("packing_strategy" if _PACKING.fullmatch(name) else name)


def _normal(key: str) -> str:
    return key.lower().replace("-", "_")
