"""Configs of other programs: the names that their users bring along, as each of them is spelled.

Those of transformers, TRL and peft are read from the sources that are installed.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

SOURCES = {
    "SFTConfig": ("trl", "trainer/sft_config.py"),
    "DPOConfig": ("trl", "trainer/dpo_config.py"),
    "KTOConfig": ("trl", "trainer/kto_config.py"),
    "ScriptArguments": ("trl", "scripts/utils.py"),
    "ModelConfig": ("trl", "trainer/model_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
    "LoraConfig": ("peft", "tuners/lora/config.py"),
    "BitsAndBytesConfig": ("transformers", "utils/quantization_config.py"),
}

AXOLOTL = """
    base_model model_type tokenizer_type revision_of_model trust_remote_code load_in_8bit
    load_in_4bit bnb_config_kwargs gptq adapter lora_model_dir lora_r lora_alpha lora_dropout
    lora_target_modules lora_target_linear lora_modules_to_save lora_fan_in_fan_out peft_use_dora
    peft_use_rslora loraplus_lr_ratio datasets test_datasets dataset_prepared_path val_set_size
    chat_template roles_to_train train_on_eos train_on_inputs field_messages field_system
    message_property_mappings default_system_message shuffle_merged_datasets push_dataset_to_hub
    sequence_len pad_to_sequence_len sample_packing eval_sample_packing sample_packing_bin_size
    output_dir hub_model_id hub_strategy wandb_project wandb_entity wandb_watch wandb_name
    wandb_log_model mlflow_tracking_uri micro_batch_size gradient_accumulation_steps num_epochs
    optimizer lr_scheduler cosine_min_lr_ratio learning_rate warmup_steps warmup_ratio weight_decay
    bf16 fp16 tf32 gradient_checkpointing gradient_checkpointing_kwargs flash_attention
    flash_attn_fuse_mlp xformers_attention sdp_attention early_stopping_patience logging_steps
    evals_per_epoch saves_per_epoch save_total_limit resume_from_checkpoint
    auto_resume_from_checkpoints loss_watchdog_threshold loss_watchdog_patience special_tokens
    tokens device_map deepspeed fsdp fsdp_config debug strict seed rl noisy_embedding_alpha
    rl_beta dpo_use_weighting dpo_label_smoothing dpo_norm_loss rpo_alpha orpo_alpha cpo_alpha
    simpo_gamma kto_desirable_weight kto_undesirable_weight field_chosen field_rejected
    cut_cross_entropy lora_qkv_kernel low_cpu_mem_usage gpu_memory_limit hf_use_auth_token
"""

LLAMA_FACTORY = """
    model_name_or_path model_revision adapter_name_or_path cache_dir use_fast_tokenizer
    resize_vocab quantization_bit quantization_method double_quantization flash_attn rope_scaling
    shift_attn use_unsloth enable_liger_kernel trust_remote_code hf_hub_token stage do_train
    finetuning_type lora_rank lora_alpha lora_dropout lora_target additional_target use_rslora
    use_dora pissa_init loraplus_lr_ratio use_galore use_badam freeze_trainable_layers pure_bf16
    dataset dataset_dir eval_dataset template cutoff_len max_samples overwrite_cache streaming
    buffer_size mix_strategy interleave_probs preprocessing_num_workers dataloader_num_workers
    train_on_prompt mask_history packing neat_packing tool_format default_system enable_thinking
    tokenized_path val_size output_dir logging_steps save_steps plot_loss overwrite_output_dir
    save_only_model report_to per_device_train_batch_size gradient_accumulation_steps
    learning_rate num_train_epochs lr_scheduler_type warmup_ratio bf16 ddp_timeout
    resume_from_checkpoint per_device_eval_batch_size eval_strategy eval_steps compute_accuracy
    predict_with_generate infer_backend disable_shuffling early_stopping_steps
    pref_beta pref_ftx pref_loss pref_bco_weight kto_chosen_weight kto_rejected_weight ref_model
    ref_model_adapters ref_model_quantization_bit ranking kto_tag
    include_effective_tokens_per_second upcast_layernorm disable_gradient_checkpointing
"""

UNSLOTH = """
    model_name max_seq_length dtype load_in_4bit load_in_8bit full_finetuning token fast_inference
    gpu_memory_utilization max_lora_rank device_map rope_scaling fix_tokenizer r target_modules
    lora_alpha lora_dropout bias use_gradient_checkpointing random_state use_rslora loftq_config
    finetune_language_layers finetune_vision_layers finetune_attention_modules
    finetune_mlp_modules dataset_text_field dataset_num_proc packing per_device_train_batch_size
    gradient_accumulation_steps warmup_steps max_steps num_train_epochs learning_rate fp16 bf16
    logging_steps optim weight_decay lr_scheduler_type seed output_dir report_to
"""

# The notebook with which many fine-tuned their first Llama 2.
NOTEBOOK = """
    model_name dataset_name new_model lora_r lora_alpha lora_dropout use_4bit
    bnb_4bit_compute_dtype bnb_4bit_quant_type use_nested_quant output_dir num_train_epochs fp16
    bf16 per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps
    gradient_checkpointing max_grad_norm learning_rate weight_decay optim lr_scheduler_type
    max_steps warmup_ratio group_by_length save_steps logging_steps max_seq_length packing
    device_map
"""


# Of a night: transformers' GenerationConfig, vLLM's SamplingParams and engine, hosted models.
GENERATION = """
    max_length max_new_tokens min_length min_new_tokens do_sample num_beams temperature top_k top_p
    min_p typical_p repetition_penalty length_penalty no_repeat_ngram_size num_return_sequences
    eos_token_id pad_token_id stop_strings use_cache n best_of presence_penalty frequency_penalty
    logprobs stop stop_token_ids ignore_eos max_tokens min_tokens logit_bias max_model_len
    tensor_parallel_size pipeline_parallel_size gpu_memory_utilization enforce_eager swap_space
    max_num_seqs max_num_batched_tokens kv_cache_dtype system_prompt max_output_tokens batch_size
"""


def fields_of(name: str) -> list[str]:
    """Return the names that a class of a library takes, read from its source: an import is slow."""
    package, file = SOURCES[name]
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / file
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (found_class,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name
    ]
    names = []
    for node in found_class.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names += [argument.arg for argument in node.args.args[1:]]
    return [each for each in names if not each.startswith("_")]


def foreign_names(program: str) -> list[str]:
    """Return the names that users of a program bring along."""
    written = {
        "axolotl": AXOLOTL,
        "LLaMA-Factory": LLAMA_FACTORY,
        "Unsloth": UNSLOTH,
        "the notebook": NOTEBOOK,
        "generation": GENERATION,
    }
    return written[program].split() if program in written else fields_of(program)
