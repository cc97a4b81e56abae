"""The part that all trainers of judged answers share: a loss of sums, and what is logged of them.

TRL's trainers compute loss and metrics by micro-batch, with collectives in each of them.
Here a step has one loss, however it is divided among micro-batches and ranks: see
docs/decisions/0043.
"""

from collections.abc import Sequence
from typing import Any

import torch

from job.model import Model
from job.training.batches import Row, Tensors
from job.training.rows import lengths_of
from job.training.trainer import RecapTrainer


class JudgedTrainer(RecapTrainer):
    """A trainer whose loss, and all that is logged beside it, are made of sums over rows.

    The last of the sums are what `shares_of` returns.
    """

    number_of_shares = 1
    padding_free = False  # rows are padded, not joined

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """Return the rows as they are: they have token ids, and fit."""
        return dataset

    def sums_of(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the sums over a batch of which loss and rewards are made: (number_of_sums,)."""
        raise NotImplementedError

    def loss_of(self, sums: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return the loss of sums, of which the step or evaluation has `shares` in all."""
        raise NotImplementedError

    def rewards_of(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the rewards by the names that TRL gives them."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: Model,
        inputs: Tensors,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a micro-batch's share of the step's loss, and add what is logged to the sums."""
        self.choose_forward(model)
        sums = self.sums_of(model, inputs)
        self.sums += sums.detach()
        shares = self.shares_of(inputs) if num_items_in_batch is None else num_items_in_batch
        # DDP and FSDP take the mean over ranks, of which each has its share of the sum.
        return self.loss_of(sums, shares.clamp(min=1)) * self.ranks.count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the rewards since the last log with the loss. Collective."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self.sums.clone(), reduction="sum")
            logs |= self.rewards_of(sums.tolist())
            self.sums.zero_()
        super().log(logs, start_time)

    def judge(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the sums of a batch."""
        return self.sums_of(model, batch)

    def conclude(self, findings: Sequence[torch.Tensor]) -> dict[str, float]:
        """Collective: return the validation loss and the rewards over all pairs."""
        sums = self.accelerator.reduce(torch.stack(list(findings)).sum(dim=0), reduction="sum")
        loss = self.loss_of(sums, sums[-self.number_of_shares :]).item()
        metrics = {"loss": loss} | self.rewards_of(sums.tolist())
        return {f"eval_{name}": value for name, value in metrics.items()}


def lengths_of_pairs(rows: Any) -> list[int]:
    """Return the tokens of both sequences of each pair, padded to the longer one."""
    columns = [lengths_of(rows, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    pairs = zip(*columns, strict=True)
    return [2 * (prompt + max(chosen, rejected)) for prompt, chosen, rejected in pairs]


def padded_tokens_of_pairs(rows: Sequence[Row]) -> list[int]:
    """Return the tokens of each pair, padded to the longer answer."""
    return [
        2 * (len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])))
        for row in rows
    ]


def tokens_of_pairs(rows: Sequence[Row]) -> list[int]:
    """Return the tokens of each pair without padding."""
    return [
        2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
        for row in rows
    ]
