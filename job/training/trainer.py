"""The part of TRL's trainers that all methods share here: exact steps, resume and validation loss.

`methods` has a trainer for each method, with its rows and its loss.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from trl.trainer.utils import add_fused_lm_head

from job.errors import PreemptedError, is_out_of_memory
from job.memory.levels import Filling
from job.model import Model
from job.model.load import free_memory
from job.telemetry import warn
from job.training.batches import (
    TOKENS_OF_A_PASS,
    TOKENS_OF_A_PASS_ON_A_GPU,
    Budget,
    Collator,
    EpochSampler,
    EvaluationSampler,
    Ranks,
    Row,
    StepBatch,
    StepSampler,
    Tensors,
)
from job.training.causes import EVALUATING, explaining
from job.training.divergence import Divergence
from job.training.forward import Precision, choose_forward, dtype_of
from job.training.needs import Needs
from job.training.passes import Passes, device_name
from job.training.random_state import own_gpus, random_state
from job.training.recomputation import Recomputation
from job.training.sharding import check_sharded, trained_weights
from job.training.shortcuts import project_learned_tokens_only
from job.training.uploads import make_room


class RecapTrainer(Trainer):  # type: ignore[misc]
    """A trainer of TRL, exact enough that a resumed run ends as one that was never interrupted.

    The trainer of a method inherits from this and then from TRL's. What it defines stands first.

    Overrides methods of transformers and TRL that may change with any version:
    tests/training/library_lines.py names the line that each override relies on, and what breaks
    without it.
    """

    rows_of_a_row = 1  # sequences that a row of this method has in a pass
    number_of_sums = 0  # that are logged beside the loss

    def __init__(self, needs: Needs, **named: Any) -> None:
        project_learned_tokens_only()
        super().__init__(**named)
        # TRL's own head computes entropy and accuracy, too, which nobody reads.
        add_fused_lm_head(self.model.get_base_model(), outputs=("log_probs",))
        self.divergence = Divergence(
            needs.limits.max_gradient_norm,
            needs.limits.divergence_steps,
            has_scaler=self.args.fp16,
        )
        self._needs = needs
        self._rows_at_once = max(1, needs.rows_at_once // self.rows_of_a_row)
        # Of the evaluation in progress, what `judge` found in each batch.
        self._findings: list[torch.Tensor] = []
        # Of this rank since the last log, of what is logged beside the loss.
        self.sums = torch.zeros(self.number_of_sums, dtype=torch.float64, device=self.args.device)
        self.evaluation_seconds: list[float] = []  # by evaluation, with its sample summaries
        self.is_forward_chosen = False
        self._attention = self.model.config.get_text_config()._attn_implementation
        self.ranks = Ranks(self.accelerator.num_processes, self.accelerator.process_index)
        self.collator = self.make_collator()
        # By row, in the order of the dataset: TRL has packed it if it was to.
        self._lengths = self.lengths_of_rows(self.train_dataset)
        # As many tokens as the longest rows have: no micro-batch needs more memory than they do.
        self.budget = Budget(
            needs.rows_at_once * max(self._lengths) // self.rows_of_a_row,
            TOKENS_OF_A_PASS_ON_A_GPU if torch.cuda.is_available() else TOKENS_OF_A_PASS,
            joins_rows=self.padding_free,
        )
        self.evaluation_budget = self.budget
        self._fills_memory = needs.fills_memory
        self.recomputation = Recomputation(
            self.model, needs.chooses_recomputation, self.ranks.count, self.rows_of_a_row
        )
        self.passes = Passes({}, device_name())  # `fit` gives it those of the attempts before

    def prepare_rows(self, model: Model) -> None:
        """Collective, before the first step: compute what the loss needs of rows beside them."""

    def begin_step(self, model: Model, step: StepBatch) -> None:
        """Collective, before each step: compute what its loss needs of all its rows."""

    def lengths_of_rows(self, rows: Any) -> list[int]:
        """Return the tokens of each row of a dataset, as micro-batches have them."""
        raise NotImplementedError

    def make_collator(self) -> Collator:
        """Return what makes micro-batches of this method's rows."""
        raise NotImplementedError

    def shares_of(self, batch: Tensors) -> torch.Tensor:
        """Return by what the step's loss divides the sums of a micro-batch, as a vector."""
        raise NotImplementedError

    def judge(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return what the validation loss is made of, for one batch."""
        raise NotImplementedError

    def conclude(self, findings: Sequence[torch.Tensor]) -> dict[str, float]:
        """Collective: return the metrics of an evaluation by what `judge` found in its batches."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the rows of this rank, one batch for each optimizer step.

        Their order depends on seed and epoch alone: transformers' order depends on everything that
        was drawn from the random state before. accelerate would repeat rows, so that all ranks have
        as many.
        """
        rows_per_step = self.args.train_batch_size * self.ranks.count
        is_grouped = self.args.train_sampling_strategy == "group_by_length"
        grouped = self._lengths if is_grouped else [1] * len(self._lengths)
        rows, seed = self.args.train_batch_size, self.args.data_seed
        order = EpochSampler(grouped, rows, seed, lambda: int(self.state.epoch or 0))
        sampler = StepSampler(order, self._lengths, rows_per_step, self.ranks)
        return DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=list)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the micro-batches of this rank. Each row is on one rank, and there once."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        lengths = self.lengths_of_rows(rows)
        sampler = EvaluationSampler(lengths, self.evaluation_budget, self.ranks)
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self.collator.batch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[Row]], num_batches: int, device: torch.device
    ) -> tuple[list[StepBatch], torch.Tensor | None]:
        """Collective: return the next step of this rank, and what its loss is divided by.

        That is counted over all ranks. At the end of the data, there is nothing.
        """
        rows = next(epoch_iterator, None)
        if rows is None:
            return [], None
        micro_batches = self.collator.micro_batches(rows, self.budget)
        shares = torch.stack([self.shares_of(batch) for batch in micro_batches]).sum(dim=0)
        tokens = sum(self.collator.tokens(rows))
        # On the CPU: (shares, then tokens and micro-batches).
        counts = torch.cat([shares, torch.tensor([tokens, len(micro_batches)])])
        if self.ranks.count > 1:
            everywhere = self.accelerator.gather(counts[None].to(device)).cpu()  # by rank
            counts = everywhere.sum(dim=0)
            if self.is_fsdp_enabled:
                # All ranks gather each layer of each micro-batch together.
                missing = int(everywhere[:, -1].max()) - len(micro_batches)
                micro_batches += [self.collator.idle() for _ in range(missing)]
        step = StepBatch(rows, micro_batches, int(counts[-2]))
        return [step], counts[:-2].to(device)

    def training_step(
        self, model: Model, inputs: StepBatch, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of a step and add its gradients, micro-batch by micro-batch.

        Where memory runs out, the step begins again with half of the tokens in a micro-batch, and
        draws the same random numbers.
        """
        if not self.recomputation.is_chosen:
            with self.compute_loss_context_manager():
                self._choose_pass(inputs)
        sums = self.sums.clone()
        while True:
            state = random_state()
            try:
                self.begin_step(model, inputs)
                return self._accumulate(model, inputs.micro_batches, num_items_in_batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # The other ranks wait in a collective, where nothing can reach them.
                if self.ranks.count > 1 or not self._divide_further(inputs):
                    raise
            # Only here are the batch's tensors free: an exception holds its frames.
            model.zero_grad()
            free_memory()
            state.restore()
            self.sums.copy_(sums)

    def _choose_pass(self, step: StepBatch) -> None:
        """Choose recomputation and, if it is to fill the memory, the size of a micro-batch."""
        longest = max(self._lengths)
        share = self.budget.tokens_of_a_pass / longest
        filling = Filling(self.args.train_batch_size, share) if self._fills_memory else None
        tokens = self.passes.choose(
            self.recomputation, self.state.global_step, longest, self._rows_at_once, filling
        )
        if tokens is not None:
            self.budget = replace(self.budget, tokens=tokens)
            step.micro_batches = self.collator.micro_batches(step.rows, self.budget)

    def _accumulate(
        self, model: Model, micro_batches: Sequence[Tensors], shares: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the sum of the micro-batches' losses. Gradients are reduced in the last one."""
        *others, last = micro_batches
        loss = torch.zeros((), device=self.args.device)
        if others:
            with self.accelerator.no_sync(model):
                for batch in others:
                    loss += super().training_step(model, batch, shares)
        return loss + super().training_step(model, last, shares)

    def _divide_further(self, step: StepBatch) -> bool:
        """Make smaller micro-batches from now on, or recompute more if each row is alone already.

        Return False if neither is possible.
        """
        smaller = self.budget.smaller(self.collator.lengths(step.rows))
        if smaller is not None:
            self.budget = smaller
            step.micro_batches = self.collator.micro_batches(step.rows, smaller)
            warn(
                "out of memory in a step: smaller micro-batches from now on", tokens=smaller.tokens
            )
        elif not self.recomputation.add():
            return False
        self.passes.note(self.state.global_step, self.budget.tokens, self.recomputation.level)
        return True

    def floating_point_ops(self, inputs: StepBatch) -> int:
        """Return 0: nobody reads the count, which would ask every weight for its size."""
        return 0

    def _track_num_input_tokens(self, inputs: StepBatch) -> None:
        self.state.num_input_tokens_seen += inputs.tokens_of_all_ranks

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
        self.choose_forward(self.model_wrapped)
        is_over = self.state.global_step >= self.state.max_steps
        if not self.control.should_training_stop and not is_over:
            self.prepare_rows(self.model_wrapped)
            super()._run_epoch(*arguments, **named)

    def choose_forward(self, model: Model) -> None:
        """Collective, once: choose how the loss is computed, and refuse a base that looks ahead."""
        if not self.is_forward_chosen:
            precision = Precision(dtype_of(self.args), self.compute_loss_context_manager)
            choose_forward(model, self.model.get_base_model(), precision, self.padding_free)
            self.is_forward_chosen = True

    def attend_as_loaded(self) -> None:
        """Undo what packed rows needed: from now on, the model only generates."""
        base = self.model.get_base_model()
        if base.config.get_text_config()._attn_implementation != self._attention:
            base.set_attn_implementation(self._attention)

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Evaluate; after a stop signal, save a checkpoint and stop instead.

        The resumed run evaluates that step first.
        """
        try:
            return dict(super()._evaluate(*arguments, **named))
        except PreemptedError:
            self.control.should_evaluate = False
            self.control.should_training_stop = True
            # Whether or not this step was due to be saved.
            self.control.should_save = not self.divergence.is_suspected
            return {}

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """Write a checkpoint. Collective: raise OutputError first if a disk has no room for it."""
        trained_bytes = sum(each.nbytes for each in self.model.parameters() if each.requires_grad)
        make_room(Path(self.args.output_dir), trained_bytes, self._needs.wait_for_uploads)
        super()._save_checkpoint(*arguments, **named)

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Evaluate without touching the random state, so that a run may skip it and stay the same.

        Halves the batch where memory runs out. Without memory for one row there is no validation
        loss, which ends the run only if the choice of the adapter or its end depends on it.
        """
        compute = partial(super().evaluate, *arguments, **named)
        lengths = self.lengths_of_rows(self.eval_dataset)
        with torch.random.fork_rng(own_gpus()), explaining(EVALUATING), self._timing():
            try:
                return dict(self.in_smaller_batches(lengths, compute))
            except Exception as error:
                is_needed = self._needs.needs_validation_loss or self.ranks.count > 1
                if is_needed or not is_out_of_memory(error):
                    raise
                warn("no validation loss: a single row does not fit into memory")
                return {}

    def in_smaller_batches(self, lengths: Sequence[int], compute: Callable[[], Any]) -> Any:
        """Return what `compute` returns, with evaluation batches that fit into memory.

        Halves them where memory runs out. `lengths` are those of the rows. Raise the error of a
        single row that does not fit, and of any batch if there are several ranks: the others wait
        in a collective, where nothing can reach them.
        """
        while True:
            try:
                return compute()
            except Exception as error:
                if not is_out_of_memory(error) or self.ranks.count > 1:
                    raise
                smaller = self.evaluation_budget.smaller(lengths)
                if smaller is None:
                    raise
            # Only here are the batch's tensors free: an exception holds its frames.
            free_memory()
            self.evaluation_budget = smaller
            warn("out of memory while evaluating: smaller batches", tokens=smaller.tokens)

    @contextmanager
    def _timing(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.evaluation_seconds.append(time.monotonic() - start)

    def evaluation_loop(self, *arguments: Any, **named: Any) -> Any:
        """Evaluate with a validation loss that is the mean over all rows, or all their tokens.

        transformers takes the mean of the batches' means: a token in a short batch counts more, and
        the loss depends on the batch size and on the number of processes.
        """
        self._findings = []
        output = super().evaluation_loop(*arguments, **named)
        output.metrics.update(self.conclude(self._findings))
        return output

    def prediction_step(
        self,
        model: Model,
        inputs: Tensors,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, None, None]:
        """Keep what is found in a batch for `evaluation_loop`. Return nothing to transformers."""
        self.choose_forward(model)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            self._findings.append(self.judge(model, inputs))
        return None, None, None
