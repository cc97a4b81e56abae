"""Every function of a job that ends it with 64 or 66, and whether a plan asks it before."""

# A plan asks these by the same function, of the same files.
ASKED_BY_PLANS = """
    evaluation/metrics/bertscore._layer
    evaluation/metrics/faithfulness.supported_label
    evaluation/metrics/models.check_config
    inference/choose.refusal
    inference/open.fetch_without_adapter
    inference/summaries.check_budget
    launch/cluster.check_distribution
    launch/cluster.find_cluster
    launch/cluster._read_cluster
    launch/cluster._read_number
    launch/cluster._read_text
    memory/fakes._check_simulable
    memory/sharded.stored_of
    model/adapter.target_modules
    model/architecture.model_config
    model/architecture._check_attention
    model/architecture._class_around_language_model
    model/architecture._translated
    model/architecture._unknown_type
    model/champion.check_nameable
    model/champion.read_pointer
    model/chat.render_chat
    model/describe.facts_of
    model/fetch.name_base_of
    model/fetch.read_champion
    model/fetch._check_same_small_files
    model/fit.check_whole
    model/files.check_config
    model/files.check_is_no_adapter
    model/files.check_names
    model/files.hub_id_of
    model/files.weight_names
    model/kinds.check_scores_summaries
    model/kinds.check_writes_summaries
    model/load.check_possible
    model/load.load_tokenizer
    model/quantization.check_tensor_names
    model/quantization.choose_quantization
    model/remote_code._check_implementation
    model/remote_code._check_reference
    model/reward.check_scorable
    model/reward.read_reward_model
    model/tokenizer_files.check_chat_template
    model/tokenizer_files.check_pieces
    model/tokenizer_files.check_tokenizer
    prompt/template.make_prompt
    prompt/vocabulary.check_ids
    prompt/vocabulary.check_prompt
    prompt/vocabulary.check_vocabulary
    summarization/challenger.check_same_base
    summarization/challenger.with_challenger
    summarization/inputs.check_enough
    summarization/inputs.find_night_inputs
    summarization/output.check_apart
    summarization/workers.plan_workers
    training/compiled.find_layers
    training/examine._check_mergeable
    training/run_prompt.read_run_prompt
    training/start.check_all_linear
    training/start.take_from_start
"""

# Of these, what the plan of each command does not ask by calls of its own, since its job does not
# either, or since another process asks: one simulates, and a config without adapter and base is
# refused before its plan.
_BY_NO_PLAN = """
    inference/open.fetch_without_adapter
    memory/fakes._check_simulable
    memory/sharded.stored_of
"""
_OF_TRAININGS = """
    launch/cluster._read_cluster
    launch/cluster._read_number
    launch/cluster._read_text
    launch/cluster.check_distribution
    launch/cluster.find_cluster
    model/adapter.target_modules
    model/reward.check_scorable
    prompt/vocabulary.check_vocabulary
    training/compiled.find_layers
    training/examine._check_mergeable
    training/run_prompt.read_run_prompt
    training/start.check_all_linear
    training/start.take_from_start
"""
_OF_NIGHTS = """
    summarization/challenger.check_same_base
    summarization/challenger.with_challenger
    summarization/inputs.check_enough
    summarization/inputs.find_night_inputs
    summarization/output.check_apart
    summarization/workers.plan_workers
"""
_OF_ADAPTERS = """
    model/fetch._check_same_small_files
    model/fetch.name_base_of
"""
_OF_INSISTED_ENGINES = """
    inference/choose.refusal
"""
_OF_SCORES = """
    model/champion.check_nameable
"""
NOT_ASKED_BY = {
    "preflight/training.plan_training": _BY_NO_PLAN + _OF_NIGHTS + _OF_INSISTED_ENGINES,
    "preflight/summarizing.plan_summarizing": _BY_NO_PLAN + _OF_TRAININGS + _OF_SCORES,
    "preflight/evaluating.plan_evaluation": _BY_NO_PLAN + _OF_TRAININGS + _OF_NIGHTS,
}

# They look at the command line, the environment or the machine of the job, and end it before it
# fetches anything. The plan of another machine cannot ask them.
OF_THE_MACHINE = """
    gpus/cards.card_named
    gpus/required.required_gpus
    gpus/required._check_not_hidden
    gpus/required._end_for_good
    launch/peers._connector
    launch/spot.notice_url
    launch/supervisor.run_training
    summarization/shard.find_shard
    summarization/shard._find_count
    summarization/shard._parse_number
    summarization/shard._parse_option
    training/compiled.check_compiler
"""

# Nobody can know before, by the reason why: docs/plan.md has the same reasons.
KNOWN_BY_THE_JOB_ALONE = {
    "memory runs out": """
        evaluation/metrics/models.in_batches
        evaluation/metrics/models._load_network
        inference/open.fitting_into_memory
        inference/vllm_start.start_vllm
        model/merge.merge_where_it_fits
        training/causes.explaining""",
    "the weights are read": """
        evaluation/metrics/models._check_whole
        model/fetch.check_same_base
        model/quantization.check_blocks""",
    "the model computes": """
        inference/each.generate
        inference/summaries.summarize_conversations
        summarization/candidates._check_scores
        summarization/careful_engine.check_failures
        summarization/careful_engine._check_model_answers
        training/causes.blaming_the_config
        training/own_head.check_looks_back
        training/packed_attention.choose_attention
        training/shared_prompts.check_sharing""",
    "attempts before it were killed": """
        summarization/crash_notes.model_loading
        training/silent_attempts.note_attempt""",
    "the champion was switched meanwhile": """
        model/champion.roll_back
        model/champion.switch""",
}
