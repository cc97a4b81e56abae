"""The trainers of pairs and of thumbs: their rows, their losses, and the rewards that they log.

The formulas are TRL's, and tests/training/test_preferences.py compares both.
docs/decisions/0043 has the reasons.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from torch.utils.data import DataLoader
from trl import DPOTrainer, KTOTrainer

from job.config.method_sections import sequences_of_a_row
from job.model import Model
from job.model.shared_prompt import max_shared_tokens
from job.prompt.encode import IGNORED
from job.telemetry import event, heartbeat
from job.training.batches import Collator, EvaluationSampler, Row, StepBatch, Tensors
from job.training.forward import dtype_of
from job.training.judged import (
    JudgedTrainer,
    lengths_of_pairs,
    padded_tokens_of_pairs,
    tokens_of_pairs,
)
from job.training.needs import Needs
from job.training.preference_rows import shared_tokens
from job.training.random_state import own_gpus
from job.training.rows import lengths_of, shared_lengths
from job.training.shared_prompts import (
    check_sharing,
    row_to_measure,
    shared_log_probabilities,
    shared_tensors,
)


class PreferenceTrainer(JudgedTrainer):
    """A trainer that compares the model in training with the one that the training began with.

    `reference` has the log-probabilities under the latter of all rows, those of training first:
    (rows, 2), float32, on the CPU. They are computed before the first step, or come from a
    checkpoint. TRL switches dropout off, in both.
    """

    reference: torch.Tensor | None = None
    control: Any  # transformers'

    def __init__(
        self, needs: Needs, *, train_dataset: Any, eval_dataset: Any, **named: Any
    ) -> None:
        numbers = range(len(train_dataset) + len(eval_dataset))
        super().__init__(
            needs,
            train_dataset=_numbered(train_dataset, numbers[: len(train_dataset)]),
            eval_dataset=_numbered(eval_dataset, numbers[len(train_dataset) :]),
            **named,
        )
        if "ref" in self.model.peft_config:
            # TRL's copy of an adapter to start from. Checkpoints would have it, too.
            self.model.delete_adapter("ref")

    def collate(self, rows: list[Row]) -> Tensors:
        """Return TRL's micro-batch of the rows, with the reference's log-probabilities of each."""
        batch = self.tensors_of(rows)
        numbers = torch.tensor([row["number"] for row in rows])
        batch["number"] = numbers
        if self.reference is not None:
            batch["reference"] = self.reference[numbers]
        return batch

    def tensors_of(self, rows: list[Row]) -> Tensors:
        """Return ids and masks of the rows, padded."""
        batch: Tensors = self.data_collator(rows)
        return batch

    def log_probabilities(self, model: Model, batch: Tensors, prefix: str = "") -> torch.Tensor:
        """Return the log-probability of the completion of each sequence: (sequences,)."""
        ids = batch[f"{prefix}input_ids"]
        labels = ids.masked_fill(batch[f"{prefix}completion_mask"] == 0, IGNORED)
        output = model(
            input_ids=ids,
            attention_mask=batch[f"{prefix}attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
        )
        found: torch.Tensor = output.log_probs.sum(dim=1)
        return found

    def of_reference(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the log-probabilities of the rows of a batch that the loss compares: (rows, 2)."""
        raise NotImplementedError

    def prepare_rows(self, model: Model) -> None:
        """Collective: compute the reference's log-probabilities of all rows, if there are none."""
        if self.reference is None:
            rows = len(self.train_dataset) + len(self.eval_dataset)
            event("log-probabilities under the model that the training starts from", rows=rows)
            with heartbeat("computing the reference"), torch.random.fork_rng(own_gpus()):
                found = torch.zeros(rows, 2, device=self.args.device)
                for dataset in (self.train_dataset, self.eval_dataset):
                    lengths = self.lengths_of_rows(dataset)
                    self.in_smaller_batches(lengths, partial(self._refer, model, dataset, found))
                # Each row is on one rank, and zero on all others.
                self.reference = self.accelerator.reduce(found, reduction="sum").cpu()

    def _refer(self, model: Model, dataset: Any, found: torch.Tensor) -> None:
        lengths = self.lengths_of_rows(dataset)
        sampler = EvaluationSampler(lengths, self.evaluation_budget, self.ranks)
        self.choose_forward(model)
        model.eval()
        for batch in DataLoader(dataset, batch_sampler=sampler, collate_fn=self.collator.batch):
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                values = self.of_reference(model, batch)
            is_row = self.is_row(batch)
            found[batch["number"][is_row]] = values[is_row].float()
            # A stop signal and the watchdog are heeded there.
            self.control = self.callback_handler.on_prediction_step(
                self.args, self.state, self.control
            )

    def is_row(self, batch: Tensors) -> torch.Tensor:
        """Return True for each row of a batch that is none of an idle one: (rows,)."""
        is_row: torch.Tensor = batch["completion_mask"].any(dim=1)[: len(batch["number"])]
        return is_row


class PairTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc]
    """Learn which of two summaries is preferred, and the preferred one: `method: dpo`.

    Both are in one pass. If the trainer `shares_prompts`, they are one row of it, else two.
    """

    number_of_sums = 7
    number_of_shares = 2  # pairs, and tokens of chosen summaries

    def __init__(
        self, needs: Needs, *, model: Any, train_dataset: Any, eval_dataset: Any, **named: Any
    ) -> None:
        longest = max([*shared_lengths(train_dataset), *shared_lengths(eval_dataset)])
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.shares_prompts = needs.shares_prompts and longest <= max_shared_tokens(base)
        self.rows_of_a_row = sequences_of_a_row("dpo", self.shares_prompts)
        datasets = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        super().__init__(needs, model=model, **datasets, **named)
        self.recomputation.inputs_of = self._inputs_to_measure

    def choose_forward(self, model: Model) -> None:
        """Collective, once: choose how the loss is computed, and try the base on a shared prompt.

        Raise ConfigError, on every rank, if it computes the summaries otherwise there.
        """
        is_first_call = not self.is_forward_chosen
        super().choose_forward(model)
        if is_first_call and self.shares_prompts:
            with self.compute_loss_context_manager():
                check_sharing(model, self.model.get_base_model(), dtype_of(self.args))

    def lengths_of_rows(self, rows: Any) -> list[int]:
        """Return the tokens of both sequences of each pair, padded to the longer one."""
        return shared_lengths(rows) if self.shares_prompts else lengths_of_pairs(rows)

    def make_collator(self) -> Collator:
        """Return what puts a pair into one row, or TRL's, with rejected sequences after chosen."""
        pad_id = self.data_collator.pad_token_id
        idle_row = {
            "prompt_ids": [pad_id, pad_id], "chosen_ids": [], "rejected_ids": [], "number": 0
        }  # fmt: skip

        def padded_tokens(rows: Sequence[Row]) -> list[int]:
            return _shared_tokens(rows) if self.shares_prompts else padded_tokens_of_pairs(rows)

        def tokens(rows: Sequence[Row]) -> list[int]:
            return _shared_tokens(rows) if self.shares_prompts else tokens_of_pairs(rows)

        return Collator(self.collate, padded_tokens, tokens, idle_row)

    def tensors_of(self, rows: list[Row]) -> Tensors:
        """Return ids and masks of the rows, padded."""
        if self.shares_prompts:
            return shared_tensors(rows, self.data_collator.pad_token_id)
        return super().tensors_of(rows)

    def shares_of(self, batch: Tensors) -> torch.Tensor:
        """Return the number of pairs and that of the tokens of their chosen summaries."""
        is_row = self.is_row(batch)
        if self.shares_prompts:
            chosen = batch["starts"] - batch["ends_of_prompts"] - 1
        else:
            chosen = batch["completion_mask"][: len(is_row), 1:]
        return torch.stack([is_row.sum(), chosen.sum()])

    def of_reference(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the log-probabilities of the chosen and of the rejected summary: (pairs, 2)."""
        if self.shares_prompts:
            return shared_log_probabilities(model, batch, dtype_of(self.args))
        return torch.stack(self.log_probabilities(model, batch).chunk(2), dim=1)

    def _inputs_to_measure(self, tokens: int) -> dict[str, Any]:
        if not self.shares_prompts:
            return {}
        return row_to_measure(tokens, self.args.device, dtype_of(self.args))

    def sums_of(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the sums of both losses, of both rewards and of right orders; and the shares."""
        chosen, rejected = self.of_reference(model, batch).unbind(dim=1)
        chosen_of_reference, rejected_of_reference = batch["reference"].unbind(dim=1)
        chosen_rewards = self.beta * (chosen - chosen_of_reference)
        rejected_rewards = self.beta * (rejected - rejected_of_reference)
        by_pair = [
            -logsigmoid(chosen_rewards - rejected_rewards),
            -chosen,
            chosen_rewards,
            rejected_rewards,
            chosen_rewards > rejected_rewards,
        ]
        is_row = self.is_row(batch)
        sums = [(values.double() * is_row).sum() for values in by_pair]
        return torch.stack([*sums, *self.shares_of(batch).double()])

    def loss_of(self, sums: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return the mean sigmoid loss over pairs, and the weighted mean over chosen tokens."""
        pairs, tokens = shares
        sigmoid, sft = self.loss_weights
        return sigmoid * sums[0] / pairs + sft * sums[1] / tokens

    def rewards_of(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the mean rewards, their difference, and the share of pairs in the right order."""
        _, _, chosen, rejected, right, pairs, _ = sums
        return {
            "rewards/chosen": chosen / pairs,
            "rewards/rejected": rejected / pairs,
            "rewards/margins": (chosen - rejected) / pairs,
            "rewards/accuracies": right / pairs,
        }


class ThumbTrainer(PreferenceTrainer, KTOTrainer):  # type: ignore[misc]
    """Learn from summaries that were wanted and from some that were not: `method: kto`.

    The loss compares each with the divergence from the reference, estimated by prompts with the
    summaries of others. Which other is the same in each epoch, so that the reference's
    log-probabilities need computing only once.
    """

    number_of_sums = 7
    divergence_from_reference = torch.zeros((), dtype=torch.float64)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return with_mismatched(dataset)

    def lengths_of_rows(self, rows: Any) -> list[int]:
        """Return the tokens of prompt and completion of each row."""
        columns = [lengths_of(rows, name) for name in ("prompt_ids", "completion_ids")]
        return [prompt + completion for prompt, completion in zip(*columns, strict=True)]

    def make_collator(self) -> Collator:
        """Return TRL's collator, which pads the mismatched sequences besides."""
        pad_id = self.data_collator.pad_token_id
        idle_row = {
            "prompt_ids": [pad_id, pad_id], "completion_ids": [], "KL_completion_ids": [],
            "label": False, "number": 0,
        }  # fmt: skip
        return Collator(self.collate, _tokens_of_thumbs, _tokens_of_thumbs, idle_row)

    def shares_of(self, batch: Tensors) -> torch.Tensor:
        """Return the number of rows."""
        return self.is_row(batch).sum()[None]

    def of_reference(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the log-probabilities of each row's summary, and of another's: (rows, 2)."""
        own = self.log_probabilities(model, batch)
        return torch.stack([own, self.log_probabilities(model, batch, "KL_")], dim=1)

    def begin_step(self, model: Model, step: StepBatch) -> None:
        """Collective: estimate the divergence from the reference by all rows of the step."""
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for batch in step.micro_batches:
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                ratios = self._mismatched_ratios(model, batch)
            is_row = self.is_row(batch)
            sums += torch.stack([(ratios * is_row).sum(), is_row.sum()])
        self.divergence_from_reference = self._estimate(sums)

    def sums_of(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the sums of losses, of rewards and rows by thumb, and of divergence and rows."""
        ratios = self.log_probabilities(model, batch) - batch["reference"][:, 0]
        return self._sums(ratios, batch["label"], self.is_row(batch))

    def loss_of(self, sums: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over rows."""
        return sums[0] / shares[0]

    def rewards_of(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the mean divergence, and the rewards by thumb and their difference, if any."""
        _, wanted, of_wanted, unwanted, of_unwanted, divergence, rows = sums
        found = {"kl": divergence / rows}
        if of_wanted:
            found["rewards/chosen"] = wanted / of_wanted
        if of_unwanted:
            found["rewards/rejected"] = unwanted / of_unwanted
        if of_wanted and of_unwanted:
            found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        return found

    def judge(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return of each row: both ratios to the reference, its label, and 1: (rows, 4)."""
        is_row = self.is_row(batch)
        ratios = self.log_probabilities(model, batch) - batch["reference"][:, 0]
        others = self._mismatched_ratios(model, batch)
        rows = [ratios.double(), others, batch["label"].double(), is_row.double()]
        return torch.stack(rows, dim=1)[is_row]

    def conclude(self, findings: Sequence[torch.Tensor]) -> dict[str, float]:
        """Collective: return the validation loss and the rewards over all rows."""
        ratios, others, labels, is_row = torch.cat(list(findings)).unbind(dim=1)
        of_training = self.divergence_from_reference
        self.divergence_from_reference = self._estimate(torch.stack([others.sum(), is_row.sum()]))
        sums = self.accelerator.reduce(self._sums(ratios, labels.bool(), is_row), reduction="sum")
        self.divergence_from_reference = of_training
        metrics = {"loss": self.loss_of(sums, sums[-1:]).item()} | self.rewards_of(sums.tolist())
        return {f"eval_{name}": value for name, value in metrics.items()}

    def _mismatched_ratios(self, model: Model, batch: Tensors) -> torch.Tensor:
        found = self.log_probabilities(model, batch, "KL_").double()
        return found - batch["reference"][:, 1]

    def _estimate(self, sums: torch.Tensor) -> torch.Tensor:
        """Collective: return the mean of ratios, at least 0, by their sum and number here."""
        ratios, rows = self.accelerator.reduce(sums, reduction="sum")
        return (ratios / rows.clamp(min=1)).clamp(min=0)

    def _sums(
        self, ratios: torch.Tensor, is_wanted: torch.Tensor, is_row: torch.Tensor
    ) -> torch.Tensor:
        divergence = self.divergence_from_reference
        signs = torch.where(is_wanted, 1.0, -1.0)
        weights = torch.where(is_wanted, self.desirable_weight, self.undesirable_weight)
        losses = weights * (1 - torch.sigmoid(self.beta * signs * (ratios.double() - divergence)))
        rewards = self.beta * ratios.double()
        wanted = is_row * is_wanted
        unwanted = is_row * ~is_wanted
        sums = [
            (losses * is_row).sum(),
            (rewards * wanted).sum(),
            wanted.sum().double(),
            (rewards * unwanted).sum(),
            unwanted.sum().double(),
            divergence * is_row.sum(),
            is_row.sum().double(),
        ]
        return torch.stack(sums)


def with_mismatched(rows: Any) -> Any:
    """Return thumbs with the completion of another prompt: that of the row before, as TRL has it.

    A conversation may have several thumbs: then the nearest row before of another one. It is cut
    where the sequence would be longer than the longest row, which fits.
    """
    prompts = [hash(tuple(ids)) for ids in rows["prompt_ids"]]
    completions = list(rows["completion_ids"])
    lengths = [len(ids) for ids in rows["prompt_ids"]]
    own = zip(lengths, completions, strict=True)
    longest = max(length + len(completion) for length, completion in own)
    others = []
    for row, prompt in enumerate(prompts):
        other = row - 1
        while prompts[other] == prompt and other > row - len(prompts):
            other -= 1
        others.append(completions[other][: longest - lengths[row]])
    return rows.add_column("KL_completion_ids", others)


def _numbered(rows: Any, numbers: Sequence[int]) -> Any:
    return rows.add_column("number", list(numbers))


def _shared_tokens(rows: Sequence[Row]) -> list[int]:
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [shared_tokens(*(len(row[name]) for name in names)) for row in rows]


def _tokens_of_thumbs(rows: Sequence[Row]) -> list[int]:
    return [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows]
