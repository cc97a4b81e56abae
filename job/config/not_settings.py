"""Names of settings in other libraries that have no counterpart here, and what recap does instead.

Each answer is for all the names in its text. They are those of transformers' TrainingArguments,
TRL's SFTConfig, ScriptArguments and ModelConfig, peft's LoraConfig, BitsAndBytesConfig and
GenerationConfig, vLLM's SamplingParams, and of the configs of axolotl, LLaMA-Factory and Unsloth.
"""

# Answer → the names that it is for, separated by spaces.
_NAMES_BY_ANSWER = {
    "what is trained is always a LoRA adapter (lora.variant); remove it": """
        adapter alora_invocation_tokens arrow_config badam_mode corda_config eva_config
        finetuning_type freeze_trainable_layers freeze_trainable_modules full_finetuning
        init_lora_weights kasa_config lisa_n_layers loftq_config lora_ga_config monteclora_config
        pissa_init qalora_group_size relora relora_cpu_offload relora_steps unfrozen_parameters
        use_badam use_bdlora use_galore use_llama_pro use_peft use_qalora velora_config""",
    "the adapter is on whole linear modules: lora.target_modules names them; remove it": """
        additional_target alpha_pattern ensure_weight_tying exclude_modules
        finetune_attention_modules finetune_language_layers finetune_mlp_modules
        finetune_vision_layers layer_replication layers_pattern layers_to_transform
        lora_modules_to_save lora_target_parameters modules_to_save peft_layers_to_transform
        rank_pattern target_parameters trainable_token_indices""",
    "how peft stores and places the adapter is recap's own business; remove it": """
        fan_in_fan_out lora_fan_in_fan_out lora_on_cpu megatron_config megatron_core
        peft_autocast_adapter_dtype runtime_config""",
    "not offered; remove it": """
        adam_beta1 adam_beta2 adam_epsilon cosine_constant_lr_ratio cosine_min_lr_ratio
        curriculum_sampling label_smoothing_factor lisa_step_interval loraplus_lr_embedding
        loraplus_lr_ratio lr_scheduler_kwargs neftune_noise_alpha noisy_embedding_alpha
        optim_args optim_target_modules shift_attn""",
    "the loss is always on the summary alone; remove it": """
        assistant_only_loss average_tokens_across_devices completion_only_loss
        ignore_pad_token_for_loss label_names mask_history response_template
        roles_to_train train_on_inputs train_on_prompt""",
    "the end of the summary is always learned; remove it": "add_eos_token train_on_eos",
    "not a switch here: model.dtype is bfloat16, float16, float32 or auto": """
        bf16 bf16_full_eval bfloat16 float16 fp16 fp16_full_eval fp16_opt_level
        half_precision_backend pure_bf16 tf32""",
    "biases are never trained; remove it": "bias lora_bias",
    "rows are ready before training begins; remove it": """
        buffer_size data_shared_file_system dataloader_in_order dataloader_multiprocessing_context
        dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory
        dataloader_prefetch_factor dataset_keep_in_memory dataset_kwargs dataset_num_proc
        dataset_prepared_path dataset_processes dataset_streaming length_column_name overwrite_cache
        preprocessing_batch_size preprocessing_num_workers pretraining_dataset streaming
        tokenized_path""",
    "every row is used, in an order that depends on training.seed alone; remove it": """
        dataloader_drop_last disable_shuffling ignore_data_skip shuffle_dataset
        shuffle_merged_datasets""",
    "data.train and data.validation each name the files of one split; remove it": """
        dataset_config dataset_test_split dataset_train_split""",
    "data.train takes whole paths, and a list of them; remove it": """
        dataset_dir interleave_probs mix_strategy""",
    "rows are made of conversations: data.format, and data.columns for tables; remove it": """
        dataset_text_field""",
    "what a file is shows in its content; remove it": "ds_type",
    "not a setting here (see limits.stall_minutes); remove it": "ddp_timeout",
    "processes are recap's own business (training.processes, training.distribution); remove it": """
        accelerator_config ddp ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb
        ddp_find_unused_parameters ddp_static_graph ignore_bias_buffers local_rank
        parallelism_config ray_scope use_cpu use_ray world_size zero_first""",
    "a base is on the GPU of its process, and shared by several with training.distribution: fsdp; "
    "remove it": """
        device device_map gpu_memory_limit low_cpu_mem_usage max_memory offload_dir offload_folder
        torch_empty_cache_steps""",
    "not used: for a base beyond one GPU, training.distribution is fsdp": "deepspeed",
    "`recap train` trains and evaluates; remove it": """
        do_bench_eval do_eval do_predict do_train""",
    "not used; logits are computed in chunks anyway; remove it": """
        cut_cross_entropy enable_liger_kernel flash_attn_cross_entropy flash_attn_fuse_mlp
        flash_attn_fuse_qkv flash_attn_rms_norm liger_cross_entropy
        liger_fused_linear_cross_entropy liger_kernel_config use_liger_kernel
        use_unsloth use_unsloth_gc""",
    "not used: attention is that of PyTorch (model.attention); remove it": """
        eager_attention flash_optimum s2_attention xformers_attention""",
    "layers are compiled by TorchInductor, or not at all: training.compile; remove it": """
        torch_compile_backend torch_compile_mode torchdynamo""",
    "validation is never packed; remove it": "eval_packing",
    "how the loss of validation is computed is recap's own business; remove it": """
        batch_eval_metrics compute_accuracy eval_accumulation_steps eval_delay
        eval_do_concat_batches eval_on_start eval_use_gather_object include_for_metrics
        prediction_loss_only""",
    "rows are made of conversations by prompt.style; remove it": "formatting_func",
    "each metric of training.selection knows it; remove it": "greater_is_better",
    "not offered: model.quantization is nf4, nf4-double, or null for none": """
        bnb_4bit_quant_storage gptq hqq_config llm_int8_enable_fp32_cpu_offload
        llm_int8_has_fp16_weight llm_int8_skip_modules llm_int8_threshold load_in_8bit
        quantization_device_map torchao use_8bit""",
    "quantization is always that of bitsandbytes; remove it": """
        bnb_config_kwargs quantization_method""",
    "recap logs by itself, at most every training.log_every_steps; remove it": """
        disable_tqdm include_effective_tokens_per_second include_num_input_tokens_seen
        include_tokens_per_second log_level log_level_replica log_on_each_node
        logging_first_step logging_nan_inf_filter logging_strategy print_param_status
        skip_memory_metrics""",
    "TensorBoard is always written, below the output; remove it": """
        comet_project_name logging_dir mlflow_experiment_name mlflow_tracking_uri project
        report_to trackio_bucket_id trackio_space_id trackio_static_space_id use_mlflow
        use_wandb wandb_entity wandb_log_model wandb_mode wandb_name wandb_project
        wandb_run_id wandb_watch""",
    "the loss is always plotted, in the report; remove it": "plot_loss",
    "without training.start_from, the adapter is new; remove it": "create_new_adapter",
    "not offered: give a smaller file, or training.max_steps": """
        max_eval_batches max_samples max_train_samples""",
    "the kind of model is in the base's own config.json; remove it": """
        base_model_config is_falcon_derived_model is_llama_derived_model is_mistral_derived_model
        model_config model_init_kwargs model_type overrides_of_model_config rope_scaling
        type_of_model""",
    "a run never overwrites another: choose another run name; remove it": "overwrite_output_dir",
    "packing is on or off: training.packing": """
        max_packed_sequence_len neat_packing packing_strategy padding_free
        sample_packing_bin_size sample_packing_eff_est sample_packing_group_size
        sample_packing_seq_len_multiplier total_num_tokens""",
    "batches are padded to their longest row; remove it": """
        pad_to_multiple_of pad_to_sequence_len""",
    "the side of padding is recap's own business; remove it": "padding_side",
    "long conversations lose turns from the middle, and summaries stay whole; remove it": """
        truncation truncation_mode truncation_side""",
    "summaries are always generated and scored at the end: see evaluation; remove it": """
        eval_on_each_dataset eval_table_max_new_tokens predict_with_generate""",
    "the tokenizer comes with model.base; remove it": """
        add_special_tokens add_tokens chat_template_path eos_token fix_tokenizer pad_token
        processing_class resize_token_embeddings_to_32x resize_vocab special_tokens
        split_special_tokens tokenizer tokenizer_config tokenizer_legacy tokenizer_name
        tokenizer_type tokenizer_use_fast tokens use_fast_tokenizer""",
    "recap chooses its columns itself; remove it": "remove_unused_columns",
    "a run always goes on from its newest checkpoint; remove it": """
        auto_resume_from_checkpoints restore_callback_states_from_checkpoint
        resume_from_checkpoint""",
    "checkpoints are always whole, or a run could not go on; remove it": """
        enable_jit_checkpoint save_on_each_node save_only_model""",
    "weights are always safetensors; remove it": "save_safetensors",
    "the adapter alone is published, once it is scored (publish.hub); remove it": """
        hub_always_push hub_revision hub_strategy push_dataset_to_hub""",
    "the instruction to the model is prompt.system; remove it": "source_prefix",
    "the reference is the model that the training starts from, and is computed once; remove it": """
        force_use_ref_model model_adapter_name precompute_ref_batch_size precompute_ref_log_probs
        ref_adapter_name ref_model ref_model_adapters ref_model_mixup_alpha
        ref_model_quantization_bit ref_model_sync_steps reference_free sync_ref_model""",
    "the loss of pairs is DPO's with an SFT term (training.dpo), that of thumbs is KTO's "
    "(training.kto); remove it": """
        cpo_alpha discopop_tau dpo_label_smoothing dpo_norm_loss dpo_padding_free
        dpo_use_liger_kernel dpo_use_weighting f_alpha_divergence_coef f_divergence_type
        label_smoothing ld_alpha loss_type orpo_alpha pref_bco_weight pref_loss simpo_gamma
        use_weighting""",
    "dropout is off with method dpo and kto; remove it": "disable_dropout",
    "pairs are known by their keys, chosen and rejected (method: dpo); remove it": "ranking",
    "ShareGPT's records are read as they are; remove it": "standardize_sharegpt",
    "every key is always checked; remove it": "debug strict",
    "the task is always a causal language model; remove it": "lora_task_type task_type",
    "tool turns are text, or left out by data.drop_roles; remove it": "tool_format",
    "the cache is recap's own business; remove it": "use_cache use_kv_cache",
    "files are cached in RECAP_CACHE of the environment; remove it": "cache_dir",
    "experts and their routers get no adapter; remove it": "router_aux_loss_coef",
    "a summary is what comes after thoughts; remove it": "enable_thinking",
    "a loss that is no number ends the run (limits.on_divergence); remove it": """
        loss_watchdog_patience loss_watchdog_threshold""",
    "which engine generates is serve.engine; remove it": """
        fast_inference gpu_memory_utilization infer_backend infer_dtype max_lora_rank""",
    "activations are recomputed or kept: training.activation_checkpointing; remove it": """
        activation_offloading gradient_checkpointing_kwargs
        unsloth_offload_gradient_checkpointing""",
    "numbers beside the adapter have the base's own dtypes; remove it": """
        upcast_layernorm upcast_lmhead_output""",
    "summaries are greedy, or sampled by generation.temperature, top_p and seed; remove it": """
        bad_words_ids best_of diversity_penalty frequency_penalty guidance_scale length_penalty
        logit_bias logits_processors logprobs min_length min_new_tokens min_p min_tokens n
        no_repeat_ngram_size num_beam_groups num_beams num_return_sequences penalty_alpha
        presence_penalty prompt_logprobs repetition_penalty top_k typical_p use_beam_search""",
    "an answer ends with the end tokens of the base; remove it": """
        eos_token_id ignore_eos pad_token_id stop stop_sequences stop_strings stop_token_ids""",
    "how vLLM uses the GPU is recap's own business; remove it": """
        block_size cpu_offload_gb disable_log_stats enable_chunked_prefill enable_prefix_caching
        enforce_eager kv_cache_dtype pipeline_parallel_size swap_space""",
    "all metrics are always measured; those that need a model: evaluation.bertscore_model and "
    "faithfulness_model; remove it": """
        compute_metrics eval_metrics metric metrics rouge rouge_types use_bertscore""",
}  # fmt: skip

ANSWERS = {name: answer for answer, names in _NAMES_BY_ANSWER.items() for name in names.split()}
