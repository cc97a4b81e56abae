"""Build the trainer of a run: the quantized base, its LoRA adapter, and the settings for TRL."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, TrainingArguments
from trl import DPOConfig, KTOConfig, RewardConfig, SFTConfig

from job.config.commands import TrainConfig
from job.config.training_sections import TrainingSection
from job.model import Model
from job.model.adapter import lora_config
from job.model.attach import attach_to_train
from job.model.families import keep_adapter_in_float32, prepare_for_training
from job.model.fetch import fetch_adapter
from job.model.load import compute_dtype, load_base
from job.model.modules import name_body
from job.model.reward import reward_config
from job.storage.scratch import cache_folder
from job.telemetry import event
from job.training.causes import BUILDING, Phase, explaining
from job.training.compiled import compile_layers
from job.training.fused_lora import fuse_adapter, is_wanted
from job.training.intervals import interval, steps_per_epoch
from job.training.methods import SummaryTrainer
from job.training.needs import Needs
from job.training.preferences import PairTrainer, ThumbTrainer
from job.training.prepare import Run
from job.training.ranks import first_then_others
from job.training.reward import RewardModelTrainer, prepare_to_score
from job.training.rows import Splits
from job.training.sharding import load_to_shard, prepare_sharding, put_back, trained_weights
from job.training.trainer import RecapTrainer

TRAINERS = {
    "sft": SummaryTrainer,
    "dpo": PairTrainer,
    "kto": ThumbTrainer,
    "reward": RewardModelTrainer,
}

PAGED = "paged_adamw_32bit"
FUSED = "adamw_torch_fused"
MIN_PAGED_NUMBERS = 100_000  # of a tensor: bitsandbytes keeps smaller ones on the GPU

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 1 << 30
MAX_KEPT_BYTES_OF_OLD_GLIBC = 32 << 20


def build_trainer(run: Run, wait_for_uploads: Callable[[], None]) -> RecapTrainer:
    """Load the base and return a trainer of an adapter on it: of a new one, or of the run's start.

    `wait_for_uploads` returns once every checkpoint is in storage and deleted here; the trainer
    calls it if the disk has no room for the next.
    """
    config = run.config
    section = config.training
    is_sharded = section.distribution == "fsdp"
    if not torch.cuda.is_available():
        keep_freed_memory()
    if section.deterministic:
        add_in_one_order()

    with explaining(_loading(run)):
        model = load_model(run)
    starting = trained_weights(model) if run.start else {}
    # transformers creates the folder on the first machine only, when it saves.
    folder = run.work / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    settings = make_settings(run, folder)
    if is_sharded:
        prepare_sharding(settings, compute_dtype(config.model.dtype))

    chooses_evaluation = section.adapter_from != "last_step"
    needs = Needs(
        limits=config.limits,
        needs_validation_loss=chooses_evaluation or section.patience is not None,
        wait_for_uploads=wait_for_uploads,
        rows_at_once=section.rows_at_once,
        fills_memory=section.fills_memory and torch.cuda.is_available(),
        chooses_recomputation=section.activation_checkpointing == "auto" and not is_sharded,
        shares_prompts=section.dpo.share_prompts,
    )
    with explaining(BUILDING):
        trainer = TRAINERS[config.method](
            needs,
            model=model,
            args=settings,
            train_dataset=run.data.rows.train.dataset,
            eval_dataset=run.data.rows.validation.dataset,
            processing_class=run.tokenizer,
            peft_config=None if run.start else new_adapter(config, model, run.base.revision),
        )
    trainer.args.train_sampling_strategy = _sampling_strategy(section)
    # Only now is the number of rows known: TRL has packed them.
    set_intervals(trainer.args, section, len(trainer.train_dataset))
    trainer.remove_callback(PrinterCallback)
    _check_rows(trainer, run.data.rows)
    if trainer.args.optim == PAGED and not is_anything_paged(trainer.model):
        trainer.args.optim = FUSED
        event("paging would move nothing to the host: the optimizer is " + FUSED)
    keep_adapter_in_float32(trainer.model)
    if starting:  # TRL has rounded them to bfloat16
        put_back(trainer.model, starting)
    if section.compile:
        compile_layers(trainer.model)
    elif is_wanted(section):
        fuse_adapter(trainer.model)
    return trainer


def load_model(run: Run) -> Model:
    """Collective: load the base to train on, with the adapter that the run starts from, if any.

    Its weights are in float32 and trainable. Raise ConfigError or DataError if the base cannot be
    loaded, DamagedError if the adapter does not fit it.
    """
    config = run.config
    if config.training.distribution == "fsdp":
        model = load_to_shard(run.base, config.model, run.work)
    else:
        model = load_base(run.base, config.model)
    prepare_for_training(model)
    name_body(model)
    if not config.writes_summaries:
        prepare_to_score(model)
    if run.start is None:
        return model
    start = run.start.adapter
    folder = first_then_others(lambda: fetch_adapter(start, cache_folder()))
    return attach_to_train(model, folder)


def new_adapter(config: TrainConfig, model: Model, revision: str | None = None) -> Any:
    """Return the peft config of the adapter that a training makes on a base."""
    make = lora_config if config.writes_summaries else reward_config
    return make(config.lora, model, revision)


def _loading(run: Run) -> Phase:
    """Return the phase of loading, with the remedy that this base leaves."""
    remedy = "take a smaller base or a larger GPU, or training.distribution: fsdp on several GPUs"
    if run.config.model.quantization is None:
        remedy = f"set model.quantization: nf4-double, {remedy}"
    return Phase(
        "loading the base",
        f"{run.examined.base.four_bit_text()}; a smaller batch_size does not help here: {remedy}",
    )


def make_settings(run: Run, folder: Path) -> TrainingArguments:
    """Return the config's training section as TRL's settings. `set_intervals` adds the intervals.

    Checkpoints are written to `folder`.
    """
    section = run.config.training
    common = {
        "output_dir": str(folder),
        **_optimization(section),
        **_machine(run.config),
        "max_length": section.max_tokens,
        "logging_steps": section.log_every_steps,
        "logging_first_step": True,
        # Log a loss that is NaN as it is; transformers would log the mean of those before.
        "logging_nan_inf_filter": False,
        # RecapTrainer counts them, without asking the GPU.
        "include_num_input_tokens_seen": "no",
        "eval_strategy": "steps",
        "save_strategy": "steps",
        # `Uploads` deletes a folder once it is committed; transformers might delete it before.
        "save_total_limit": None,
        "seed": section.seed,
        "data_seed": section.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if run.config.method == "reward":
        return RewardConfig(**common)
    common["router_aux_loss_coef"] = 0.0  # see `prepare_for_training`
    if run.config.method == "dpo":
        weights = [1.0, section.dpo.sft_weight]
        losses = ["sigmoid", "sft"]
        return DPOConfig(**common, beta=section.dpo.beta, loss_type=losses, loss_weights=weights)
    if run.config.method == "kto":
        labels = run.data.rows.train.dataset["label"][:]
        desirable, undesirable = section.kto.weights(sum(labels), len(labels) - sum(labels))
        # TRL pairs rows with their neighbours, and demands their order. ThumbTrainer needs none,
        # and gets the config's once TRL has looked.
        common["train_sampling_strategy"] = "sequential"
        return KTOConfig(
            **common,
            beta=section.kto.beta,
            desirable_weight=desirable,
            undesirable_weight=undesirable,
        )
    return SFTConfig(
        **common,
        packing=section.packing,
        eval_packing=False,
        # The rows have token ids and labels already. Only packing has work left to do on them.
        dataset_kwargs={"skip_prepare_dataset": not section.packing},
    )


def _optimization(section: TrainingSection) -> dict[str, Any]:
    return {
        "num_train_epochs": section.epochs,
        "max_steps": section.max_steps or -1,
        # All rows of a step: RecapTrainer divides them into micro-batches.
        "per_device_train_batch_size": section.rows_of_a_step,
        "gradient_accumulation_steps": 1,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.scheduler,
        "warmup_steps": section.warmup_ratio,  # transformers reads less than 1 as a ratio
        "optim": section.optimizer,
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "train_sampling_strategy": _sampling_strategy(section),
    }


def _sampling_strategy(section: TrainingSection) -> str:
    return "group_by_length" if section.group_by_length and not section.packing else "random"


def _machine(config: TrainConfig) -> dict[str, Any]:
    has_gpu = torch.cuda.is_available()
    dtype = compute_dtype(config.model.dtype)
    is_sharded = config.training.distribution == "fsdp"
    checkpointing = config.training.activation_checkpointing
    if checkpointing == "auto":
        # RecapTrainer chooses by memory, which a sharded base, by its size, has not.
        checkpointing = is_sharded and has_gpu
    return {
        "gradient_checkpointing": checkpointing,
        "fsdp": is_sharded,
        "use_cpu": not has_gpu,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        # Each adapted module takes part in each pass: nothing to search for in the graph.
        "ddp_find_unused_parameters": False,
        # Buffers are tables of positions, the same on all ranks.
        "ddp_broadcast_buffers": False,
    }


def set_intervals(settings: TrainingArguments, section: TrainingSection, rows: int) -> None:
    """Set how often to save and evaluate. `rows` counts packed rows if the trainer packs."""
    rows_per_step = section.rows_of_a_step * PartialState().num_processes
    per_epoch = steps_per_epoch(rows, rows_per_step)
    settings.eval_steps = interval(
        section.evaluate_every_steps, section.evaluate_every_epochs, per_epoch
    )
    settings.save_steps = interval(section.save_every_steps, section.save_every_epochs, per_epoch)


def is_anything_paged(model: Model) -> bool:
    """Return True if bitsandbytes would page the states of any trained weight of the model."""
    if not torch.cuda.is_available():
        return False
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return any(weight.numel() >= MIN_PAGED_NUMBERS for weight in trained)


def add_in_one_order() -> None:
    """Let torch use algorithms alone that give the same bytes each time, in this process.

    One that has no such algorithm raises RuntimeError. A no-op on CPUs, whose own do. Must be
    called before the first product on a GPU: cuBLAS reads its variable then.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # It would fill new tensors, so that reading them too early gives the same bytes, too.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Let malloc keep what one training step frees for the next, as torch does on a GPU.

    By default glibc returns large tensors to the kernel, which clears each page before it hands it
    out again: up to a fifth of a training's time on a CPU, and another share in every run. The
    process then keeps up to 1 GiB more than it needs. A no-op unless malloc is glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    is_set = mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    if not is_set:
        is_set = mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BYTES_OF_OLD_GLIBC)
    if is_set:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def _check_rows(trainer: RecapTrainer, splits: Splits) -> None:
    """Raise AssertionError if rows are missing.

    TRL silently drops rows without labels and cuts long ones. These have labels and fit.
    """
    train = len(trainer.train_dataset)
    assert trainer.padding_free or train == len(splits.train.dataset), "TRL dropped training rows"
    validation = len(trainer.eval_dataset)
    assert validation == len(splits.validation.dataset), "TRL dropped validation rows"
