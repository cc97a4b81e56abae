"""The trainer of a reward model: its rows, its loss, and what it logs of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import RewardTrainer

from job.config.method_sections import SEQUENCES_OF_A_ROW
from job.model import Model
from job.model.reward import add_head, score_in_forward
from job.training.batches import Collator, Row, Tensors
from job.training.judged import (
    JudgedTrainer,
    lengths_of_pairs,
    padded_tokens_of_pairs,
    tokens_of_pairs,
)
from job.training.needs import Needs


class RewardModelTrainer(JudgedTrainer, RewardTrainer):  # type: ignore[misc]
    """Learn to score the chosen summary of a pair above the rejected one: `method: reward`.

    The loss is that of Bradley and Terry, whose model takes the difference of two scores as the
    log-odds that people prefer the first. Both summaries are in one pass. TRL switches dropout off.
    """

    rows_of_a_row = SEQUENCES_OF_A_ROW["reward"]
    number_of_sums = 5

    def __init__(self, needs: Needs, **named: Any) -> None:
        super().__init__(needs, **named)
        # In place of the fused head that the other methods need.
        score_in_forward(self.model.get_base_model())

    def choose_forward(self, model: Model) -> None:
        """Do nothing: the scores are computed in one way."""

    def lengths_of_rows(self, rows: Any) -> list[int]:
        """Return the tokens of both sequences of each pair, padded to the longer one."""
        return lengths_of_pairs(rows)

    def make_collator(self) -> Collator:
        """Return TRL's collator, which puts the rejected sequences after the chosen ones."""
        pad_id = self.data_collator.pad_token_id
        idle_row = {"prompt_ids": [pad_id, pad_id], "chosen_ids": [], "rejected_ids": []}
        return Collator(self.collate, padded_tokens_of_pairs, tokens_of_pairs, idle_row)

    def collate(self, rows: list[Row]) -> Tensors:
        """Return TRL's micro-batch of the rows, and which of them is no idle one: (pairs,)."""
        answers = ("chosen_ids", "rejected_ids")
        whole = [{name: row["prompt_ids"] + row[name] for name in answers} for row in rows]
        batch: Tensors = self.data_collator(whole)
        batch["is_row"] = torch.tensor([bool(row["chosen_ids"]) for row in rows])
        return batch

    def shares_of(self, batch: Tensors) -> torch.Tensor:
        """Return the number of pairs."""
        return batch["is_row"].sum()[None]

    def sums_of(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the sums of losses, of both scores and of right orders, and the pairs."""
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        chosen, rejected = output.logits.double().chunk(2)
        by_pair = [
            -logsigmoid(chosen - rejected),
            chosen,
            rejected,
            chosen > rejected,
            torch.ones_like(chosen),
        ]
        return torch.stack([(values * batch["is_row"]).sum() for values in by_pair])

    def loss_of(self, sums: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over pairs."""
        return sums[0] / shares[0]

    def rewards_of(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the mean scores, their difference, and the share of pairs in the right order."""
        _, chosen, rejected, right, pairs = sums
        return {
            "rewards/chosen": chosen / pairs,
            "rewards/rejected": rejected / pairs,
            "rewards/margins": (chosen - rejected) / pairs,
            "rewards/accuracies": right / pairs,
        }


def prepare_to_score(base: Model) -> None:
    """Put a new head on a base without an adapter, as TRL wants it."""
    add_head(base)
    base.config.num_labels = 1
