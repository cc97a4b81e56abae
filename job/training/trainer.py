"""The config's training section → TRL's SFTTrainer, ready to train. Knows nothing of storage."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer

from job.config.commands import TrainConfig
from job.config.training_sections import TrainingSection
from job.errors import PreemptedError
from job.model import Model, Tokenizer
from job.model.adapter import lora_config
from job.model.families import keep_adapter_in_float32
from job.model.fetch import Base
from job.model.load import compute_dtype, load_base
from job.telemetry import warn
from job.training.divergence import Divergence
from job.training.memory import keep_freed_memory
from job.training.rows import Rows
from job.training.sharding import check_sharded, prepare_sharding, trained_weights


def build_trainer(
    config: TrainConfig,
    base: Base,
    tokenizer: Tokenizer,
    splits: tuple[Rows, Rows],
    folder: Path,
) -> "RecapTrainer":
    """A trainer of a LoRA adapter on the quantized base; `splits` are the training and the validation rows."""
    train, validation = splits
    sharded = config.training.distribution == "fsdp"
    if not torch.cuda.is_available():
        keep_freed_memory()
    model = load_base(base, config.model, sharded)
    model.config.use_cache = False
    folder.mkdir(
        parents=True, exist_ok=True
    )  # transformers makes it where it saves: on the first machine
    settings = arguments(config, folder)
    if sharded:
        prepare_sharding(settings, compute_dtype(config.model.dtype))
    trainer = RecapTrainer(
        model=model,
        args=settings,
        train_dataset=train.dataset,
        eval_dataset=validation.dataset,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, base, model),
    )
    section = config.training
    chooses = section.adapter_from == "best_evaluation"
    trainer.needs_validation_loss = chooses or section.patience is not None
    set_intervals(trainer.args, config.training, len(trainer.train_dataset))
    limits = config.limits
    scaled = (
        trainer.args.fp16
    )  # its gradient scaler meets infinities now and then, skips the step and goes on
    trainer.divergence = Divergence(limits.max_gradient_norm, limits.divergence_steps, scaled)
    trainer.remove_callback(PrinterCallback)
    _check_rows(trainer, splits)
    keep_adapter_in_float32(trainer.model)
    return trainer


class RecapTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, exact enough that a resumed run ends as one that was never interrupted.

    Overrides methods of transformers and TRL that may change with any version: library_lines.py
    names the line that each override relies on, and what breaks without it.
    """

    divergence: Divergence
    make_room: Callable[[], None]  # for a checkpoint, before it is written
    needs_validation_loss: bool  # to choose the adapter, or to end the training
    _losses_of_rows: list[torch.Tensor]  # of the evaluation under way: (rows, 2), loss and tokens

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """An order of rows that depends on seed and epoch alone; transformers' depends on all that was drawn before."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        grouped = self.args.train_sampling_strategy == "group_by_length"
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        lengths = [len(ids) for ids in rows["input_ids"]] if grouped else [1] * len(rows)
        return EpochSampler(lengths, batch, self.args.data_seed, lambda: int(self.state.epoch or 0))

    def _get_grad_norm(self, model: Model, grad_norm: Any = None) -> Any:
        """The norm before clipping, judged before the optimizer takes the step: a bad one reaches no weight."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.divergence.judge(float(norm), self.state.global_step + 1)
        return norm

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter; of a sharded model it alone is gathered, where transformers would gather the base too."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        weights = trained_weights(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _prepare_for_training(self, *arguments: Any, **named: Any) -> Any:
        """What is to be sharded is, or nothing is trained."""
        prepared = super()._prepare_for_training(*arguments, **named)
        if self.is_fsdp_enabled:
            check_sharded(self.model)
        return prepared

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """No step after the last one, or where the last evaluation ended the training.

        transformers looks at that after a step alone, and a run may go on from a checkpoint of its last one.
        """
        if not self.control.should_training_stop and self.state.global_step < self.state.max_steps:
            super()._run_epoch(*arguments, **named)

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """An evaluation that a stop signal ends comes before the save of its step: there is one, whether due or not.

        The evaluation is made up for when the run goes on.
        """
        try:
            metrics: dict[str, float] = super()._evaluate(*arguments, **named)
            return metrics
        except PreemptedError:
            self.control.should_evaluate, self.control.should_training_stop = False, True
            self.control.should_save = not self.divergence.suspected
            return {}

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """Nothing is begun that the disk has no room for."""
        self.make_room()
        super()._save_checkpoint(*arguments, **named)

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Evaluate without touching the random state, so that a run may skip it and go on the same.

        Halves the batch where memory runs out. Without memory for one row there is no validation
        loss, which ends the run only if the choice of the adapter or its end depends on it.
        """
        with torch.random.fork_rng():
            while True:
                try:
                    metrics: dict[str, float] = super().evaluate(*arguments, **named)
                    return metrics
                except torch.OutOfMemoryError:
                    # Other processes wait in a collective, and could not be told.
                    if self.accelerator.num_processes > 1:
                        raise
                    if self.args.per_device_eval_batch_size == 1:
                        if self.needs_validation_loss:
                            raise
                        warn("no validation loss: a single row does not fit into memory")
                        return {}
                # Only here are the batch's tensors free: an exception holds its frames.
                torch.cuda.empty_cache()
                self.args.per_device_eval_batch_size //= 2
                rows = self.args.per_device_eval_batch_size
                warn("out of memory while evaluating: smaller batches from now on", rows=rows)

    def evaluation_loop(self, *arguments: Any, **named: Any) -> Any:
        """Evaluate; the validation loss is by tokens, whatever the batches and processes.

        transformers takes the mean of batches' means: a token in a short batch counts more.
        """
        self._losses_of_rows = []
        output = super().evaluation_loop(*arguments, **named)
        loss, tokens = torch.cat(self._losses_of_rows).sum(dim=0).tolist()
        output.metrics["eval_loss"] = loss / tokens
        return output

    def prediction_step(
        self,
        model: Model,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, None, None]:
        """Return the batch's mean loss; note loss and tokens of each row for `evaluation_loop`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs, use_cache=False, fused_lm_head=True)
        rows = losses_of_rows(inputs, -output.log_probs, output.label_mask)
        # Leaves out the rows that accelerate repeats so that all processes have as many batches.
        self._losses_of_rows.append(self.accelerator.gather_for_metrics(rows))
        loss, tokens = rows.sum(dim=0)
        return (loss / tokens).float(), None, None


Tensors = dict[str, torch.Tensor]


def losses_of_rows(inputs: Tensors, losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return loss and tokens of each row of a batch: float64 (rows, 2).

    `losses` and `counted` are by next token: (batch, tokens - 1). With packing, TRL makes one
    sequence of all rows of a batch; a row begins where positions do.
    """
    by_token = torch.stack([losses, counted], dim=-1).double()  # (batch, tokens - 1, 2)
    if "attention_mask" in inputs:
        return by_token.sum(dim=1)
    row_of_token = (inputs["position_ids"][0] == 0).cumsum(dim=0) - 1  # (tokens,)
    sums = by_token.new_zeros(int(row_of_token[-1]) + 1, 2)
    return sums.index_add_(0, row_of_token[1:], by_token[0])


class EpochSampler(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """Row numbers in random order, in batches of similar length where lengths differ."""

    def __init__(
        self, lengths: list[int], batch_size: int, seed: int, epoch: Callable[[], int]
    ) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        # torch mixes the seed into all of its state, so neighbours give unlike orders.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch())
        return iter(
            get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        )


def arguments(config: TrainConfig, folder: Path) -> SFTConfig:
    """Return the training section in TRL's words, without the intervals: they depend on the rows.

    The labels are ours, so TRL neither tokenizes nor cuts.
    """
    section = config.training
    dtype = compute_dtype(config.model.dtype)
    has_gpu, checkpointing = torch.cuda.is_available(), section.activation_checkpointing
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        per_device_train_batch_size=section.batch_size,
        per_device_eval_batch_size=section.batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.scheduler,
        warmup_steps=section.warmup_ratio,
        optim=section.optimizer,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        max_length=section.max_tokens,
        packing=section.packing,
        eval_packing=False,
        train_sampling_strategy="group_by_length"
        if section.group_by_length and not section.packing
        else "random",
        gradient_checkpointing=has_gpu if checkpointing == "auto" else checkpointing,
        fsdp=section.distribution == "fsdp",
        use_cpu=not has_gpu,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        logging_steps=section.log_every_steps,
        logging_first_step=True,
        eval_strategy="steps",
        save_strategy="steps",
        save_total_limit=None,  # a folder goes when it is committed, not while it is on its way
        logging_nan_inf_filter=False,  # a loss that is no number is told, not replaced
        seed=section.seed,
        data_seed=section.seed,
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=has_gpu,
        report_to="none",
        disable_tqdm=True,
        # The rows are ready; only packing has something left to do to them.
        dataset_kwargs={"skip_prepare_dataset": not section.packing},
    )


def set_intervals(settings: SFTConfig, section: TrainingSection, rows: int) -> None:
    """Set how often to save and evaluate; `rows` is the trainer's own number of (packed) rows."""
    per_epoch = steps_per_epoch(section, rows, _world_size())
    evaluate = interval(section.evaluate_every_steps, section.evaluate_every_epochs, per_epoch)
    save = interval(section.save_every_steps, section.save_every_epochs, per_epoch)
    settings.eval_steps = evaluate
    settings.save_steps = save


def steps_per_epoch(section: TrainingSection, rows: int, processes: int) -> int:
    """Return the optimizer steps of a pass over the rows."""
    batches = math.ceil(rows / (section.batch_size * processes))
    return max(1, math.ceil(batches / section.gradient_accumulation_steps))


def interval(steps: int | None, epochs: float | None, per_epoch: int) -> int:
    """Every so many optimizer steps, from either unit; half an epoch without any."""
    return steps or max(1, round((epochs or 0.5) * per_epoch))


def _check_rows(trainer: RecapTrainer, splits: tuple[Rows, Rows]) -> None:
    """TRL drops rows without labels, and cuts long ones, in silence: ours have labels and fit, so none may be gone."""
    train, validation = splits
    assert trainer.args.packing or len(trainer.train_dataset) == len(train.dataset), (
        "TRL dropped training rows"
    )
    assert len(trainer.eval_dataset) == len(validation.dataset), "TRL dropped validation rows"


def _world_size() -> int:
    from accelerate import PartialState

    processes: int = PartialState().num_processes
    return processes
