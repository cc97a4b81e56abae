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
    "chat_template": ("prompt.style",),
    "cutoff_len": ("training.max_tokens", "generation.max_input_tokens"),
    "data_seed": ("training.seed",),
    "dataset": ("data", "input"),
    "dataset_format": ("data.format",),
    "dataset_name": ("data.train", "input"),
    "dataset_path": ("data.train", "input"),
    "datasets": ("data.train", "input"),
    "do_sample": ("generation.temperature",),
    "double_quantization": ("model.quantization",),
    "early_stopping_patience": ("training.patience",),
    "endpoint": ("storage.endpoint_url",),
    "eval_batch_size": ("training.batch_size", "generation.max_batch_size"),
    "eval_dataset": ("data.validation",),
    "eval_sample_packing": ("training.packing",),
    "eval_steps": ("training.evaluate_every_steps",),
    "eval_strategy": ("training.evaluate_every_epochs",),
    "eval_table_size": ("training.sample_summaries",),
    "evals_per_epoch": ("training.evaluate_every_epochs",),
    "evaluation_strategy": ("training.evaluate_every_epochs",),
    "experiment_name": ("run",),
    "flash_attention": ("model.attention",),
    "flash_attn": ("model.attention",),
    "grad_accum": ("training.gradient_accumulation_steps",),
    "gradient_accumulation": ("training.gradient_accumulation_steps",),
    "gradient_checkpointing": ("training.activation_checkpointing",),
    "hub_model_id": ("publish.hub",),
    "hub_private_repo": ("publish.private",),
    "input_path": ("input",),
    "instruction": ("prompt.system",),
    "learning_rate_scheduler": ("training.scheduler",),
    "load_best_model_at_end": ("training.adapter_from",),
    "load_in_4bit": ("model.quantization",),
    "logging_steps": ("training.log_every_steps",),
    "lora_alpha": ("lora.alpha",),
    "lora_dropout": ("lora.dropout",),
    "lora_r": ("lora.r",),
    "lora_rank": ("lora.r",),
    "lora_target": ("lora.target_modules",),
    "lora_target_linear": ("lora.target_modules",),
    "lora_target_modules": ("lora.target_modules",),
    "lr": ("training.learning_rate",),
    "lr_scheduler": ("training.scheduler",),
    "lr_scheduler_type": ("training.scheduler",),
    "max_completion_length": ("generation.max_new_tokens",),
    "max_eval_samples": ("evaluation.max_conversations",),
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
    "peft_use_dora": ("lora.variant",),
    "peft_use_rslora": ("lora.variant",),
    "per_device_eval_batch_size": ("training.batch_size", "generation.max_batch_size"),
    "per_device_train_batch_size": ("training.batch_size",),
    "precision": ("model.dtype",),
    "push_to_hub": ("publish.hub",),
    "push_to_hub_model_id": ("publish.hub",),
    "quantization_bit": ("model.quantization",),
    "quantization_config": ("model.quantization",),
    "rank": ("lora.r",),
    "run_name": ("run",),
    "s3_endpoint": ("storage.endpoint_url",),
    "sample_packing": ("training.packing",),
    "save_steps": ("training.save_every_steps",),
    "save_strategy": ("training.save_every_epochs",),
    "save_total_limit": ("training.keep_last",),
    "saves_per_epoch": ("training.save_every_epochs",),
    "sdp_attention": ("model.attention",),
    "sequence_len": ("training.max_tokens",),
    "sft": ("training",),
    "sft_config": ("training",),
    "system_prompt": ("prompt.system",),
    "template": ("prompt.style",),
    "test_size": ("data.validation_fraction",),
    "torch_dtype": ("model.dtype",),
    "train_dataset": ("data.train", "train"),
    "train_file": ("data.train", "train"),
    "train_path": ("data.train", "train"),
    "train_sampling_strategy": ("training.group_by_length",),
    "training_args": ("training",),
    "training_arguments": ("training",),
    "use_dora": ("lora.variant",),
    "use_gradient_checkpointing": ("training.activation_checkpointing",),
    "use_rslora": ("lora.variant",),
    "val_set_size": ("data.validation_fraction",),
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
    "chat_template": "chat is the base's own template, instruction the classic one",
    "do_sample": "0 is greedy, above 0 samples",
    "double_quantization": "nf4-double is with, nf4 without",
    "eval_strategy": "a number of epochs; or training.evaluate_every_steps",
    "evals_per_epoch": "a number of epochs: 4 of them an epoch are 0.25",
    "evaluation_strategy": "a number of epochs; or training.evaluate_every_steps",
    "flash_attention": "sdpa, flash_attention_2 or eager",
    "flash_attn": "sdpa, flash_attention_2 or eager",
    "load_best_model_at_end": "best_evaluation or last_step",
    "load_in_4bit": "nf4, nf4-double, or null for none",
    "lora_target": "all-linear, or names",
    "lora_target_linear": "all-linear, or names",
    "peft_use_dora": "lora, rslora or dora",
    "peft_use_rslora": "lora, rslora or dora",
    "push_to_hub": "org/name",
    "quantization_bit": "nf4, nf4-double, or null for none",
    "quantization_config": "nf4, nf4-double, or null for none",
    "save_strategy": "a number of epochs; or training.save_every_steps",
    "saves_per_epoch": "a number of epochs: 4 of them an epoch are 0.25",
    "sdp_attention": "sdpa, flash_attention_2 or eager",
    "template": "chat is the base's own template, instruction the classic one",
    "train_sampling_strategy": "true or false",
    "use_dora": "lora, rslora or dora",
    "use_rslora": "lora, rslora or dora",
    "warmup_steps": "a share of all steps, from 0 to below 1",
}

# Foreign names with no counterpart here: what recap does instead.
ANSWERS: dict[str, str] = {
    "adapter": "what is trained is always a LoRA adapter (lora.variant); remove it",
    "assistant_only_loss": "the loss is always on the summary alone; remove it",
    "bf16": "not a switch here: model.dtype is bfloat16, float16, float32 or auto",
    "bias": "biases are never trained; remove it",
    "completion_only_loss": "the loss is always on the summary alone; remove it",
    "dataloader_num_workers": "rows are ready before training begins; remove it",
    "dataset_num_proc": "rows are ready before training begins; remove it",
    "dataset_prepared_path": "rows are ready before training begins; remove it",
    "dataset_text_field": "rows are made of conversations: data.format, and data.columns for tables; remove it",
    "ddp_timeout": "not a setting here (see limits.stall_minutes); remove it",
    "deepspeed": "not used: every process holds the whole base; remove it",
    "do_eval": "`recap train` trains and evaluates; remove it",
    "do_train": "`recap train` trains and evaluates; remove it",
    "enable_liger_kernel": "not used; logits are computed in chunks anyway; remove it",
    "eval_packing": "validation is never packed; remove it",
    "finetuning_type": "what is trained is always a LoRA adapter (lora.variant); remove it",
    "formatting_func": "rows are made of conversations by prompt.style; remove it",
    "fp16": "not a switch here: model.dtype is bfloat16, float16, float32 or auto",
    "fsdp": "not used: every process holds the whole base; remove it",
    "greater_is_better": "the best evaluation is that of the smallest loss (training.adapter_from); remove it",
    "load_in_8bit": "not offered: model.quantization is nf4, nf4-double, or null for none",
    "logging_dir": "TensorBoard is always written, below the output; remove it",
    "lora_model_dir": "training starts from the base; remove it",
    "loraplus_lr_ratio": "not offered; remove it",
    "max_samples": "not offered: give a smaller file, or training.max_steps",
    "max_train_samples": "not offered: give a smaller file, or training.max_steps",
    "metric_for_best_model": "the best evaluation is that of the smallest loss (training.adapter_from); remove it",
    "model_type": "the kind of model is in the base's own config.json; remove it",
    "neftune_noise_alpha": "not offered; remove it",
    "overwrite_cache": "rows are ready before training begins; remove it",
    "overwrite_output_dir": "a run never overwrites another: choose another run name; remove it",
    "packing_strategy": "packing is on or off: training.packing",
    "pad_to_sequence_len": "batches are padded to their longest row; remove it",
    "padding_side": "the side of padding is recap's own business; remove it",
    "plot_loss": "the loss is always plotted, in the report; remove it",
    "predict_with_generate": "summaries are always generated and scored at the end: see evaluation; remove it",
    "preprocessing_num_workers": "rows are ready before training begins; remove it",
    "processing_class": "the tokenizer comes with model.base; remove it",
    "quantization_method": "quantization is always that of bitsandbytes; remove it",
    "remove_unused_columns": "recap chooses its columns itself; remove it",
    "report_to": "TensorBoard is always written, below the output; remove it",
    "resume_from_checkpoint": "a run always goes on from its newest checkpoint; remove it",
    "save_only_model": "checkpoints are always whole, or a run could not go on; remove it",
    "save_safetensors": "weights are always safetensors; remove it",
    "special_tokens": "the tokenizer comes with model.base; remove it",
    "stage": "the task is always supervised fine-tuning; remove it",
    "strict": "every key is always checked; remove it",
    "task_type": "the task is always a causal language model; remove it",
    "tf32": "not a switch here: model.dtype is bfloat16, float16, float32 or auto",
    "tokenizer": "the tokenizer comes with model.base; remove it",
    "tokenizer_name": "the tokenizer comes with model.base; remove it",
    "tokenizer_type": "the tokenizer comes with model.base; remove it",
    "train_on_inputs": "the loss is always on the summary alone; remove it",
    "use_cache": "the cache is recap's own business; remove it",
    "use_liger_kernel": "not used; logits are computed in chunks anyway; remove it",
    "wandb_entity": "TensorBoard is always written, below the output; remove it",
    "wandb_project": "TensorBoard is always written, below the output; remove it",
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
