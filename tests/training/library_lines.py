"""Lines of transformers, TRL, accelerate and torch that the training relies on beyond their API.

RecapTrainer and those that inherit from it override methods, and callbacks read attributes, that
these libraries may change in any version. Each entry names one such line, who relies on it, and
what breaks without it; test_library_lines.py fails if an installed library has lost it.

After an upgrade that fails there: read the library's new function, decide whether the override
still does what `without` says, change the override and the entry together, and then run
tests/training and tests/faults. Byte-exact resume has no other alarm.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class LibraryLine:
    """A line of a library's function, and why it matters here."""

    used_by: str  # module:object of job.training
    function: str  # module:object of the library
    line: str  # in its source; any white space counts as one space
    without: str  # what breaks if the line goes, or means something else


TRAINER = "transformers.trainer:Trainer"

OVERRIDES = (
    LibraryLine(
        used_by="trainer:RecapTrainer.get_train_dataloader",
        function=f"{TRAINER}._inner_training_loop",
        line="train_dataloader = self.get_train_dataloader()",
        without="Rows come in an order drawn from the global random state. A resumed run draws "
        "another one, and an evaluation more or less changes it.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.get_batch_samples",
        function=f"{TRAINER}._run_epoch",
        line="batch_samples, num_items_in_batch = self.get_batch_samples("
        "epoch_iterator, num_batches, self.args.device)",
        without="The rows of a step are not divided into micro-batches, or its learned tokens are "
        "not counted over all of them.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.training_step",
        function=f"{TRAINER}._run_epoch",
        line="tr_loss_step = self.training_step(model, inputs, num_items_in_batch)",
        without="The step's micro-batches are not computed.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.training_step",
        function=f"{TRAINER}.training_step",
        line="loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)",
        without="A micro-batch's loss is not its share of the step's.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.training_step",
        function=f"{TRAINER}.training_step",
        line="loss = loss / self.current_gradient_accumulation_steps",
        without="The loss of a step, which transformers takes for one batch, is divided.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.training_step",
        function="accelerate.accelerator:Accelerator.no_sync",
        line="model.set_requires_gradient_sync(False)",
        without="Gradients of a sharded model are reduced after each micro-batch.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.floating_point_ops",
        function=f"{TRAINER}._run_epoch",
        line="self.current_flos += float(self.floating_point_ops(inputs))",
        without="transformers reads a step's micro-batches as if they were one batch.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._track_num_input_tokens",
        function=f"{TRAINER}._run_epoch",
        line="self._track_num_input_tokens(inputs)",
        without="Tokens are not counted: no speed is logged.",
    ),
    LibraryLine(
        used_by="batches:EpochSampler",
        function=f"{TRAINER}._run_epoch",
        line="self.state.epoch = epoch + (step + 1) / steps_in_epoch",
        without="The order depends on int(state.epoch) at the moment when an epoch begins. With "
        "another epoch there, a resumed run sees another order.",
    ),
    LibraryLine(
        used_by="batches:EpochSampler",
        function=f"{TRAINER}._run_epoch",
        line="train_dataloader = "
        "skip_first_batches(train_dataloader, steps_trained_in_current_epoch)",
        without="A run that resumes within an epoch would train on its first rows again.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._get_grad_norm",
        function=f"{TRAINER}._run_epoch",
        line="grad_norm = self._get_grad_norm(model, grad_norm=grad_norm) "
        "self.control = self.callback_handler.on_pre_optimizer_step("
        "self.args, self.state, self.control) "
        "self.optimizer.step()",
        without="The norm is judged after the optimizer's step: NaN reaches the weights, and a "
        "checkpoint may contain them.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._get_grad_norm",
        function=f"{TRAINER}._clip_grad_norm",
        line="return self.accelerator.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)",
        without="The norm is no longer the one before clipping, and limits.max_gradient_norm "
        "never sees a large one.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.save_model",
        function=f"{TRAINER}.save_model",
        line="state_dict = self.accelerator.get_state_dict(self.model) "
        "if self.args.should_save: self._save(output_dir, state_dict=state_dict)",
        without="The override of a sharded save does not replace this gathering of the whole "
        "base on one process, which would need its memory.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.save_model",
        function=f"{TRAINER}._save",
        line="self.model.save_pretrained(output_dir, state_dict=state_dict)",
        without="The weights that were gathered from all ranks are not the ones that are written: "
        "a checkpoint of a sharded model has the shards of rank 0, or the whole base.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._prepare_for_training",
        function=f"{TRAINER}._inner_training_loop",
        line="model, train_dataloader = self._prepare_for_training("
        "max_steps, train_dataloader, resume_from_checkpoint)",
        without="Nobody checks that the model was sharded: accelerate falls back to DDP silently.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._run_epoch",
        function=f"{TRAINER}._inner_training_loop",
        line="for epoch in range(epochs_trained, num_train_epochs): self.control = "
        "self.callback_handler.on_epoch_begin(self.args, self.state, self.control) "
        "self._run_epoch(",
        without="The loop looks at should_training_stop only after a step. A run resumed from its "
        "last checkpoint, or ended by its evaluation, would take one step too many.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._evaluate",
        function=f"{TRAINER}._maybe_log_save_evaluate",
        line="if self.control.should_evaluate: "
        "metrics = self._evaluate(trial, ignore_keys_for_eval)",
        without="PreemptedError of a stop during an evaluation ends the process without a "
        "checkpoint of its step.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._evaluate",
        function=f"{TRAINER}._maybe_log_save_evaluate",
        line="if self.control.should_save: self._save_checkpoint(model, trial) "
        "self.control = self.callback_handler.on_save(self.args, self.state, self.control)",
        without="should_save, which the override sets, is read before the evaluation: no "
        "checkpoint either.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer._save_checkpoint",
        function=f"{TRAINER}._save_checkpoint",
        line="self.save_model(output_dir, _internal_call=True)",
        without="A checkpoint is begun before the disk is known to have room for it.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.evaluate",
        function=f"{TRAINER}._evaluate",
        line="metrics = self.evaluate(ignore_keys=ignore_keys_for_eval)",
        without="An evaluation changes the random state of the training, so that a run which "
        "skips one ends otherwise; and memory that runs out in it ends the run.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.get_eval_dataloader",
        function=f"{TRAINER}.evaluate",
        line="eval_dataloader = self.get_eval_dataloader(eval_dataset)",
        without="Rows are repeated so that all ranks have as many, and count twice; or the smaller "
        "batches after memory ran out are as large as before.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.evaluation_loop",
        function=f"{TRAINER}.evaluate",
        line="output = self.evaluation_loop(",
        without="The validation loss is the mean of batches' means again: it depends on the size "
        "of batches and on the number of processes.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.evaluation_loop",
        function=f"{TRAINER}.evaluation_loop",
        line='metrics[f"{metric_key_prefix}_loss"] = np.concatenate(all_losses).mean().item()',
        without="The loss that the override replaces has another key: both would be logged, and "
        "the wrong one chooses the adapter.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.prediction_step",
        function=f"{TRAINER}.evaluation_loop",
        line="losses, logits, labels = self.prediction_step("
        "model, inputs, prediction_loss_only, ignore_keys=ignore_keys)",
        without="The losses of the rows are not collected: evaluation_loop has none to sum up.",
    ),
    LibraryLine(
        used_by="methods:SummaryTrainer.compute_loss",
        function="trl.trainer.sft_trainer:SFTTrainer.compute_loss",
        line="outputs = model(**inputs, fused_lm_head=True) "
        "per_token_loss = -outputs.log_probs  # zero on ignored positions",
        without="The override computes another loss than TRL.",
    ),
    LibraryLine(
        used_by="methods:SummaryTrainer.compute_loss",
        function="trl.trainer.sft_trainer:SFTTrainer.compute_loss",
        line="loss = loss * (self.accelerator.num_processes // self.get_tp_size())",
        without="The override scales the loss of several ranks otherwise than TRL.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer",
        function="trl.trainer.sft_trainer:SFTTrainer.__init__",
        line="add_fused_lm_head( self.model.get_base_model() if is_peft_model(self.model) "
        'else self.model, outputs=("log_probs", "entropy", "is_top1"), )',
        without="TRL puts the head elsewhere, and ours, with log_probs alone, not in its place.",
    ),
    LibraryLine(
        used_by="judged:JudgedTrainer.compute_loss",
        function=f"{TRAINER}.training_step",
        line="loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)",
        without="A micro-batch's loss is not its share of the step's.",
    ),
    LibraryLine(
        used_by="judged:JudgedTrainer.log",
        function=f"{TRAINER}._maybe_log_save_evaluate",
        line="self.log(logs, start_time)",
        without="Rewards are not logged, or not by all ranks at once, which then wait for ever.",
    ),
    LibraryLine(
        used_by="preferences:PreferenceTrainer",
        function="trl.trainer.dpo_trainer:DPOTrainer.__init__",
        line='model.add_adapter("ref", default_config)',
        without="TRL's copy of the adapter to start from has another name, and is not deleted: "
        "checkpoints have it, too.",
    ),
    LibraryLine(
        used_by="preferences:PreferenceTrainer",
        function="trl.trainer.dpo_trainer:DPOTrainer.__init__",
        line="if args.disable_dropout: disable_dropout_in_model(model)",
        without="The model in training has dropout, and the reference none.",
    ),
    LibraryLine(
        used_by="judged:JudgedTrainer._prepare_dataset",
        function="trl.trainer.dpo_trainer:DPOTrainer.__init__",
        line="train_dataset = self._prepare_dataset("
        'train_dataset, processing_class, args, "train")',
        without="TRL renders and tokenizes the rows again.",
    ),
    LibraryLine(
        used_by="preferences:PairTrainer.sums_of",
        function="trl.trainer.dpo_trainer:DPOTrainer._compute_loss",
        line="per_sequence_loss = -F.logsigmoid(self.beta * delta_score)",
        without="The loss is no longer TRL's.",
    ),
    LibraryLine(
        used_by="reward:RewardModelTrainer",
        function="trl.trainer.reward_trainer:RewardTrainer.__init__",
        line="train_dataset = self._prepare_dataset("
        'train_dataset, processing_class, args, "train")',
        without="TRL renders and tokenizes the rows again.",
    ),
    LibraryLine(
        used_by="reward:RewardModelTrainer",
        function="trl.trainer.reward_trainer:RewardTrainer.__init__",
        line="if args.disable_dropout: disable_dropout_in_model(model)",
        without="The model in training has dropout.",
    ),
    LibraryLine(
        used_by="reward:RewardModelTrainer.sums_of",
        function="trl.trainer.reward_trainer:RewardTrainer.compute_loss",
        line="loss = -nn.functional.logsigmoid(rewards_chosen - rewards_rejected).mean()",
        without="The loss is no longer TRL's.",
    ),
    LibraryLine(
        used_by="preferences:ThumbTrainer._prepare_dataset",
        function="trl.trainer.kto_trainer:KTOTrainer.__init__",
        line="train_dataset = self._prepare_dataset("
        'train_dataset, processing_class, args, "train")',
        without="Rows have no completion of another prompt.",
    ),
    LibraryLine(
        used_by="preferences:ThumbTrainer.sums_of",
        function="trl.trainer.kto_trainer:KTOTrainer._compute_loss",
        line="rejected_losses = 1 - F.sigmoid(self.beta * (kl - rejected_logratios))",
        without="The loss is no longer TRL's.",
    ),
    LibraryLine(
        used_by="shortcuts:project_learned_tokens_only",
        function="trl.trainer.utils:add_fused_lm_head",
        line="compact = _use_triton(hidden_states.device)",
        without="On CPUs, the logits of all tokens are computed, not of the learned ones alone.",
    ),
    LibraryLine(
        used_by="shortcuts:leave_out_mask",
        function="trl.trainer.sft_trainer:DataCollatorForLanguageModeling.torch_call",
        line='output["attention_mask"] = pad( attention_mask, padding_value=0, '
        'padding_side="right",',
        without="Rows may begin with their padding: without a mask, their tokens see it.",
    ),
    LibraryLine(
        used_by="build:build_trainer",
        function="trl.trainer.sft_trainer:SFTTrainer.__init__",
        line='self.aux_loss_enabled = hasattr(text_config, "output_router_logits") '
        "and self.router_aux_loss_coef != 0.0",
        without="router_aux_loss_coef of the settings does not switch off the loss that balances "
        "experts, which TRL reads from keys that some families do not have.",
    ),
    LibraryLine(
        used_by="methods:SummaryTrainer.judge",
        function="trl.trainer.sft_trainer:SFTTrainer.compute_loss",
        line="outputs = model(**inputs, fused_lm_head=True) "
        "per_token_loss = -outputs.log_probs  # zero on ignored positions",
        without="log_probs and label_mask are missing, or count ignored tokens: the validation "
        "loss is not the training loss on other rows.",
    ),
    LibraryLine(
        used_by="trainer:RecapTrainer.prediction_step",
        function="trl.trainer.sft_trainer:SFTTrainer.prediction_step",
        line="inputs = self._prepare_inputs(inputs) "
        "with torch.no_grad(), self.compute_loss_context_manager():",
        without="Batches are not moved to the model's device, or the loss is computed in another "
        "precision than that of the training.",
    ),
    LibraryLine(
        used_by="methods:SummaryTrainer.judge",
        function="trl.trainer.sft_trainer:SFTTrainer.compute_loss",
        line="num_tokens = outputs.label_mask.sum()",
        without="label_mask does not mark the tokens that count.",
    ),
)

# Attributes and rules that callbacks, settings and collectives rely on.
ATTRIBUTES = (
    LibraryLine(
        used_by="interruptions:LossWindow",
        function=f"{TRAINER}._inner_training_loop",
        line="self._tr_loss = torch.tensor(0.0, device=args.device) "
        "self._total_loss_scalar = 0.0 "
        "self._globalstep_last_logged = self.state.global_step "
        "model.zero_grad() "
        "self.control = self.callback_handler.on_train_begin(",
        without="The sum of losses since the last log is set after on_train_begin, or elsewhere: "
        "the first mean that a resumed run logs differs.",
    ),
    LibraryLine(
        used_by="interruptions:LossWindow",
        function=f"{TRAINER}._maybe_log_save_evaluate",
        line='logs["loss"] = tr_loss_scalar / '
        "(self.state.global_step - self._globalstep_last_logged)",
        without="The logged mean is not computed from what LossWindow saves: the first one of a "
        "resumed run differs.",
    ),
    LibraryLine(
        used_by="interruptions:OwnIntervals",
        function=f"{TRAINER}._init_training_state",
        line="self.state = TrainerState.load_from_json("
        "os.path.join(resume_from_checkpoint, TRAINER_STATE_NAME))",
        without="A resumed run saves, evaluates and logs as the checkpoint's config said: this is "
        "what OwnIntervals undoes, and it may not be needed any more.",
    ),
    LibraryLine(
        used_by="interruptions:OwnIntervals",
        function="transformers.trainer_callback:TrainerState.compute_steps",
        line='setattr(self, f"{step_kind}_steps", num_steps)',
        without="The state keeps the intervals of the checkpoint's config.",
    ),
    LibraryLine(
        used_by="build:_optimization",
        function="transformers.training_args:TrainingArguments.get_warmup_steps",
        line="int(self.warmup_steps) if self.warmup_steps >= 1 "
        "else math.ceil(num_training_steps * self.warmup_steps)",
        without="training.warmup_ratio is read as a number of steps: nothing warms up.",
    ),
    LibraryLine(
        used_by="packed_attention:choose_attention",
        function="transformers.masking_utils:create_causal_mask",
        line="mask_interface = ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation]",
        without="Packed rows get sdpa's dense mask, or none where they need one.",
    ),
    LibraryLine(
        used_by="packed_attention:choose_attention",
        function="transformers.masking_utils:create_causal_mask",
        line="if packed_sequence_mask is not None: "
        "mask_factory_function = and_masks("
        "mask_factory_function, packed_sequence_mask_function(packed_sequence_mask)) "
        "allow_is_causal_skip = False",
        without="Packed rows are not recognized, and get the mask of a single one.",
    ),
    LibraryLine(
        used_by="packed_attention:are_rows_apart",
        function="trl.trainer.sft_trainer:DataCollatorForLanguageModeling.torch_call",
        line='output["cu_seq_lens_q"] = output["cu_seq_lens_k"] = cu_seq_lens',
        without="The ends of packed rows reach no kernel: they see each other, or attend under a "
        "dense mask. What is tried before the first step is not what the training computes.",
    ),
    LibraryLine(
        used_by="build:is_anything_paged",
        function="bitsandbytes.optim.optimizer:Optimizer8bit.get_state_buffer",
        line="if not self.is_paged or p.numel() < 1e5:",
        without="paged_adamw_32bit pages other tensors: it may be replaced where it would save "
        "memory.",
    ),
    LibraryLine(
        used_by="interruptions:OwnIntervals",
        function="transformers.trainer_callback:DefaultFlowCallback.on_step_end",
        line="state.global_step % state.eval_steps == 0",
        without="Intervals are read from somewhere else than the state that OwnIntervals sets.",
    ),
    LibraryLine(
        used_by="fit:_make_callbacks",
        function="transformers.trainer_callback:CallbackHandler.call_event",
        line="for callback in self.callbacks: result = getattr(callback, event)(",
        without="Callbacks are not called in the order in which they were added: a checkpoint is "
        "handed over before its loss window and best adapter are in it.",
    ),
    LibraryLine(
        used_by="interruptions:PublishCheckpoints",
        function=f"{TRAINER}._save_checkpoint",
        line='checkpoint_folder = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"',
        without="Checkpoints are not where the callbacks look for them.",
    ),
    LibraryLine(
        used_by="interruptions:StopAtStep",
        function=f"{TRAINER}.evaluation_loop",
        line="self.control = self.callback_handler.on_prediction_step(",
        without="A stop signal waits until the evaluation ends, longer than a machine's notice.",
    ),
    LibraryLine(
        used_by="interruptions:StopAfterEvaluation",
        function=f"{TRAINER}.evaluate",
        line="self.control = self.callback_handler.on_evaluate("
        "self.args, self.state, self.control, output.metrics)",
        without="An error in on_evaluate does not reach the override of _evaluate.",
    ),
    LibraryLine(
        used_by="interruptions:ScaleLearningRate",
        function="torch.optim.lr_scheduler:LambdaLR.get_lr",
        line="base_lr * lmbda(self.last_epoch) "
        "for lmbda, base_lr in zip(self.lr_lambdas, self.base_lrs, strict=True)",
        without="The learning rate is not computed from base_lrs: after a roll-back the training "
        "goes on as fast as before, and diverges again.",
    ),
    LibraryLine(
        used_by="interruptions:ScaleLearningRate",
        function="torch.optim.lr_scheduler:LRScheduler.get_last_lr",
        line="return self._last_lr",
        without="The first rate that is logged after a roll-back is the one before it.",
    ),
    LibraryLine(
        used_by="interruptions:ScaleLearningRate",
        function="accelerate.scheduler:AcceleratedScheduler.__init__",
        line="self.scheduler = scheduler",
        without="base_lrs is set on accelerate's wrapper, which ignores it: nothing slows down.",
    ),
    LibraryLine(
        used_by="ranks:bring_together",
        function=f"{TRAINER}._save_rng_state",
        line='f"rng_state_{self.args.process_index}.pth"',
        without="The random states of other machines are not found by name, and are missing from "
        "the checkpoint.",
    ),
    LibraryLine(
        used_by="sharding:prepare_sharding",
        function="transformers.training_args:TrainingArguments.__post_init__",
        line="self.fsdp_plugin_args = self._process_fsdp_args()",
        without="The precision of gradients is not set: FSDP rounds them where DDP does not.",
    ),
    LibraryLine(
        used_by="sharding:prepare_sharding",
        function="accelerate.state:AcceleratorState.__init__",
        line="elif self.distributed_type in [ DistributedType.MULTI_GPU,",
        without="Sharding on CPUs is decided otherwise: the tests that claim that FSDP computes "
        "what DDP computes do not shard. check_sharded raises then.",
    ),
)
