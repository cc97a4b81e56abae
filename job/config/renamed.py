"""Names of settings in other libraries, and what to write here instead.

A setting that is copied from a notebook gets an answer with its name here, not just "unknown key".
Names are compared in lower case, with `_` for `-`.
"""

import re

from job.config.not_settings import ANSWERS
from job.config.renamed_values import MEANT, VALUES

# Foreign name → path here. Only paths that the config at hand has are suggested.
CALLED: dict[str, tuple[str, ...]] = {
    "adapter_folder": ("training.start_from",),
    "adapter_name_or_path": ("adapter", "training.start_from"),
    "adapter_path": ("adapter",),
    "answer_column": ("data.columns",),
    "assistant_tag": ("data.roles",),
    "attn_implementation": ("model.attention",),
    "auto_find_batch_size": ("training.batch_size",),
    "base_model": ("model.base",),
    "batch_size": ("training.batch_size", "generation.max_batch_size"),
    "best_of": ("generation.candidates",),
    "beta": ("training.dpo.beta", "training.kto.beta"),
    "bnb_4bit_compute_dtype": ("model.dtype",),
    "bnb_4bit_quant_type": ("model.quantization",),
    "bnb_4bit_use_double_quant": ("model.quantization",),
    "charset": ("data.csv.encoding",),
    "chat_template": ("prompt.style",),
    "chosen_field": ("data.columns",),
    "completion_field": ("data.columns",),
    "content_key": ("data.turns",),
    "content_tag": ("data.turns",),
    "conversation": ("prompt.style",),
    "conversation_column": ("data.columns",),
    "conversations": ("data.turns",),
    "cutoff_len": ("training.max_tokens", "generation.max_input_tokens"),
    "data_parallel_size": ("workers",),
    "data_seed": ("training.seed",),
    "dataset": ("data", "input"),
    "dataset_format": ("data.format",),
    "dataset_name": ("data.train", "input"),
    "dataset_path": ("data.train", "input"),
    "datasets": ("data.train", "input"),
    "default_system": ("prompt.system",),
    "default_system_message": ("prompt.system",),
    "delimiter": ("data.csv.delimiter",),
    "desirable_weight": ("training.kto.desirable_weight",),
    "disable_gradient_checkpointing": ("training.activation_checkpointing",),
    "do_sample": ("generation.temperature",),
    "double_quantization": ("model.quantization",),
    "dpo_beta": ("training.dpo.beta",),
    "drop_system_message": ("data.drop_roles",),
    "early_stopping": ("training.patience",),
    "early_stopping_patience": ("training.patience",),
    "early_stopping_steps": ("training.patience",),
    "encoding": ("data.csv.encoding",),
    "endpoint": ("storage.endpoint_url",),
    "escape_char": ("data.csv.escape",),
    "escapechar": ("data.csv.escape",),
    "eval_batch_size": ("training.batch_size", "generation.max_batch_size"),
    "eval_dataset": ("data.validation",),
    "eval_sample_packing": ("training.packing",),
    "eval_steps": ("training.evaluate_every_steps",),
    "eval_strategy": ("training.evaluate_every_epochs",),
    "eval_table_size": ("training.sample_summaries",),
    "evals_per_epoch": ("training.evaluate_every_epochs",),
    "evaluation_strategy": ("training.evaluate_every_epochs",),
    "experiment_name": ("run",),
    "field_chosen": ("data.columns",),
    "field_input": ("data.columns",),
    "field_instruction": ("data.columns",),
    "field_messages": ("data.turns",),
    "field_output": ("data.columns",),
    "field_rejected": ("data.columns",),
    "field_system": ("prompt.system",),
    "flash_attention": ("model.attention",),
    "flash_attn": ("model.attention",),
    "formatting": ("data.format",),
    "from": ("data.turns",),
    "fsdp": ("training.distribution",),
    "fsdp_config": ("training.distribution",),
    "full_determinism": ("training.deterministic",),
    "gpus": ("training.processes", "workers"),
    "grad_accum": ("training.gradient_accumulation_steps",),
    "gradient_accumulation": ("training.gradient_accumulation_steps",),
    "gradient_checkpointing": ("training.activation_checkpointing",),
    "hub_model_id": ("publish.hub",),
    "hub_private_repo": ("publish.private",),
    "human_tag": ("data.roles",),
    "input_path": ("input",),
    "instruction": ("prompt.system",),
    "kto_beta": ("training.kto.beta",),
    "kto_chosen_weight": ("training.kto.desirable_weight",),
    "kto_desirable_weight": ("training.kto.desirable_weight",),
    "kto_rejected_weight": ("training.kto.undesirable_weight",),
    "kto_tag": ("data.columns",),
    "kto_undesirable_weight": ("training.kto.undesirable_weight",),
    "learning_rate_scheduler": ("training.scheduler",),
    "load_best_model_at_end": ("training.adapter_from",),
    "load_in_4bit": ("model.quantization",),
    "logging_steps": ("training.log_every_steps",),
    "lora_alpha": ("lora.alpha",),
    "lora_dropout": ("lora.dropout",),
    "lora_mlp_kernel": ("training.fused_lora",),
    "lora_model_dir": ("training.start_from",),
    "lora_o_kernel": ("training.fused_lora",),
    "lora_qkv_kernel": ("training.fused_lora",),
    "lora_r": ("lora.r",),
    "lora_rank": ("lora.r",),
    "lora_target": ("lora.target_modules",),
    "lora_target_linear": ("lora.target_modules",),
    "lora_target_modules": ("lora.target_modules",),
    "loss_weights": ("training.dpo.sft_weight",),
    "lr": ("training.learning_rate",),
    "lr_scheduler": ("training.scheduler",),
    "lr_scheduler_type": ("training.scheduler",),
    "max_completion_length": ("generation.max_new_tokens",),
    "max_eval_samples": ("evaluation.max_conversations",),
    "max_length": ("training.max_tokens", "generation.max_new_tokens"),
    "max_model_len": ("generation.max_input_tokens",),
    "max_num_batched_tokens": ("generation.max_batch_tokens",),
    "max_num_seqs": ("generation.max_batch_size",),
    "max_output_tokens": ("generation.max_new_tokens",),
    "max_seq_len": ("training.max_tokens", "generation.max_input_tokens"),
    "max_seq_length": ("training.max_tokens", "generation.max_input_tokens"),
    "max_tokens": ("generation.max_new_tokens",),
    "message_field_content": ("data.turns",),
    "message_field_role": ("data.turns",),
    "message_property_mappings": ("data.turns",),
    "messages": ("data.turns",),
    "messages_field": ("data.turns",),
    "metric_for_best_model": ("training.selection.metric",),
    "micro_batch_size": ("training.batch_size",),
    "model_id": ("model.base",),
    "model_name": ("model.base",),
    "model_name_or_path": ("model.base",),
    "model_revision": ("model.revision",),
    "new_model": ("run",),
    "num_epochs": ("training.epochs",),
    "num_gpus": ("training.processes", "workers"),
    "num_train_epochs": ("training.epochs",),
    "optim": ("training.optimizer",),
    "output_column": ("data.columns",),
    "output_dir": ("output",),
    "output_path": ("output",),
    "peft": ("lora",),
    "peft_config": ("lora",),
    "peft_use_dora": ("lora.variant",),
    "peft_use_rslora": ("lora.variant",),
    "per_device_eval_batch_size": ("training.batch_size", "generation.max_batch_size"),
    "per_device_train_batch_size": ("training.batch_size",),
    "precision": ("model.dtype",),
    "predictions": ("summaries",),
    "pref_beta": ("training.dpo.beta",),
    "pref_ftx": ("training.dpo.sft_weight",),
    "prompt_column": ("data.columns",),
    "push_to_hub": ("publish.hub",),
    "push_to_hub_model_id": ("publish.hub",),
    "quantization_bit": ("model.quantization",),
    "quantization_config": ("model.quantization",),
    "query": ("data.columns",),
    "random_state": ("training.seed",),
    "rank": ("lora.r",),
    "rejected_field": ("data.columns",),
    "response": ("data.columns",),
    "revision_of_model": ("model.revision",),
    "rl": ("method",),
    "rl_beta": ("training.dpo.beta",),
    "role_key": ("data.turns",),
    "role_mapping": ("data.roles",),
    "role_tag": ("data.turns",),
    "rpo_alpha": ("training.dpo.sft_weight",),
    "run_name": ("run",),
    "s3_endpoint": ("storage.endpoint_url",),
    "sample_packing": ("training.packing",),
    "save_steps": ("training.save_every_steps",),
    "save_strategy": ("training.save_every_epochs",),
    "save_total_limit": ("training.keep_last",),
    "saves_per_epoch": ("training.save_every_epochs",),
    "sdp_attention": ("model.attention",),
    "sep": ("data.csv.delimiter",),
    "separator": ("data.csv.delimiter",),
    "sequence_len": ("training.max_tokens",),
    "sft": ("training",),
    "sft_config": ("training",),
    "stage": ("method",),
    "summary_column": ("data.columns",),
    "system_message": ("prompt.system",),
    "system_prompt": ("prompt.system",),
    "system_tag": ("data.drop_roles",),
    "tags": ("data.turns",),
    "template": ("prompt.style",),
    "tensor_parallel_size": ("tensor_parallel", "serve.tensor_parallel"),
    "test_dataset": ("data.test", "input"),
    "test_datasets": ("data.test", "input"),
    "test_file": ("data.test", "input"),
    "test_path": ("data.test", "input"),
    "test_size": ("data.validation_fraction",),
    "test_split": ("data.test",),
    "text_column": ("data.columns",),
    "text_key": ("data.turns",),
    "torch_compile": ("training.compile",),
    "torch_dtype": ("model.dtype",),
    "train_dataset": ("data.train", "train"),
    "train_file": ("data.train", "train"),
    "train_path": ("data.train", "train"),
    "train_sampling_strategy": ("training.group_by_length",),
    "training_args": ("training",),
    "training_arguments": ("training",),
    "undesirable_weight": ("training.kto.undesirable_weight",),
    "use_4bit": ("model.quantization",),
    "use_bnb_nested_quant": ("model.quantization",),
    "use_dora": ("lora.variant",),
    "use_gradient_checkpointing": ("training.activation_checkpointing",),
    "use_nested_quant": ("model.quantization",),
    "use_rslora": ("lora.variant",),
    "user_tag": ("data.roles",),
    "val_set_size": ("data.validation_fraction",),
    "val_size": ("data.validation_fraction",),
    "validation_file": ("data.validation",),
    "validation_path": ("data.validation",),
    "validation_split": ("data.validation_fraction",),
    "value": ("data.turns",),
    "warmup": ("training.warmup_ratio",),
    "warmup_steps": ("training.warmup_ratio",),
}

_PACKING = re.compile(r"packing_\w+")
_HUB_TOKEN = re.compile(r"((use|auth|access|bearer|push_to|hub|hf|huggingface)_)*token")
_AWS_KEY = re.compile(
    r"aws_.*(key|token|secret|id)(_id)?|access_key(_id)?|secret_(access_)?key|session_token"
)
_SECRET = re.compile(
    r"(.*_)?(password|passwd|secret|credentials?|api_?key|private_key|client_secret"
    r"|(api|github)_token)"
)


def secret_key(key: str) -> str | None:
    """Return what to do instead if `key` is the name of a secret, None if it is not."""
    name = _normal(key)
    if _HUB_TOKEN.fullmatch(name):
        return "never in a config: set HF_TOKEN in the environment"
    if _AWS_KEY.fullmatch(name):
        return (
            "never in a config: credentials of AWS come from the environment, a profile or a role"
        )
    if _SECRET.fullmatch(name):
        return "never in a config: secrets come from the environment"
    return None


def answer(key: str, paths: set[str], value: object = None, section: str = "") -> str | None:
    """Return what to write instead of a foreign name and its value, in a config with these `paths`.

    None if the name is unknown. Of several answers, one within the `section` of the name is best.
    """
    name = _normal(key)
    known = sorted(called(key, paths), key=lambda path: not path.startswith(f"{section}."))
    if known:
        instead = meant(known[0], value) or VALUES.get(name)
        return f"it is called {known[0]} here" + (f" ({instead})" if instead else "")
    return ANSWERS.get("packing_strategy" if _PACKING.fullmatch(name) else name)


def called(key: str, paths: set[str]) -> list[str]:
    """Return which of the `paths` of a config have the setting of a foreign name."""
    return [path for path in CALLED.get(_normal(key), ()) if path in paths]


def meant(path: str, value: object) -> str | None:
    """Return what to write at `path` for a value of another library, None if that is not known."""
    values = MEANT.get(path) or MEANT.get(f"{path.rpartition('.')[0]}.*") or {}
    return values.get(str(value).lower())


def _normal(key: str) -> str:
    return key.lower().replace("-", "_")
