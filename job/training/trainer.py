"""TRL's trainer with exact resume, exact validation loss, and a check for divergence."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTTrainer

from job.config.training_sections import TrainLimitsSection
from job.errors import DivergedError, PreemptedError, is_out_of_memory
from job.model import Model
from job.telemetry import warn
from job.training.causes import EVALUATING, explaining
from job.training.own_head import check_looks_back, is_fused_head_right, use_own_head
from job.training.sharding import check_sharded, trained_weights
from job.training.shortcuts import (
    is_mask_needless,
    leave_out_mask,
    project_learned_tokens_only,
)
from job.training.uploads import make_room

REMEDY = (
    "lower training.learning_rate or raise warmup_ratio, look at the rows before it, or set "
    "limits.on_divergence: roll_back"
)
REMEDY_AT_STEP_1 = (
    "nothing was learned before it, so the base computes them: copy or fetch the base again, set "
    "model.dtype: float32, or look at the first rows"
)


class RecapTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, exact enough that a resumed run ends as one that was never interrupted.

    Overrides methods of transformers and TRL that may change with any version:
    tests/training/library_lines.py names the line that each override relies on, and what breaks
    without it.
    """

    def __init__(
        self,
        *,
        limits: TrainLimitsSection,
        needs_validation_loss: bool,
        wait_for_uploads: Callable[[], None],
        **named: Any,
    ) -> None:
        project_learned_tokens_only()
        super().__init__(**named)
        self.divergence = Divergence(
            limits.max_gradient_norm,
            limits.divergence_steps,
            has_scaler=self.args.fp16,
        )
        self._needs_validation_loss = needs_validation_loss
        self._wait_for_uploads = wait_for_uploads
        # Of the evaluation in progress, per batch: loss and tokens of each row, (rows, 2).
        self._losses_of_rows: list[torch.Tensor] = []
        self._is_head_chosen = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return an order of rows that depends on seed and epoch alone.

        transformers' order depends on everything that was drawn from the random state before.
        """
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [1] * len(rows)
        if self.args.train_sampling_strategy == "group_by_length":
            lengths = [len(ids) for ids in rows["input_ids"]]
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochSampler(lengths, batch_size, self.args.data_seed, self._present_epoch)

    def _present_epoch(self) -> int:
        return int(self.state.epoch or 0)

    def _get_grad_norm(self, model: Model, grad_norm: Any = None) -> Any:
        """Return the norm before clipping. Raise DivergedError before the step, if it has diverged.

        No NaN reaches a weight in this way.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.divergence.check(float(norm), self.state.global_step + 1)
        return norm

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter.

        Collective if the model is sharded. transformers would gather the base as well, on one rank.
        """
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        weights = trained_weights(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _prepare_for_training(self, *arguments: Any, **named: Any) -> Any:
        prepared = super()._prepare_for_training(*arguments, **named)
        if self.is_fsdp_enabled:
            check_sharded(self.model)
        return prepared

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """Skip the epoch if the training is over before its first step.

        transformers asks only after a step. A run may resume from the checkpoint of its last step,
        or from one whose evaluation ended it.
        """
        is_over = self.state.global_step >= self.state.max_steps
        if not self.control.should_training_stop and not is_over:
            super()._run_epoch(*arguments, **named)

    def compute_loss(self, model: Model, *arguments: Any, **named: Any) -> Any:
        """Return the loss of a batch, by the model's own head if TRL's is another."""
        self._choose_head(model)
        return super().compute_loss(model, *arguments, **named)

    def _choose_head(self, model: Model) -> None:
        """Collective, once: refuse a base that looks ahead, and replace a head that is wrong."""
        if self._is_head_chosen:
            return
        self._is_head_chosen = True
        base = self.model.get_base_model()
        embeddings = base.get_input_embeddings().num_embeddings
        with self.compute_loss_context_manager():
            check_looks_back(model, embeddings)
            is_right = is_fused_head_right(model, embeddings)
            is_needless = is_mask_needless(model, base)
        if not is_right:
            use_own_head(base)
            warn(
                "TRL's head computes another loss than this base: its own is used, with more memory"
            )
        if is_needless:
            leave_out_mask(base)

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Evaluate; after a stop signal, save a checkpoint and stop instead.

        The resumed run evaluates that step first.
        """
        try:
            metrics: dict[str, float] = super()._evaluate(*arguments, **named)
            return metrics
        except PreemptedError:
            self.control.should_evaluate = False
            self.control.should_training_stop = True
            # Whether or not this step was due to be saved.
            self.control.should_save = not self.divergence.is_suspected
            return {}

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """Write a checkpoint. Collective: raise OutputError first if a disk has no room for it."""
        trained_bytes = 0
        for weight in self.model.parameters():
            if weight.requires_grad:
                trained_bytes += weight.numel() * weight.element_size()
        make_room(Path(self.args.output_dir), trained_bytes, self._wait_for_uploads)
        super()._save_checkpoint(*arguments, **named)

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Evaluate without touching the random state, so that a run may skip it and stay the same.

        Halves the batch where memory runs out. Without memory for one row there is no validation
        loss, which ends the run only if the choice of the adapter or its end depends on it.
        """
        with torch.random.fork_rng(), explaining(EVALUATING):
            while True:
                try:
                    metrics: dict[str, float] = super().evaluate(*arguments, **named)
                    return metrics
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    # The other ranks wait in a collective, where nothing can reach them.
                    if self.accelerator.num_processes > 1:
                        raise
                    if self.args.per_device_eval_batch_size == 1:
                        if self._needs_validation_loss:
                            raise
                        warn("no validation loss: a single row does not fit into memory")
                        return {}
                # Only here are the batch's tensors free: an exception holds its frames.
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self.args.per_device_eval_batch_size //= 2
                rows = self.args.per_device_eval_batch_size
                warn("out of memory while evaluating: smaller batches from now on", rows=rows)

    def evaluation_loop(self, *arguments: Any, **named: Any) -> Any:
        """Evaluate with a validation loss that is the mean over all tokens.

        transformers takes the mean of the batches' means: a token in a short batch counts more, and
        the loss depends on the batch size and on the number of processes.
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
        """Return the batch's mean loss. Keeps loss and tokens of each row for `evaluation_loop`."""
        self._choose_head(model)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs, use_cache=False, fused_lm_head=True)
        rows = losses_of_rows(inputs, -output.log_probs, output.label_mask)

        # accelerate repeats rows so that all ranks have as many batches; this leaves them out.
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
        self, lengths: list[int], batch_size: int, seed: int, present_epoch: Callable[[], int]
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._present_epoch = present_epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        # torch mixes the seed into all of its state: neighbouring seeds give unrelated orders.
        seed = self._seed * 1_000_003 + self._present_epoch()
        generator = torch.Generator().manual_seed(seed)
        indices = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        return iter(indices)


class Divergence:
    """Ends a training that has diverged: its gradient norms are no numbers, or stay too large.

    Counts how many steps in a row were beyond the limit. A loss that is NaN or infinite makes the
    norm so. All ranks see the same norm, since it is computed after the gradients are reduced: all
    of them end at the same step.
    """

    def __init__(self, max_norm: float | None, max_steps: int, has_scaler: bool) -> None:
        self._max_norm = max_norm
        self._max_steps = max_steps
        self._has_scaler = has_scaler
        self._too_large_in_a_row = 0

    @property
    def is_suspected(self) -> bool:
        """True if the last norm was beyond the limit. A checkpoint of now may be no good."""
        return self._too_large_in_a_row > 0

    def check(self, norm: float, step: int) -> None:
        """Raise DivergedError if the norm is NaN or infinite, or too large for too many steps.

        fp16's gradient scaler raises its scale until infinities appear, and then skips the step.
        With it, a norm that is not finite counts as too large.
        """
        is_finite = math.isfinite(norm)
        if not is_finite and not self._has_scaler:
            remedy = REMEDY if step > 1 else REMEDY_AT_STEP_1
            raise DivergedError(
                f"step {step}: loss or gradients are no numbers (gradient norm {norm}); {remedy}"
            )

        is_too_large = not is_finite
        if self._max_norm is not None and norm > self._max_norm:
            is_too_large = True
        if not is_too_large:
            self._too_large_in_a_row = 0
            return

        self._too_large_in_a_row += 1
        if self._too_large_in_a_row >= self._max_steps:
            limit = ""
            if self._max_norm is not None:
                limit = f" (limits.max_gradient_norm {self._max_norm:g})"
            raise DivergedError(
                f"step {step}: gradient norms beyond the limit{limit} for "
                f"{self._too_large_in_a_row} steps, the last {norm:.4g}; {REMEDY}"
            )
